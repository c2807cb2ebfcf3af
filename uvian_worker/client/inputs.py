"""Whether the input of a job fits its type, before the job is made and its credits are held."""

from __future__ import annotations

__all__ = ["Inputs"]

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from uvian_worker.client.calls import DatabaseAway, JobRefused
from uvian_worker.client.schemas import Mistake, mistakes_of, sentence_of

#: Seconds that a schema is believed when it lets an input pass: the worker looks at it once more.
_LIFETIME: Final = 60.0
#: Seconds that it is believed when it refuses: a newer release may have registered another.
_FRESH: Final = 2.0


class Inputs:
    """The schemas of all types, as the newest worker has registered them, read now and then."""

    def __init__(
        self,
        read: Callable[[], Awaitable[Mapping[str, Any]]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``read`` answers what ``type_schemas`` does; raises ``DatabaseAway``."""
        self._read = read
        self._clock = clock
        self._schemas: Mapping[str, Any] = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def require_valid(self, type_: str, document: Mapping[str, Any], where: str = "") -> None:
        """Raise ``JobRefused`` (``invalid_input``, with ``errors``) unless the input fits its type.

        A type that nobody knows is the database's to refuse; one that no worker has described yet
        takes anything, until a worker looks at it.
        """
        mistakes = await self._mistakes(type_, document, where, believed=_LIFETIME)
        if mistakes:
            mistakes = await self._mistakes(type_, document, where, believed=_FRESH)
        if mistakes:
            errors = [mistake._asdict() for mistake in mistakes]
            raise JobRefused("invalid_input", {"message": sentence_of(mistakes), "errors": errors})

    async def _mistakes(
        self, type_: str, document: Mapping[str, Any], where: str, *, believed: float
    ) -> list[Mistake]:
        age = self._clock() - self._read_at
        if age > believed or (type_ not in self._schemas and age > _FRESH):
            # One question for all who wait, and one answer.
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._refresh(), name="read types")
                self._reading.add_done_callback(_retrieved)
            await asyncio.shield(self._reading)
        schema = self._schemas.get(type_, {})
        return mistakes_of(schema, _as_sent(document), where)

    async def _refresh(self) -> None:
        try:
            self._schemas = await self._read()
        except DatabaseAway:
            if self._read_at < 0:  # it never was there
                raise
            return  # what is known will do: the next call meets the same database
        self._read_at = self._clock()


def _retrieved(reading: asyncio.Task[None]) -> None:
    """Whoever waited may have gone."""
    if not reading.cancelled():
        reading.exception()


def _as_sent(document: Mapping[str, Any]) -> Any:
    """As the database will have it: ids and times are text."""
    try:
        return orjson.loads(orjson.dumps(dict(document)))
    except orjson.JSONEncodeError as error:
        raise JobRefused("invalid_input", {"message": f"not JSON: {error}"}) from error
