"""What makes a process of ours fast: to be called once each, by whoever owns the process."""

from __future__ import annotations

__all__ = ["keep_out_of_collections", "use_fast_loop"]

import asyncio
import contextlib
import gc


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
