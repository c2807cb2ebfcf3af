"""Decoder processes, seen from outside."""

from __future__ import annotations

__all__ = ["begun", "children", "cpu", "is_alive", "until"]

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from executors.imaging.codec import Decoders


def children(of: int) -> set[int]:
    """Process ids of the decoders that this process has started."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(stat[1]) == of and stat[0] != "Z" and b"decoder_process" in command:
            found.add(int(folder.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        await asyncio.sleep(0.005)


async def begun(decoders: Decoders, others: set[int]) -> int:
    """The process that is at a picture now."""
    found: set[int] = set()

    def busy() -> set[int]:
        candidates = children(os.getpid()) - others - set(decoders.idle)
        found.update(pid for pid in candidates if cpu(pid) > 0.15)  # it has started, and begun
        return found

    await until(busy)
    return found.pop()


def cpu(pid: int) -> float:
    """Seconds that a process has used so far."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:  # it has ended
        return 0.0
