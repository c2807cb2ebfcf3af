"""Which executor does which type: ours by name, yours by entry point."""

from __future__ import annotations

__all__ = ["BUILT_IN", "ENTRY_POINTS", "Registry"]

from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from typing import Any

from executors.base import BaseExecutor
from executors.chat import ChatExecutor
from executors.generation import GenerationExecutor
from executors.refinement import RefinementExecutor

AnyExecutor = BaseExecutor[Any, Any]

#: One line per executor of ours.
BUILT_IN: tuple[type[AnyExecutor], ...] = (
    GenerationExecutor,
    RefinementExecutor,
    ChatExecutor,
)

#: The group under which another distribution names its executors.
ENTRY_POINTS = "uvian_worker.executors"


class Registry:
    """Executors by type. A repeated or malformed type is refused when the process starts."""

    def __init__(self, executors: Iterable[type[AnyExecutor]]) -> None:
        self._executors: dict[str, AnyExecutor] = {}
        for cls in executors:
            self._add(cls)

    @classmethod
    def load(cls, executors: Iterable[type[AnyExecutor]] = BUILT_IN) -> Registry:
        """``executors`` and those of the entry points of all installed distributions."""
        found = [point.load() for point in entry_points(group=ENTRY_POINTS)]
        return cls([*executors, *found])

    def find(self, type_: str) -> AnyExecutor | None:
        """The executor of a type, if this process has one."""
        return self._executors.get(type_)

    def __iter__(self) -> Iterator[AnyExecutor]:
        return iter(self._executors.values())

    @property
    def types(self) -> tuple[str, ...]:
        """All types, sorted."""
        return tuple(sorted(self._executors))

    def descriptions(self) -> list[dict[str, Any]]:
        """What ``register_worker`` writes to the database about each type."""
        return [
            {
                "type": executor.type,
                "input_schema": executor.Input.model_json_schema(),
                "timeout_seconds": executor.timeout.total_seconds(),
                "max_attempts": executor.max_attempts,
            }
            for executor in self
        ]

    def _add(self, cls: type[AnyExecutor]) -> None:
        if not issubclass(cls, BaseExecutor):
            raise TypeError(f"{cls!r} is not a subclass of executors.base.BaseExecutor")
        missing = [name for name in ("type", "Input", "Output") if not hasattr(cls, name)]
        if missing:
            raise TypeError(f"{cls.__name__} lacks {', '.join(missing)}")
        if cls.type in self._executors:
            other = type(self._executors[cls.type])
            raise ValueError(
                f"two executors claim the type {cls.type!r}: "
                f"{other.__module__}.{other.__name__} and {cls.__module__}.{cls.__name__}"
            )
        self._executors[cls.type] = cls()
