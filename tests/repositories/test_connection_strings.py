"""Connection strings as platforms hand them out, on a real Postgres, by every way that takes one."""

from __future__ import annotations

from typing import Any

import pytest

from repositories.errors import Misconfigured
from repositories.postgres import Listener, PostgresDatabase
from tests.repositories.test_dsn import TAKEN
from tests.servers import CleanDatabase
from uvian_worker.client import Client, NotSetUp
from uvian_worker.schema.migrate import look

pytestmark = pytest.mark.database

_REDIS = "redis://127.0.0.1:1/0"
#: On a socket nobody encrypts, and a plain server does not know Supavisor's word for a project.
_ELSEWHERE = ("options=reference",)


def _with(dsn: str, query: str) -> str:
    return f"{dsn}{'&' if '?' in dsn else '?'}{query}"


@pytest.mark.parametrize("query", [each for each in TAKEN if not each.startswith(_ELSEWHERE)])
async def test_no_parameter_of_others_reaches_the_server(
    database: CleanDatabase, query: str
) -> None:
    """42704 would refuse the connection: workers, clients and listeners connect all the same."""
    dsn = _with(database.dsn, query)
    rows = await PostgresDatabase.connect(dsn, timeout=5)
    assert await rows.select("jobs") == []
    await rows.close()
    async with await Client.connect(database_url=dsn, redis_url=_REDIS) as client:
        assert await client._database.call_once("list_types", {"request": {}})
    if "pgbouncer=true" not in query:  # refused: it names a transaction pooler
        assert (await look(dsn)).schema.pending == ()
    listener = Listener(dsn, timeout=5)
    async with listener._connection() as connection:
        assert await connection.fetchval("select 1") == 1


async def test_what_the_server_does_not_know_is_a_setting_to_mend(database: CleanDatabase) -> None:
    """A name inside `options` is the server's to judge: its answer names the setting here."""
    for options in ("-c%20statement_timeuot%3D5000", "statement_timeuot%3D5000"):
        dsn = _with(database.dsn, f"options={options}")
        with pytest.raises(Misconfigured, match=r"UVIAN_DATABASE_URL: .*statement_timeuot"):
            await PostgresDatabase.connect(dsn, timeout=5)


BAD = [
    "postgresql://u:[hidden]@h/x",
    "postgresql://u:hid#den@h/x",
    "postgresql://u:hidden@h/x?foo=hidden",
    "postgresql://u:hidden@h/x?sslmode=verify-full&sslrootcert=/none",
]


@pytest.mark.parametrize("dsn", BAD)
async def test_what_cannot_be_used_is_told_by_every_way(dsn: str) -> None:
    """Before anything connects, without the password, and by nobody's parser but ours."""
    ways: list[tuple[type[Exception], Any]] = [
        (Misconfigured, lambda: PostgresDatabase.connect(dsn)),
        (Misconfigured, lambda: look(dsn)),
        (NotSetUp, lambda: Client.connect(database_url=dsn, redis_url=_REDIS)),
    ]
    for kind, way in ways:
        with pytest.raises(kind) as wrong:
            await way()
        assert "hid" not in str(wrong.value)
        assert wrong.value.__cause__ is None


def test_a_client_tells_a_redis_url_that_it_cannot_use() -> None:
    """The same, for the other server."""
    for url in ("redis://:[hidden]@h", "redis://:hid/den@h:6379", "redis://:hidden@h?foo=1"):
        with pytest.raises(NotSetUp, match="redis_url") as wrong:
            Client.over(lambda *_: None, url)  # type: ignore[arg-type]
        assert "hid" not in str(wrong.value)
