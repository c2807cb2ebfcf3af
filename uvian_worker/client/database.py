"""The database as a client sees it: calls of functions, repeated for some seconds while it is away."""

from __future__ import annotations

__all__ = ["PATIENCE", "ClientDatabase"]

import asyncio
import logging
import time
from typing import Any, Final

from uvian_common.backoff import pause_before
from uvian_worker.client.calls import Call, DatabaseAway, StatementTooSlow

log = logging.getLogger("uvian.client")

#: Seconds for which a call is repeated while the database is away. A failover, or PostgREST's reload of its
#: schema cache, is often over by then, and a user who waits for a request is still there.
PATIENCE: Final = 3.0


class ClientDatabase:
    """Calls functions of the schema ``uvian`` as the service."""

    def __init__(self, call: Call, *, patience: float = PATIENCE) -> None:
        self._call = call
        self._patience = patience

    async def call(self, function: str, arguments: dict[str, Any], *, repeat: bool = True) -> Any:
        """Call a function; while the database is away the call is repeated, at least once.

        Without ``repeat`` it is called once: a second call could do something twice.
        """
        tries, deadline = 0, time.monotonic() + self._patience
        while True:
            try:
                return await self._call(function, arguments)
            except StatementTooSlow:
                raise
            except (DatabaseAway, OSError) as error:
                tries += 1
                # On a dead connection the first call alone may have taken longer than the patience.
                if not repeat or (tries > 1 and time.monotonic() > deadline):
                    raise
                log.debug("%s: %s; trying again", function, error)
            await asyncio.sleep(pause_before(tries, longest=0.8))

    async def call_once(self, function: str, arguments: dict[str, Any]) -> Any:
        """Call a function that the caller repeats itself."""
        return await self._call(function, arguments)
