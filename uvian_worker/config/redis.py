"""Settings of Redis."""

from __future__ import annotations

__all__ = ["RedisSettings"]

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr

from uvian_worker.config.setting_types import RedisUrl


class RedisSettings(BaseModel):
    """Redis: where it is, and how names in it begin."""

    redis_url: RedisUrl = SecretStr("redis://127.0.0.1:6379/0")
    """Redis: `redis://[user:password@]host:port/db`, or `rediss://` for TLS."""
    namespace: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,40}$")] = "uvian"
    """Prefix of all our keys, channels and queues in Redis."""
