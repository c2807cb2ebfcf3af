"""The same questions through the API: every table and function of the catalog, asked over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.lifecycle.world import World
from tests.security.expectations import FUNCTIONS, OWN_ROWS, TABLES
from tests.servers import CleanDatabase
from tests.supabase.platform import Platform

pytestmark = pytest.mark.database

#: As PostgREST says it to somebody who has a token, and to somebody who has none.
DENIED = {401, 403}
#: Postgres leaves out a call that answers nothing and changes nothing: there is nobody to refuse.
_FUNCTIONS = """
    select p.proname as name, p.proargnames[1:p.pronargs] as arguments,
           p.provolatile <> 'v' and p.prorettype = 'void'::regtype as idle
    from pg_proc p where p.pronamespace = 'uvian'::regnamespace and p.prorettype <> 'trigger'::regtype
    order by 1"""


@pytest.fixture
def project(any_database: CleanDatabase, tmp_path: Path) -> Iterator[Platform]:
    """The API of a project of each kind."""
    with Platform(any_database.authenticator_dsn, tmp_path / "storage") as platform:
        yield platform


class Caller:
    """Somebody with a key, and perhaps a token."""

    def __init__(self, http: httpx.AsyncClient, key: str, token: str | None = None) -> None:
        self._http = http
        self._headers = {
            "apikey": key,
            "Authorization": f"Bearer {token or key}",
            "Accept-Profile": "uvian",
            "Content-Profile": "uvian",
        }

    async def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """One request."""
        return await self._http.request(method, path, headers=self._headers, **request)


@pytest.fixture
async def http(project: Platform) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the project's address."""
    async with httpx.AsyncClient(base_url=project.url, timeout=30) as http:
        yield http


@pytest.fixture
async def callers(world: World, http: httpx.AsyncClient, project: Platform) -> dict[str, Caller]:
    """All who are not the owner: without a token, and with one of their own."""
    stranger = await world.user()
    public = project.publishable_key
    return {
        "anon": Caller(http, public),
        "anon, legacy key": Caller(http, project.anon_key),
        "another user": Caller(http, public, project.user_token(stranger)),
        "an anonymous sign-in": Caller(
            http, public, project.user_token(stranger, is_anonymous=True)
        ),
        "somebody with an empty subject": Caller(
            http, public, project.user_token(stranger, sub=None)
        ),
    }


async def test_nobody_reads_what_is_not_theirs(
    world: World, owner: str, callers: dict[str, Caller]
) -> None:
    """Every table × everybody but the owner: refused, or answered with no row."""
    for table in sorted(TABLES):
        assert await world.hand.fetchval(f"select count(*) from uvian.{table}") > 0, table
        for name, caller in callers.items():
            answer = await caller.ask("GET", f"/rest/v1/{table}?select=*")
            if name.startswith("anon") or table not in OWN_ROWS:
                assert answer.status_code in DENIED, (name, table, answer.text)
                assert answer.json()["code"] == "42501", (name, table)
            else:
                assert answer.json() == [], (name, table)


async def test_the_owner_reads_their_rows(
    world: World, owner: str, http: httpx.AsyncClient, project: Platform
) -> None:
    """Or the test above would pass on an API that answers nothing to anybody."""
    caller = Caller(http, project.publishable_key, project.user_token(owner))
    for table in sorted(OWN_ROWS):
        there = await world.hand.fetchval(f"select count(*) from uvian.{table}")
        assert len((await caller.ask("GET", f"/rest/v1/{table}?select=*")).json()) == there, table


async def test_nobody_writes_a_table(
    world: World, owner: str, callers: dict[str, Caller], http: httpx.AsyncClient, project: Platform
) -> None:
    """Every table × {POST, PATCH, DELETE} × everybody, the owner too: refused, and nothing has changed."""
    everybody = {
        **callers,
        "the owner": Caller(http, project.publishable_key, project.user_token(owner)),
    }
    digest = "select md5(string_agg(t::text, '' order by t::text)) from uvian.{} t"
    for table in sorted(TABLES):
        before = await world.hand.fetchval(digest.format(table))
        column = await world.hand.fetchval(
            "select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0 "
            "and attidentity = '' and attgenerated = '' order by attnum limit 1",
            f"uvian.{table}",
        )
        row = await world.hand.fetchval(f"select to_jsonb(t) from uvian.{table} t limit 1")
        changes = {column: row[column]}
        for name, caller in everybody.items():
            path = f"/rest/v1/{table}?{column}=not.is.null"
            for answer in (
                await caller.ask("POST", f"/rest/v1/{table}", json=changes),
                await caller.ask("PATCH", path, json=changes),
                await caller.ask("DELETE", path),
            ):
                assert answer.status_code in DENIED, (
                    name,
                    table,
                    answer.request.method,
                    answer.text,
                )
        assert await world.hand.fetchval(digest.format(table)) == before, table


async def test_functions_are_refused_to_whom_they_are_not_for(
    world: World, owner: str, callers: dict[str, Caller]
) -> None:
    """Every function × everybody, called with nulls and with the owner's ids."""
    job = await world.hand.fetchval("select id::text from uvian.jobs limit 1")
    conversation = await world.hand.fetchval("select id::text from uvian.conversations limit 1")
    known = {"job_id": job, "conversation_id": conversation, "user_id": owner, "member": owner}
    for function in await world.hand.fetch(_FUNCTIONS):
        arguments = {name: known.get(name) for name in function["arguments"] or ()}
        for name, caller in callers.items():
            for body in (arguments, dict.fromkeys(arguments)):
                answer = await caller.ask("POST", f"/rest/v1/rpc/{function['name']}", json=body)
                if not name.startswith("anon") and "authenticated" in FUNCTIONS.get(
                    function["name"], ()
                ):
                    # Let in, and told nothing: another's id is answered like none.
                    assert owner not in answer.text, (name, function["name"], answer.text)
                    assert job not in answer.text, (name, function["name"], answer.text)
                elif not (function["idle"] and answer.status_code == 204):
                    what = (name, function["name"], answer.text)
                    assert answer.status_code in {*DENIED, 404}, what
    row = await world.hand.fetchrow("select status, run from uvian.jobs where id = $1", job)
    assert row is not None
    assert row["status"] != "cancelled"
    members = (
        "select array_agg(user_id::text) from uvian.conversation_members where conversation_id = $1"
    )
    assert await world.hand.fetchval(members, conversation) == [owner]


async def test_nobody_opens_anothers_picture(
    world: World, owner: str, callers: dict[str, Caller], http: httpx.AsyncClient, project: Platform
) -> None:
    """By address, by list, by a signature or by deleting it; the owner does."""
    path = f"{owner}/{'0' * 64}.png"
    service = Caller(http, project.secret_key)
    put = await service.ask(
        "POST",
        f"/storage/v1/object/uvian-images/{path}",
        content=b"picture",
    )
    assert put.status_code == 400, "the bucket takes pictures alone"
    files = {"file": ("a.png", b"picture", "image/png")}
    put = await service.ask("POST", f"/storage/v1/object/uvian-images/{path}", files=files)
    assert put.status_code == 200, put.text
    for name, caller in callers.items():
        for method, where, body in (
            ("GET", f"object/authenticated/uvian-images/{path}", None),
            ("GET", f"object/public/uvian-images/{path}", None),
            ("POST", f"object/sign/uvian-images/{path}", {"expiresIn": 60}),
            ("POST", "object/sign/uvian-images", {"expiresIn": 60, "paths": [path]}),
            ("POST", "object/list/uvian-images", {"prefix": owner, "limit": 10}),
            ("DELETE", "object/uvian-images", {"prefixes": [path]}),
        ):
            answer = await caller.ask(method, f"/storage/v1/{where}", json=body)
            assert b"picture" not in answer.content, (name, where)
            assert "token=" not in answer.text, (name, where, answer.text)
            assert "0" * 64 not in answer.text.replace(path, ""), (name, where, answer.text)
    own = Caller(http, project.publishable_key, project.user_token(owner))
    got = await own.ask("GET", f"/storage/v1/object/authenticated/uvian-images/{path}")
    assert got.content == b"picture"
    # What others were refused is there: the owner gets an answer to each, the service may delete.
    for where, body in (
        (f"object/sign/uvian-images/{path}", {"expiresIn": 60}),
        ("object/sign/uvian-images", {"expiresIn": 60, "paths": [path]}),
    ):
        assert "token=" in (await own.ask("POST", f"/storage/v1/{where}", json=body)).text
    listed = await own.ask("POST", "/storage/v1/object/list/uvian-images", json={"prefix": owner})
    assert "0" * 64 in listed.text
