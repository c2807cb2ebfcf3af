"""What PostgREST promises to those who ask it here: the double is held to it, and so is a real one.

``tests/supabase`` runs it on the double, ``tests/postgrest`` on a real PostgREST (`make e2e`). It has what
our adapter, the clients and browsers send, and nothing else: a double that can do more would have to be
right there too.
"""

from __future__ import annotations

__all__ = ["RestCalls", "RestRows"]

import asyncio
import json
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from postgrest import CountMethod, ReturnMethod
from supabase import AsyncClient

from tests.supabase.asking import answered, refused, response
from tests.supabase.conftest import Connect
from tests.supabase.platform import Platform


def note(id_: int, title: str = "a title", **more: Any) -> dict[str, Any]:
    """A row of ``public.notes``."""
    return {"id": id_, "title": title, **more}


#: How to choose rows, and which of the three are chosen.
FILTERS: list[tuple[Callable[[Any], Any], list[int]]] = [
    (lambda ids: ids.eq("id", 2), [2]),
    (lambda ids: ids.neq("id", 2), [1, 3]),
    (lambda ids: ids.lt("id", 2), [1]),
    (lambda ids: ids.lte("id", 2), [1, 2]),
    (lambda ids: ids.gt("id", 2), [3]),
    (lambda ids: ids.gte("id", 2), [2, 3]),
    (lambda ids: ids.in_("id", [1, 3, 9]), [1, 3]),
    (lambda ids: ids.in_("id", []), []),
    (lambda ids: ids.is_("parent", None), [1, 2]),
    (lambda ids: ids.not_.is_("parent", None), [3]),
    (lambda ids: ids.gte("id", 2).lt("id", 3), [2]),
]

#: A table that is not there: PostgREST's own code from 13 on, Postgres's before. We read both alike.
UNKNOWN_TABLE = ("PGRST205", "42P01")


@pytest.mark.usefixtures("sandbox")
class RestRows:
    """``/<table>``: reading and writing, and what both are refused with."""

    async def test_columns_are_chosen_and_cast(self, service: AsyncClient) -> None:
        """``::text`` casts."""
        await service.table("notes").insert(note(1)).execute()
        query = service.table("notes").select("id::text", "title")
        assert await answered(query) == [{"id": "1", "title": "a title"}]

    async def test_every_filter(self, service: AsyncClient) -> None:
        """Comparisons, lists, null, and its negation."""
        await service.table("notes").insert([note(1), note(2)]).execute()
        await service.table("notes").insert(note(3, parent=1)).execute()
        for choose, expected in FILTERS:
            query = choose(service.table("notes").select("id")).order("id")
            assert [row["id"] for row in await answered(query)] == expected, query.request.params

    @pytest.mark.parametrize(
        "title", ["a,b", 'q"uo\\te', "(x)", "null", "a.b:c", "{x}", "ü 漢 🦊", "'; drop table x"]
    )
    async def test_values_are_never_syntax(self, service: AsyncClient, title: str) -> None:
        """Commas, quotes, parentheses and the word null in a value are a value, in lists too."""
        await service.table("notes").insert([note(1, title), note(2, "other")]).execute()
        for query in (
            service.table("notes").select("id").eq("title", title),
            service.table("notes").select("id").in_("title", [title, "nobody"]),
        ):
            assert await answered(query) == [{"id": 1}]

    async def test_order_limit_and_offset(self, service: AsyncClient) -> None:
        """By several columns, a page at a time."""
        rows = [note(1, "a"), note(2, "b"), note(3, "a")]
        await service.table("notes").insert(rows).execute()
        ordered = service.table("notes").select("id").order("title", desc=True).order("id")
        assert [r["id"] for r in await answered(ordered)] == [2, 1, 3]
        page = service.table("notes").select("id", count=CountMethod.exact).order("id").range(1, 1)
        answer = await page.execute()
        assert (answer.data, answer.count) == ([{"id": 2}], 3)

    async def test_reads_are_cut_at_max_rows(
        self, service: AsyncClient, sandbox: asyncpg.Connection
    ) -> None:
        """1000 rows and no more, whatever the limit asks for; the count tells the truth."""
        await sandbox.execute(
            "insert into notes (id, title) select i, 'n' from generate_series(1, 1100) i"
        )
        counted = service.table("notes").select("id", count=CountMethod.exact)
        answer = await counted.limit(5000).execute()
        assert (len(answer.data), answer.count) == (1000, 1100)

    async def test_a_page_beyond_the_end_is_416_pgrst103(self, service: AsyncClient) -> None:
        """Where the count was asked for; otherwise it is empty."""
        await service.table("notes").insert(note(1)).execute()
        assert await answered(service.table("notes").select("id").offset(5)) == []
        counted = service.table("notes").select("id", count=CountMethod.exact).offset(5)
        assert (await refused(counted)).code == "PGRST103"

    async def test_rows_come_back_as_they_are_stored(self, service: AsyncClient) -> None:
        """With ``return=representation`` the rows, with ``return=minimal`` nothing."""
        made = await answered(service.table("notes").insert([note(1), note(2)]))
        assert [(row["id"], row["parent"]) for row in made] == [(1, None), (2, None)]
        minimal = service.table("notes").insert(note(3), returning=ReturnMethod.minimal)
        assert await answered(minimal) == []
        changed = await answered(service.table("notes").update({"title": "new"}).gte("id", 2))
        assert [row["title"] for row in changed] == ["new", "new"]
        gone = await answered(service.table("notes").delete().eq("id", 1))
        assert [row["id"] for row in gone] == [1]

    async def test_duplicates_are_ignored(self, service: AsyncClient) -> None:
        """``on_conflict=`` with ``resolution=ignore-duplicates``: those that exist stay as they are."""
        await service.table("notes").insert(note(1, "old")).execute()
        rows = [note(1, "new"), note(2, "new")]
        query = service.table("notes").upsert(rows, on_conflict="id", ignore_duplicates=True)
        assert [row["id"] for row in await answered(query)] == [2]
        kept = await answered(service.table("notes").select("title").eq("id", 1))
        assert kept == [{"title": "old"}]

    @pytest.mark.parametrize(
        ("rows", "status", "code"),
        [
            ([note(1)], 409, "23505"),
            ([note(2, parent=99)], 409, "23503"),
            ([note(2, "")], 400, "23514"),
            ([{"id": 2}], 400, "23502"),
            ([note(2, nobody=1)], 400, "PGRST204"),
            ([note(2, made="yesterday-ish")], 400, "22007"),
            ([note(2, "nul \0")], 400, "22P05"),
            ([note(2), {"id": 3}], 400, "PGRST102"),
        ],
    )
    async def test_what_an_insert_is_refused_with(
        self, platform: Platform, service: AsyncClient, rows: list[Any], status: int, code: str
    ) -> None:
        """A unique violation is 409 23505, a foreign key 409 23503, a check 400 23514, and so on."""
        await service.table("notes").insert(note(1)).execute()
        answer = await response(platform, "POST", "/rest/v1/notes", json=rows)
        assert (answer.status_code, answer.json()["code"]) == (status, code)

    async def test_an_unknown_table_is_404(self, platform: Platform) -> None:
        """Whoever says so."""
        answer = await response(platform, "GET", "/rest/v1/nobody")
        assert answer.status_code == 404
        assert answer.json()["code"] in UNKNOWN_TABLE

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("?id=1", "PGRST100"),
            ("?id=eq", "PGRST100"),
            ("?id=equals.1", "PGRST100"),
            ("?id=is.1", "PGRST100"),
            ("?id=in.1", "PGRST100"),
            ("?id=eq.one", "22P02"),
            ("?select=id::nothing", "42704"),
            ("?nobody=eq.1", "42703"),
        ],
    )
    async def test_a_question_that_makes_no_sense(
        self, platform: Platform, query: str, code: str
    ) -> None:
        """A filter that is none, a type or a column that does not exist."""
        answer = await response(platform, "GET", f"/rest/v1/notes{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, code)

    @pytest.mark.parametrize("body", [b"{", b"1", b'["x"]', b"\xff", b'{"id": NaN}'])
    async def test_a_body_that_makes_no_sense(self, platform: Platform, body: bytes) -> None:
        """What is no JSON, or no rows, is 400 PGRST102."""
        for method, path in (("POST", "/notes"), ("PATCH", "/notes?id=eq.1")):
            answer = await response(platform, method, f"/rest/v1{path}", content=body)
            assert (answer.status_code, answer.json()["code"]) == (400, "PGRST102")

    async def test_a_schema_that_is_not_exposed_is_406_pgrst106(self, connect: Connect) -> None:
        """The answer names those that are: *Data API → Exposed schemas*."""
        for query in (
            connect(schema="auth").table("users").select("*"),
            connect(schema="auth").rpc("uid", {}),
        ):
            error = await refused(query)
            assert error.code == "PGRST106"
            assert "public, uvian" in f"{error.message} {error.hint}"

    async def test_the_schema_is_chosen_by_the_profile(self, connect: Connect, user: str) -> None:
        """``Content-Profile`` for calls and writes, ``Accept-Profile`` for reads."""
        client = connect(schema="uvian")
        grant = {"user_id": user, "amount": "7.5", "reference": "r"}
        await client.rpc("grant_credits", grant).execute()
        rows = await answered(client.table("credit_accounts").select("balance::text"))
        assert rows == [{"balance": "7.500000"}]
        error = await refused(connect(schema="public").table("credit_accounts").select("*"))
        assert error.code in UNKNOWN_TABLE


@pytest.mark.usefixtures("sandbox")
class RestCalls:
    """``POST /rpc/<name>``, and what calls are refused with."""

    async def test_arguments_are_named_and_the_rest_have_defaults(
        self, service: AsyncClient
    ) -> None:
        """Which arguments are meant is decided by the keys of the body."""
        assert await answered(service.rpc("add", {"a": 1})) == 11
        assert await answered(service.rpc("add", {"a": 1, "b": 2})) == 3

    async def test_values_are_cast_from_json(self, service: AsyncClient) -> None:
        """A number may come as text; what is none is 22P02, as Postgres says it."""
        assert await answered(service.rpc("add", {"a": "1", "b": None})) is None
        error = await refused(service.rpc("add", {"a": "one"}))
        assert (error.code, error.message) == (
            "22P02",
            'invalid input syntax for type integer: "one"',
        )

    async def test_void_answers_nothing(self, platform: Platform) -> None:
        """204, without a body."""
        answer = await response(platform, "POST", "/rest/v1/rpc/nothing", json={})
        assert (answer.status_code, answer.content) == (204, b"")

    async def test_an_unknown_function_is_404_pgrst202(self, platform: Platform) -> None:
        """Unknown by name, or by the names of its arguments."""
        cases: list[tuple[str, dict[str, int], str]] = [
            ("nobody", {}, "nobody without parameters"),
            ("add", {"a": 1, "c": 2}, "add(a, c)"),
        ]
        for name, body, what in cases:
            answer = await response(platform, "POST", f"/rest/v1/rpc/{name}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (404, "PGRST202")
            expected = f"Could not find the function public.{what} in the schema cache"
            assert answer.json()["message"] == expected

    async def test_an_ambiguous_call_is_300_pgrst203(self, platform: Platform) -> None:
        """Two functions that differ by the types of their arguments cannot be told apart."""
        answer = await response(platform, "POST", "/rest/v1/rpc/twice", json={"a": 1})
        assert (answer.status_code, answer.json()["code"]) == (300, "PGRST203")

    async def test_raise_exception_is_400_p0001(self, platform: Platform) -> None:
        """With its message, detail and hint."""
        body = {"state": "P0001", "message": "no"}
        answer = await response(platform, "POST", "/rest/v1/rpc/refuse", json=body)
        assert answer.status_code == 400
        assert answer.json() == {
            "code": "P0001",
            "message": "no",
            "details": "a detail",
            "hint": "a hint",
        }

    @pytest.mark.parametrize(
        ("state", "status"),
        [
            ("PT418", 418),  # a function chooses the HTTP status
            ("PTNOW", 500),
            ("40P01", 500),
            ("55P03", 500),
            ("53300", 503),
            ("22003", 400),
            ("22023", 400),
            ("23514", 400),
            ("P0002", 500),
            ("XX000", 500),
            ("08006", 503),
            ("UV001", 400),
        ],
    )
    async def test_the_status_follows_the_class(
        self, platform: Platform, state: str, status: int
    ) -> None:
        """What Postgres calls it decides: rollbacks, locks and internal errors are a 500."""
        body = {"state": state, "message": "no"}
        answer = await response(platform, "POST", "/rest/v1/rpc/refuse", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, state)

    async def test_the_catalog_is_read_again_when_it_is_told(
        self, platform: Platform, sandbox: asyncpg.Connection
    ) -> None:
        """``notify pgrst``: an overload makes ambiguous what was clear, once it is known."""

        async def status() -> int:
            body = {"a": 1, "b": 2}
            return (await response(platform, "POST", "/rest/v1/rpc/add", json=body)).status_code

        assert await status() == 200
        await sandbox.execute(
            "create function public.add(a int, b int, c int default 0) returns int "
            "language sql as 'select a'"
        )
        assert await status() == 200
        await sandbox.execute("notify pgrst, 'reload schema'")
        async with asyncio.timeout(60):
            while await status() != 300:
                await asyncio.sleep(0.01)

    async def test_answers_go_to_whom_they_belong(self, service: AsyncClient) -> None:
        """Many calls at once, over few connections."""
        calls = [answered(service.rpc("add", {"a": number, "b": number})) for number in range(100)]
        assert await asyncio.gather(*calls) == [2 * number for number in range(100)]

    async def test_documents_pass_as_they_are(self, service: AsyncClient) -> None:
        """Of any text, and of megabytes, in both directions."""
        documents: list[dict[str, Any]] = [
            {"text": "ü 漢 🦊 ' \" \\", "list": [1, None, {}]},
            {"text": "ü" * 2_000_000},
        ]
        for document in documents:
            assert await answered(service.rpc("echo", {"document": document})) == document

    async def test_a_function_sees_who_called_it_and_how(
        self, service: AsyncClient, platform: Platform, connect: Connect, user: str
    ) -> None:
        """Role, claims, method, path and headers are settings of the transaction."""

        async def setting(client: AsyncClient, name: str) -> str:
            return str(await answered(client.rpc("setting", {"name": name})))

        assert await setting(service, "role") == "service_role"
        assert await setting(service, "request.method") == "POST"
        assert await setting(service, "request.path") == "/rpc/setting"
        headers = json.loads(await setting(service, "request.headers"))
        assert "supabase-py" in headers["x-client-info"]
        signed_in = connect(platform.publishable_key, token=platform.user_token(user))
        assert await setting(signed_in, "role") == "authenticated"
        claims = json.loads(await setting(signed_in, "request.jwt.claims"))
        assert (claims["sub"], claims["aud"], claims["role"]) == (
            user,
            "authenticated",
            "authenticated",
        )
