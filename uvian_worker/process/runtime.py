"""What makes a process of ours fast, and how one ends: for whoever owns the process."""

from __future__ import annotations

__all__ = [
    "SIGNALS",
    "end_process",
    "end_when_told",
    "file_limit",
    "keep_out_of_collections",
    "raise_file_limit",
    "use_fast_loop",
]

import asyncio
import contextlib
import gc
import os
import signal
import sys
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)  #: by which a server is told to end


def end_when_told() -> None:
    """While nothing is open yet a process ends at once, with 0. Loops take the signals over."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: end_process())


def end_process() -> None:
    """All is settled and closed, or nothing was opened: what hangs is not worth waiting for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def use_fast_loop() -> None:
    """Let event loops that are made from now on be uvloop's, where it is installed (not on Windows).

    Before the loop is made: a fifth less CPU per token of a chat.
    """
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - not on every system

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def keep_out_of_collections() -> None:
    """Let the garbage collector never again look through what a process has loaded to start.

    Once everything is open: with it a full collection stands still for 100 ms, without for 30.
    """
    gc.collect()
    gc.freeze()


def file_limit() -> int | None:
    """How many files, connections among them, this process may have open; None where nothing says so."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def raise_file_limit(wanted: int = 65_536) -> None:
    """Take as many as we may: the usual 1024 are for programs that ``select``, which none of ours does."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415 - not on Windows

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
