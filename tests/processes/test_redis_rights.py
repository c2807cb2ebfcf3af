"""Workers as operators start them: with a Redis user of few rights, where TLS is spoken, beside a copy."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from tests.adapters import over_postgres_only
from tests.processes.site import Site
from tests.redis.sick import SickRedis
from tests.servers import REDIS_BINARY
from uvian_worker.local.embedded import EmbeddedRedis

pytestmark = pytest.mark.processes


async def user_of(site: Site, *rules: str) -> str:
    """The URL of a user with these rights."""
    administrator: Any = Redis.from_url(site.redis.url)
    await administrator.execute_command(
        "ACL", "SETUSER", "few", "reset", "on", ">secret", "resetchannels", *rules
    )
    await administrator.aclose()
    return f"redis://few:secret@127.0.0.1:{urlsplit(site.redis.url).port}/0"


def last_words(said: str) -> list[str]:
    """What is worth a look in a log."""
    return [line for line in said.splitlines() if " CRITICAL " in line or "Traceback" in line]


@over_postgres_only
async def test_the_rights_of_the_namespace_are_enough_for_a_worker(site: Site) -> None:
    """Without INFO and the administrator's commands, and with no other key or channel, jobs run."""
    url = await user_of(site, "~uvian:*", "&uvian:*", "+@all", "-@admin", "-@dangerous")
    worker = await site.worker(UVIAN_REDIS_URL=url)
    (row,) = await site.ended(await site.submit("noop"))
    assert row["status"] == "completed"
    assert "Traceback" not in worker.said
    assert worker.terminate() == 0


@over_postgres_only
@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (("~uvian:*", "&uvian:*", "+@all", "-@scripting"), "lacks +eval, +evalsha"),
        (("~uvian:*", "+@all"), "lacks &uvian:* (channels)"),
        (("~other:*", "&uvian:*", "+@all"), "lacks ~uvian:* (keys)"),
    ],
)
async def test_a_right_that_is_missing_ends_the_start_in_one_line(
    site: Site, rules: tuple[str, ...], named: str
) -> None:
    """It names what is missing and what gives it, and consumes nothing."""
    worker = site.start(UVIAN_REDIS_URL=await user_of(site, *rules))
    assert await asyncio.to_thread(worker.process.wait, 60) == 2
    (line,) = last_words(worker.said)
    assert named in line
    assert "ACL SETUSER few" in line


@over_postgres_only
async def test_tls_where_none_is_spoken_ends_the_start_in_one_line(site: Site) -> None:
    """``redis://`` to a port that speaks TLS: the line says what to write."""
    proxy = SickRedis(site.redis.port)
    await proxy.start()
    async with proxy.struck(lambda _: True, "tls"):
        url = site.redis.url.replace(str(site.redis.port), str(proxy.port))
        worker = site.start(UVIAN_REDIS_URL=url)
        assert await asyncio.to_thread(worker.process.wait, 60) != 0
    (line,) = last_words(worker.said)
    assert "expects TLS: write rediss://" in line
    await proxy.close()


@over_postgres_only
async def test_a_start_waits_for_a_server_that_lives(site: Site) -> None:
    """It loads its data, as it does when both are started together: a line, and then the worker works."""
    proxy = SickRedis(site.redis.port)
    await proxy.start()
    url = site.redis.url.replace(str(site.redis.port), str(proxy.port))
    async with proxy.struck(lambda _: True, "LOADING Redis is loading the dataset in memory"):
        worker = site.start(UVIAN_REDIS_URL=url)
        await site.until(lambda: "is loading its data" in worker.said, worker)
        await asyncio.sleep(4)  # longer than the patience with an address where nobody is
        assert worker.process.poll() is None
    await site.until(lambda: "at a time" in worker.said, worker)
    (row,) = await site.ended(await site.submit("noop"))
    assert row["status"] == "completed"
    worker.kill()
    await proxy.close()


@over_postgres_only
async def test_a_restored_copy_beside_the_original_disturbs_nothing(
    site: Site, tmp_path: Path
) -> None:
    """A backup, queue and marks and all, comes up on another port, and a worker with the same database
    is pointed at it: every job runs once, none is charged an attempt, and its events are told where it ran.
    """
    jobs = [
        await site.submit("wait", seconds=0.2) for _ in range(10)
    ]  # in the queue, and in the copy
    administrator: Any = Redis.from_url(site.redis.url)
    await administrator.save()
    folder = Path((await administrator.config_get("dir"))["dir"])
    with EmbeddedRedis(tmp_path / "copy", binary=REDIS_BINARY) as copy:
        other: Any = Redis.from_url(copy.url)
        there = Path((await other.config_get("dir"))["dir"])
        await asyncio.to_thread(copy.kill)
        shutil.copy(folder / "dump.rdb", there / "dump.rdb")
        await asyncio.to_thread(copy.start)
        assert await other.zcard("uvian:queue") == 10
        first = await site.worker(UVIAN_MAX_JOBS="2")
        second = await site.worker(UVIAN_MAX_JOBS="2", UVIAN_REDIS_URL=copy.url)
        jobs += [await site.submit("wait", seconds=0.2) for _ in range(10)]
        rows = await site.ended(*jobs, within=40)
        assert {(row["status"], row["attempt"]) for row in rows} == {("completed", 0)}
        outcomes = await site.execute(
            "select job_id, count(*) from uvian.job_runs where outcome = 'completed' group by job_id"
        )
        assert [row["count"] for row in outcomes] == [1] * 20
        assert "Traceback" not in first.said + second.said
        second.kill()
        first.kill()
        await other.aclose()
    await administrator.aclose()
