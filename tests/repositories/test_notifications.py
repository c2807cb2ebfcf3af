"""LISTEN that lives as long as its worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from repositories.postgres import Listener, notifications
from tests.servers import CleanDatabase

SESSIONS = "select pid from pg_stat_activity where datname = $1 and usename = 'uvian_migrator'"


@pytest.fixture
async def hand(superuser_dsn: str) -> AsyncIterator[asyncpg.Connection[object]]:
    """Somebody who notifies, and ends sessions."""
    connection: asyncpg.Connection[object] = await asyncpg.connect(superuser_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def listener(database_dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listener]:
    """One that does not wait long before it tries again."""
    monkeypatch.setattr(notifications, "_LONGEST_PAUSE", 0.01)
    listener = Listener(database_dsn)
    yield listener
    await listener.close()


def _payloads() -> asyncio.Queue[str]:
    return asyncio.Queue()


async def _heard(payloads: asyncio.Queue[str]) -> str:
    return await asyncio.wait_for(payloads.get(), 10)


@pytest.mark.database
async def test_every_channel_has_its_callback(
    listener: Listener, hand: asyncpg.Connection[object]
) -> None:
    """Once when it listens, then with the payload of each notification of that channel."""
    first, second = _payloads(), _payloads()
    listener.listen("one", first.put_nowait)
    listener.listen("two", second.put_nowait)
    assert (await _heard(first), await _heard(second)) == ("", "")
    await hand.execute("notify one, 'its payload'")
    assert await _heard(first) == "its payload"
    assert second.empty()
    await hand.execute("notify two")
    await _heard(second)


@pytest.mark.database
async def test_it_survives_its_connection_and_makes_up_for_the_gap(
    listener: Listener,
    hand: asyncpg.Connection[object],
    database: CleanDatabase,
) -> None:
    """It is opened again, with one call back for what was notified meanwhile."""
    heard = _payloads()
    listener.listen("one", heard.put_nowait)
    await _heard(heard)
    await hand.execute(f"select pg_terminate_backend(pid) from ({SESSIONS}) s", database.name)
    assert await _heard(heard) == "", "any may have been missed"
    await hand.execute("notify one, 'its payload'")
    assert await _heard(heard) == "its payload"


@pytest.mark.database
async def test_a_line_that_was_cut_without_a_word_is_found_out(
    database: CleanDatabase, hand: asyncpg.Connection[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing arrives and nothing breaks: it asks from time to time, and does not wait for ever."""
    monkeypatch.setattr(notifications, "_LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(notifications, "_PROBE_EVERY", 0.05)
    async with _line(database) as (dsn, cut):
        listener = Listener(dsn, timeout=0.3)
        try:
            heard = _payloads()
            listener.listen("one", heard.put_nowait)
            await _heard(heard)
            cut()
            await _heard(heard)
            await hand.execute("notify one")
            await _heard(heard)
        finally:
            await listener.close()


@pytest.mark.database
async def test_what_keeps_it_from_listening_is_said_once(
    database: CleanDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong name in the connection string is a warning, not one per second."""
    monkeypatch.setattr(notifications, "_LONGEST_PAUSE", 0.01)
    tries = asyncio.Semaphore(0)
    connect = asyncpg.connect

    async def counted(*arguments: object, **options: object) -> object:
        tries.release()
        return await connect(*arguments, **options)

    monkeypatch.setattr(asyncpg, "connect", counted)
    listener = Listener(database.dsn.replace(database.name, "nowhere"))
    with caplog.at_level(logging.WARNING, "uvian.database"):
        listener.listen("one", lambda _: None)
        for _ in range(4):
            await asyncio.wait_for(tries.acquire(), 10)
        await listener.close()
    (said,) = [record.getMessage() for record in caplog.records if record.name == "uvian.database"]
    assert "nowhere" in said
    assert "UVIAN_DATABASE_DIRECT_URL" in said


@pytest.mark.database
async def test_closed_it_leaves_no_session_and_calls_nobody(
    listener: Listener, hand: asyncpg.Connection[object], database: CleanDatabase
) -> None:
    """Closing twice is fine."""
    heard = _payloads()
    listener.listen("one", heard.put_nowait)
    await _heard(heard)
    assert len(await hand.fetch(SESSIONS, database.name)) == 1
    await listener.close()
    await listener.close()
    async with asyncio.timeout(10):
        while await hand.fetch(SESSIONS, database.name):
            await asyncio.sleep(0.01)
    await hand.execute("notify one")
    assert heard.empty()


@contextlib.asynccontextmanager
async def _line(database: CleanDatabase) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """A connection string through a line, and what cuts all who use it now, without a word."""
    socket = parse_qs(urlsplit(database.dsn).query)["host"][0] + "/.s.PGSQL.5432"
    pumps: set[asyncio.Task[None]] = set()
    ends: list[asyncio.StreamWriter] = []

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        ends.append(sink)
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
        sink.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(socket)
        pumps.add(asyncio.create_task(pump(reader, far_writer)))
        pumps.add(asyncio.create_task(pump(far_reader, writer)))

    def cut() -> None:
        for task in pumps:
            task.cancel()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"postgresql://uvian_migrator@127.0.0.1:{port}/{database.name}", cut
    finally:
        server.close()
        cut()
        await asyncio.gather(*pumps, return_exceptions=True)
        for end in ends:
            end.close()
