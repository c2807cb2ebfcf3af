"""How fast a client may speak, whatever it says."""

from __future__ import annotations

__all__ = ["BURST", "PER_SECOND", "Pace"]

import asyncio
from typing import Final

PER_SECOND: Final = 20.0  #: frames of one socket, in the long run
BURST: Final = 400.0  #: at once: a client that comes back subscribes to all of its topics again
PATIENCE: Final = 10.0  #: seconds that a client may go on saying more than that


class Pace:
    """A token bucket (ITU-T I.371) in front of one socket.

    What comes too fast is read later, and meanwhile waits where it costs the client: in its own buffers.
    """

    def __init__(
        self,
        *,
        per_second: float = PER_SECOND,
        burst: float = BURST,
        patience: float | None = None,
    ) -> None:
        self._every = 1 / per_second
        self._fits = burst / per_second
        self._patience = PATIENCE if patience is None else patience
        self._full = 0.0  #: when the bucket is full again
        self._too_fast_since: float | None = None

    async def turn(self) -> bool:
        """Wait for the turn of the next frame; False for who does not stop being too fast."""
        now = asyncio.get_running_loop().time()
        self._full = max(self._full, now) + self._every
        wait = self._full - now - self._fits
        if wait <= 0:
            if self._full - now < self._fits / 2:
                self._too_fast_since = None
            return True
        if self._too_fast_since is None:
            self._too_fast_since = now
        if now - self._too_fast_since > self._patience:
            return False
        await asyncio.sleep(wait)
        return True
