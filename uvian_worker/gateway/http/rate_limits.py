"""How many requests a user may send, over all gateways: token buckets in Redis."""

from __future__ import annotations

__all__ = ["Limits"]

import asyncio
import logging
import math
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from uvian_worker.gateway.http.problems import Problem
from uvian_worker.redis.clients import state_of
from uvian_worker.redis.connection import FAULTS, Script, run_script

log = logging.getLogger("uvian.gateway.limits")

_SCRIPT: Final = Script.of(Path(__file__).with_name("limit.lua"))
_SECONDS: Final = 0.5  #: that a request waits for Redis


class Limits:
    """``per_minute`` requests of each kind, with bursts of a quarter of that.

    The generic cell rate algorithm: ITU-T I.371. A Redis that is away limits nobody: what a limit
    protects is Postgres, which has limits of its own.
    """

    def __init__(self, redis: Redis, namespace: str, per_minute: dict[str, int]) -> None:
        self._redis = redis
        self._namespace = namespace
        self._per_minute = per_minute

    async def spend(self, kind: str, user_id: str) -> None:
        """Take a token; raises ``Problem`` (``rate_limited``) with the seconds to wait for one."""
        per_minute = self._per_minute[kind]
        key = f"{self._namespace}:limit:{kind}:{user_id}"
        if state_of(self._redis).away is not None:
            return
        try:
            async with asyncio.timeout(_SECONDS):
                wait = await run_script(
                    self._redis, _SCRIPT, key, 60_000 / per_minute, max(1, per_minute // 4)
                )
        except FAULTS as error:
            log.debug("Nobody is limited while Redis is away: %s", error)
            return
        if wait:
            seconds = math.ceil(int(wait) / 1000)
            raise Problem(
                "rate_limited",
                f"At most {per_minute} a minute; try again in {seconds} s.",
                headers={"Retry-After": str(seconds)},
            )
