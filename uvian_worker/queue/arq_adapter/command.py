"""What the ``arq`` command does with its process, as far as a worker has to know it."""

from __future__ import annotations

__all__ = ["ReadWhenArqStarts", "is_arqs_process", "is_watching", "leave_watch"]

import os
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from arq.worker import get_kwargs


class ReadWhenArqStarts(type):
    """A class of settings for arq, some of which are read at the moment when arq makes a worker of it.

    arq looks at the ``__dict__`` of the class. For arq alone ``read_settings`` of the class is called.
    Whatever else imports the class or looks at it (tests, type checkers, documentation, an IDE) reads no
    environment.
    """

    read_settings: ClassVar[Any]

    @property  # type: ignore[misc]  # mypy calls type's own final
    def __dict__(cls) -> Any:  # type: ignore[override]
        written: Mapping[str, Any] = type.__dict__["__dict__"].__get__(cls)
        if sys._getframe(1).f_code is get_kwargs.__code__:  # noqa: SLF001 - the caller decides
            return {**cls.read_settings(), **written}
        return written


def is_arqs_process() -> bool:
    """Whether this process runs the ``arq`` command: then it is a worker's and nothing else's."""
    return "arq.cli" in sys.modules


def is_watching() -> bool:
    """Whether it is ``arq --watch``."""
    return any(argument.startswith("--watch") for argument in sys.argv)


def leave_watch(*, restart: bool) -> None:
    """Start this process again, or end it.

    ``arq --watch`` would continue with the modules it has loaded, and with a pool of its own on
    localhost. A new process has the code that was changed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if restart:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves
    os._exit(0)
