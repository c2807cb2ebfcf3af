"""Which permissions the Redis user lacks: one sentence at the start, before a command fails.

INFO and the commands of administrators are not needed. Without INFO a restart that kept the data is
not noticed; the random part of a cursor covers that case.
"""

from __future__ import annotations

__all__ = ["missing_permissions"]

import asyncio
import contextlib
import ssl
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.connection import SSLConnection

from uvian_worker.redis.errors import EXPECTS_TLS, RedisAway, RedisDenied, RedisUnusable
from uvian_worker.redis.keys import Keys

_SECONDS: Final = 1.0


async def missing_permissions(redis: Redis, namespace: str) -> str | None:
    """What the user of this client lacks, with the command that grants it; None if it has everything.

    Every command is tried, on keys that are removed afterwards. Raises ``RedisAway``, also for a server
    that closes the connection because it expects TLS: then its words say so.
    """
    try:
        denied = [
            await _denied_channel(redis, namespace),
            *await _denied_commands(redis, namespace),
        ]
    except RedisAway as away:
        if away.is_gone and await _expects_tls(redis):
            raise RedisUnusable(*EXPECTS_TLS) from away
        raise
    texts = [str(error) for error in denied if error is not None]
    if not texts:
        return None
    lacks = sorted({_rule_of(text, namespace) for text in texts})
    user = redis.connection_pool.connection_kwargs.get("username") or "default"
    return (
        f"the Redis user {user!r} lacks {', '.join(lacks)}. All it needs: ACL SETUSER {user} "
        f"~{namespace}:* &{namespace}:* +@all -@admin -@dangerous +info"
    )


async def _expects_tls(redis: Redis) -> bool:
    """Whether the server answers to TLS: with TLS expected it closes a plain connection at once."""
    pool = redis.connection_pool
    host, port = (pool.connection_kwargs.get(name) for name in ("host", "port"))
    if host is None or issubclass(pool.connection_class, SSLConnection):
        return False
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent to it
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(host, port or 6379, ssl=context)
    except OSError:  # also an SSLError and a TimeoutError
        return False
    writer.transport.abort()
    return True


async def _denied_commands(redis: Redis, namespace: str) -> list[RedisDenied]:
    base = Keys(namespace).probe
    text, number, table, zset, items, log, names = (f"{base}:{kind}" for kind in "sntzilm")
    commands: list[tuple[Any, ...]] = [
        ("TIME",),
        ("EVAL", "return 1", 0),
        ("EVALSHA", "0" * 40, 0),
        ("PUBLISH", f"{namespace}:events:probe", ""),
        ("SET", text, "1"),
        ("PSETEX", text, 60_000, "1"),
        ("GET", text),
        ("APPEND", text, "1"),
        ("STRLEN", text),
        ("EXISTS", text),
        ("PEXPIRE", text, 60_000),
        ("EXPIRE", text, 60),
        ("INCR", number),
        ("HSET", table, "f", "1"),
        ("HSETNX", table, "f", "1"),
        ("HMGET", table, "f"),
        ("HGETALL", table),
        ("HDEL", table, "f"),
        ("ZADD", zset, 1, "m"),
        ("ZSCORE", zset, "m"),
        ("ZCARD", zset),
        ("ZRANGEBYSCORE", zset, 0, 1),
        ("ZREM", zset, "m"),
        ("LPUSH", items, "1"),
        ("LTRIM", items, 0, 1),
        ("BLPOP", items, 1),
        ("XADD", log, "*", "f", "1"),
        ("XRANGE", log, "-", "+"),
        ("SADD", names, "m"),
        ("SMEMBERS", names),
        ("SREM", names, "m"),
        ("WATCH", text),
        ("UNWATCH",),
        ("MULTI",),
        ("EXEC",),
        ("DEL", text, number, table, zset, items, log, names),
    ]
    pipe: Any = redis.pipeline(transaction=False)
    # Not by its methods: a pipeline carries out some of these commands at once.
    pipe.command_stack = [(command, {}) for command in commands]
    answers = await pipe.execute(raise_on_error=False)
    return [answer for answer in answers if isinstance(answer, RedisDenied)]


async def _denied_channel(redis: Redis, namespace: str) -> RedisDenied | None:
    pubsub: Any = redis.pubsub()
    try:
        await pubsub.subscribe(f"{namespace}:events:probe")
        await pubsub.get_message(timeout=_SECONDS)
    except RedisDenied as error:
        return error
    finally:
        with contextlib.suppress(Exception):
            await pubsub.aclose()
    return None


def _rule_of(text: str, namespace: str) -> str:
    """The ACL rule that is missing; Redis 6.2 and 7 word their refusals differently."""
    _, quote, rest = text.partition("the '")
    if quote:
        return f"+{rest.partition(chr(39))[0]}"
    return f"&{namespace}:* (channels)" if "channel" in text else f"~{namespace}:* (keys)"
