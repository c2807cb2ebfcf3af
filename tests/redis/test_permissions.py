"""Redis users with few permissions: what they may do works, and one line says what is missing."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import arq.worker
import pytest
from redis.asyncio import Redis

from executors import events
from executors.events import Appended
from tests.events.events import Followed, append, job
from tests.queue.jobs import RunningWorker, dispatch_of
from tests.redis_servers import eventually
from uvian_worker.events.publisher import Publisher
from uvian_worker.events.reader import Reader
from uvian_worker.queue.arq_adapter.pool import arq_redis_from_url
from uvian_worker.queue.dispatch import Dispatcher
from uvian_worker.queue.taker import Taker
from uvian_worker.redis.connection import redis_from_url
from uvian_worker.redis.permissions import missing_permissions

pytestmark = pytest.mark.database

ALL = ("~uvian:*", "&uvian:*", "+@all", "-@admin", "-@dangerous")


class Users:
    """Makes users of the session's Redis."""

    def __init__(self, url: str, administrator: Any) -> None:
        self._url = url
        self._administrator = administrator

    async def may(self, *rules: str) -> str:
        """The URL of a user with these rights and no others."""
        await self._administrator.execute_command(
            "ACL", "SETUSER", "few", "reset", "on", ">secret", "resetchannels", *rules
        )
        return f"redis://few:secret@127.0.0.1:{urlsplit(self._url).port}/0"


@pytest.fixture
async def users(redis_url: str) -> AsyncIterator[Users]:
    """Users that are gone after the test."""
    administrator: Any = Redis.from_url(redis_url)
    yield Users(redis_url, administrator)
    await administrator.execute_command("ACL", "DELUSER", "few")
    await administrator.aclose()


async def test_the_keys_and_channels_of_the_namespace_are_enough(
    users: Users, caplog: pytest.LogCaptureFixture
) -> None:
    """No INFO, no administrator's commands, no key outside: arq starts, jobs run, events are received."""
    url = await users.may(*ALL)
    redis = redis_from_url(url, patience=1)
    assert await missing_permissions(redis, "uvian") is None
    pool = arq_redis_from_url(url, "uvian")
    said: list[str] = []
    log_redis_info: Any = vars(arq.worker)["log_redis_info"]
    await log_redis_info(pool, lambda *words: said.append(words[0] % words[1:]))
    assert said[0].startswith("redis_version=")
    dispatcher, taker = Dispatcher(redis, "uvian"), Taker(redis, "uvian")
    publisher, reader = Publisher(redis, "uvian"), Reader(redis, "uvian")
    ref = job(id="j1")
    follower = Followed(reader, "job:j1")

    async def run(job_id: str, run: int) -> None:
        assert await taker.enter(job_id, run)
        await append(publisher, ref, events.JobStarted(job_type="chat", worker="w"))
        taker.claim_answered(job_id, run)

    worker = RunningWorker(pool, run, health_check_interval=0.05)
    with caplog.at_level(logging.WARNING):
        await dispatcher.dispatch([dispatch_of("j1")])
        await follower.sees(2)
        assert await append(publisher, ref, events.JobCompleted(output={})) == [Appended.APPENDED]
        await follower.until_end()
        assert await dispatcher.redis_lost()
        await dispatcher.mark_redis()
        assert not await dispatcher.redis_lost()
        assert await dispatcher.overdue() == []
    assert "does not allow" not in "".join(
        record.getMessage() for record in caplog.records if "'info'" not in record.getMessage()
    )
    await eventually(lambda: worker.worker.jobs_complete == 1)
    await worker.close()
    for part in (reader, publisher, taker, dispatcher):
        await part.close()
    await redis.aclose()
    await pool.aclose()


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (("~uvian:*", "&uvian:*", "+@all", "-@scripting"), ["+eval,", "+evalsha."]),
        (("~uvian:*", "+@all"), ["&uvian:* (channels)"]),
        (("~other:*", "&uvian:*", "+@all"), ["~uvian:* (keys)"]),
        (("~uvian:*", "&uvian:*", "+@all", "-@blocking"), ["+blpop"]),
        (("~uvian:*", "&uvian:*", "+@all", "-subscribe"), ["+subscribe"]),
        (("~uvian:*", "&uvian:*", "+@read"), ["+eval", "+zadd", "+publish", "+watch"]),
        (("~uvian:*", "&uvian:*", "+@all", "-@pubsub", "-time"), ["+publish", "+time"]),
    ],
)
async def test_what_is_missing_is_named_with_what_gives_it(
    users: Users, rules: tuple[str, ...], named: list[str]
) -> None:
    """By both releases of Redis, in their own words."""
    redis = redis_from_url(await users.may(*rules), patience=0)
    lacks = await missing_permissions(redis, "uvian")
    await redis.aclose()
    assert lacks is not None
    assert all(right in lacks for right in named), lacks
    assert "ACL SETUSER few ~uvian:* &uvian:*" in lacks
    assert "\n" not in lacks


async def test_the_check_leaves_no_key_behind(users: Users, redis_url: str) -> None:
    """The keys it tries with are gone."""
    redis = redis_from_url(redis_url, patience=0)
    assert await missing_permissions(redis, "uvian") is None
    assert await redis.keys("*") == []
    await redis.aclose()
