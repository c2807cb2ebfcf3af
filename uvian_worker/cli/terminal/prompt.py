"""A line of somebody at the terminal, and quiet while they read."""

from __future__ import annotations

__all__ = ["PROMPT", "no_echo", "read_line"]

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

PROMPT = "> "


def read_line() -> str | None:
    """What is typed at the prompt; None after Ctrl-C or Ctrl-D.

    The event loop stands still meanwhile: nothing happens between two questions. Only so does the
    terminal edit the line, and is it left in order whatever signal comes.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() its arrow keys
    try:
        with _signals_end_it():
            return input(_coloured(PROMPT))
    except (EOFError, KeyboardInterrupt):
        sys.stdout.write("\n")
        return None


@contextlib.contextmanager
def no_echo() -> Iterator[None]:
    """What is typed while an answer is written does not stand in the middle of it."""
    try:
        import termios  # not on every system
    except ImportError:
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    quiet: list[Any] = [*before]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _coloured(prompt: str) -> str:
    """Bold; readline learns which signs take no room."""
    return f"\001\x1b[1;36m\002{prompt}\001\x1b[0m\002" if "readline" in sys.modules else prompt


@contextlib.contextmanager
def _signals_end_it() -> Iterator[None]:
    """While the loop stands still its signal handlers do too: Ctrl-C, and whoever ends the process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    descriptor = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _: object) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(130)
