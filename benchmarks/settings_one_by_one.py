"""The same worker with one call per transition: what the batchers are measured against."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from benchmarks.settings_uvian import WorkerSettings
from repositories import jobs

__all__ = ["WorkerSettings"]


class OneByOne:
    """A batcher that collects nothing."""

    def __init__(
        self, _: str, call: Callable[[Sequence[Any]], Awaitable[Sequence[Any]]], **__: Any
    ) -> None:
        self._call = call

    async def submit(self, item: Any) -> Any:
        """One item, one call."""
        return (await self._call([item]))[0]

    async def close(self) -> None:
        """Nothing waits."""


jobs.batcher = OneByOne  # type: ignore[assignment, attr-defined]
