"""Tables, through supabase-py: reading, writing, and what both are refused with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from postgrest import CountMethod, ReturnMethod
from supabase import AsyncClient

from tests.supabase.asking import answered, refused, response
from tests.supabase.conftest import Connect
from tests.supabase.platform import Platform

pytestmark = pytest.mark.database


# ─── tables ──────────────────────────────────────────────────────────────────────────────────────


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
    (lambda ids: ids.ilike("title", "b%"), [2, 3]),
    (lambda ids: ids.like("title", "a*"), [1]),
    (lambda ids: ids.contains("tags", ["x"]), [1]),
    (lambda ids: ids.contains("data", {"k": 1}), [3]),
    (lambda ids: ids.filter("data->>k", "eq", "1"), [3]),
    (lambda ids: ids.or_("id.eq.1,and(id.gt.2,title.neq.x)"), [1, 3]),
    (lambda ids: ids.gte("id", 2).lt("id", 3), [2]),
    (lambda ids: ids.like_any_of("title", "a*,b"), [1, 2]),
    (lambda ids: ids.like_all_of("title", "a*,*title"), [1]),
    (lambda ids: ids.filter("id", "eq(any)", "{1,3}"), [1, 3]),
    (lambda ids: ids.filter("parent", "isdistinct", "1"), [1, 2]),
    (lambda ids: ids.filter("title", "imatch", "^b"), [2, 3]),
    (lambda ids: ids.filter("tags->0", "eq", '"x"'), [1]),
    (lambda ids: ids.not_.or_('id.eq.1,title.eq."b"'), [3]),
    (lambda ids: ids.or_('"id".in.(1,2),not.and(id.gt.0,id.lt.9)'), [1, 2]),
]


@pytest.mark.usefixtures("sandbox")
class TestRows:
    """``/<table>``: reading and writing."""

    async def test_columns_are_chosen_cast_and_renamed(self, service: AsyncClient) -> None:
        """``::text`` casts, ``alias:`` renames, ``->`` looks into jsonb."""
        await service.table("notes").insert(note(1, data={"a": {"b": [7]}})).execute()
        columns = "id::text, name:title, data->a->b->>0"
        assert await answered(service.table("notes").select(columns)) == [
            {"id": "1", "name": "a title", "0": "7"}
        ]

    async def test_every_filter(self, service: AsyncClient) -> None:
        """Comparisons, lists, null and truth, patterns, arrays and jsonb, and their negation."""
        rows = [note(1, tags=["x"]), note(2, "b", tags=[]), note(3, "B*", data={"k": 1}, parent=1)]
        await service.table("notes").insert(rows, default_to_null=False).execute()
        for choose, expected in FILTERS:
            query = choose(service.table("notes").select("id")).order("id")
            assert [row["id"] for row in await answered(query)] == expected, query.request.params

    @pytest.mark.parametrize(
        "title",
        ["a,b", 'q"uo\\te', "(x)", "null", "a.b:c", "{x}", " ", "ü 漢 🦊", "'; drop table x"],
    )
    async def test_values_are_never_syntax(self, service: AsyncClient, title: str) -> None:
        """Commas, quotes, parentheses and the word null in a value are a value, in lists too."""
        await service.table("notes").insert([note(1, title), note(2, "other")]).execute()
        for query in (
            service.table("notes").select("id").eq("title", title),
            service.table("notes").select("id").in_("title", [title, "nobody"]),
        ):
            assert await answered(query) == [{"id": 1}]

    async def test_names_are_never_syntax(self, service: AsyncClient) -> None:
        """A column may be called anything; one that does not exist is 42703, whatever it is called."""
        await service.table("notes").insert(note(1, **{"odd name": "x"})).execute()
        query = service.table("notes").select('"odd name"').eq("odd name", "x")
        assert await answered(query) == [{"odd name": "x"}]
        for name in ("nobody", 'id"; drop table public.notes; --', "id) or (1=1"):
            error = await refused(service.table("notes").select("id").eq(name, 1))
            assert error.code == "42703"
        error = await refused(service.table("notes").select("id").order('x"; drop table notes; --'))
        assert error.code == "42703"

    async def test_order_limit_and_offset(self, service: AsyncClient) -> None:
        """By several columns, nulls where they are wanted, a page at a time."""
        rows = [note(1, "a", parent=None), note(2, "b", parent=1), note(3, "a", parent=1)]
        await service.table("notes").insert(rows).execute()
        ordered = service.table("notes").select("id").order("title", desc=True).order("id")
        assert [r["id"] for r in await answered(ordered)] == [2, 1, 3]
        nulls = service.table("notes").select("id").order("parent", nullsfirst=True).order("id")
        assert [r["id"] for r in await answered(nulls)] == [1, 2, 3]
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
        answer = (
            await service.table("notes").select("id", count=CountMethod.exact).limit(5000).execute()
        )
        assert (len(answer.data), answer.count) == (1000, 1100)

    async def test_rows_come_back_as_they_are_stored(self, service: AsyncClient) -> None:
        """With ``return=representation`` the rows, with ``return=minimal`` nothing."""
        made = await answered(service.table("notes").insert([note(1), note(2)]))
        assert [(row["id"], row["tags"]) for row in made] == [(1, None), (2, None)]
        minimal = service.table("notes").insert(note(3), returning=ReturnMethod.minimal)
        assert await answered(minimal) == []
        changed = await answered(service.table("notes").update({"title": "new"}).gte("id", 2))
        assert [row["title"] for row in changed] == ["new", "new"]
        gone = await answered(service.table("notes").delete().eq("id", 1))
        assert [row["id"] for row in gone] == [1]

    async def test_a_key_that_is_missing_is_null_or_the_default(self, service: AsyncClient) -> None:
        """With ``columns=`` a row may lack a key; ``missing=default`` decides what that means."""
        rows = [note(1), note(2, made="2020-01-01T00:00:00Z")]
        error = await refused(service.table("notes").insert(rows))
        assert error.code == "23502"
        made = await answered(service.table("notes").insert(rows, default_to_null=False))
        assert made[0]["made"] > "2026"

    async def test_duplicates_are_ignored_or_merged(self, service: AsyncClient) -> None:
        """``on_conflict=`` with ``resolution=``: those that exist stay, or are replaced."""
        await service.table("notes").insert(note(1, "old")).execute()
        rows = [note(1, "new"), note(2, "new")]
        query = service.table("notes").upsert(rows, on_conflict="id", ignore_duplicates=True)
        assert [row["id"] for row in await answered(query)] == [2]
        merged = await answered(service.table("notes").upsert(rows, on_conflict="id"))
        assert [(row["id"], row["title"]) for row in merged] == [(1, "new"), (2, "new")]

    async def test_nothing_is_inserted_for_an_empty_list(self, service: AsyncClient) -> None:
        """And that is no error."""
        assert await answered(service.table("notes").insert([])) == []

    async def test_single_on_no_row_is_406_pgrst116(
        self, service: AsyncClient, platform: Platform
    ) -> None:
        """``single()`` needs exactly one; ``maybe_single()`` gives None."""
        query = service.table("notes").select("id").eq("id", 1)
        error = await refused(query.single())
        assert (error.code, error.details) == ("PGRST116", "The result contains 0 rows")
        assert (
            await service.table("notes").select("id").eq("id", 1).maybe_single().execute() is None
        )
        await service.table("notes").insert([note(1), note(2)]).execute()
        one = service.table("notes").select("id").eq("id", 1).single()
        assert await answered(one) == {"id": 1}
        headers = {"Accept": "application/vnd.pgrst.object+json"}
        answer = await response(platform, "GET", "/rest/v1/notes?select=id", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (406, "PGRST116")

    async def test_a_write_that_is_not_single_is_undone(
        self, platform: Platform, service: AsyncClient
    ) -> None:
        """406 PGRST116 rolls back what was changed."""
        await service.table("notes").insert([note(1), note(2)]).execute()
        headers = {
            "Accept": "application/vnd.pgrst.object+json",
            "Prefer": "return=representation",
        }
        answer = await response(
            platform, "PATCH", "/rest/v1/notes?id=gt.0", headers=headers, json={"title": "x"}
        )
        assert answer.status_code == 406
        rows = await answered(service.table("notes").select("title"))
        assert {row["title"] for row in rows} == {"a title"}

    async def test_more_rows_than_may_be_affected_are_400_pgrst124(
        self, service: AsyncClient
    ) -> None:
        """``max_affected()`` undoes a write that reaches too far."""
        await service.table("notes").insert([note(1), note(2)]).execute()
        error = await refused(service.table("notes").delete().gt("id", 0).max_affected(1))
        assert error.code == "PGRST124"
        assert len(await answered(service.table("notes").select("id"))) == 2

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

    async def test_update_and_delete_need_a_where(self, platform: Platform) -> None:
        """Through the API safeupdate refuses them: 400 21000."""
        for method, body in (("PATCH", {"title": "x"}), ("DELETE", None)):
            answer = await response(platform, method, "/rest/v1/notes", json=body)
            assert (answer.status_code, answer.json()["code"]) == (400, "21000")

    async def test_an_unknown_table_is_404_pgrst205(self, platform: Platform) -> None:
        """It is the schema cache that does not know it."""
        answer = await response(platform, "GET", "/rest/v1/nobody")
        assert (answer.status_code, answer.json()["code"]) == (404, "PGRST205")
        assert answer.headers["Proxy-Status"] == "PostgREST; error=PGRST205"
        answer = await response(platform, "GET", "/rest/v1/note")
        assert answer.json()["hint"] == "Perhaps you meant the table 'public.notes'"

    @pytest.mark.parametrize(
        ("query", "status", "code"),
        [
            ("?id=1", 400, "PGRST100"),
            ("?id=eq", 400, "PGRST100"),
            ("?id=equals.1", 400, "PGRST100"),
            ("?id=is.1", 400, "PGRST100"),
            ("?id=in.1", 400, "PGRST100"),
            ("?id=neq(any).{1}", 400, "PGRST100"),
            ("?or=id.eq.1", 400, "PGRST100"),
            ("?or=(id)", 400, "PGRST100"),
            ("?limit=many", 400, "PGRST100"),
            ("?select=id::text;drop", 400, "PGRST100"),
            ("?limit=-1", 416, "PGRST103"),
            ("?select=id::nothing", 400, "42704"),
            ("?select=id,notes(id)", 400, "PGRST200"),
            ("?id=eq.one", 400, "22P02"),
            ("/1", 404, "PGRST125"),
        ],
    )
    async def test_a_question_that_makes_no_sense(
        self, platform: Platform, query: str, status: int, code: str
    ) -> None:
        """A filter that is none, a list that is open, a type that does not exist."""
        answer = await response(platform, "GET", f"/rest/v1/notes{query}")
        assert (answer.status_code, answer.json()["code"]) == (status, code)

    @pytest.mark.parametrize("body", [b"{", b"1", b'["x"]', b"\xff", b'{"id": NaN}'])
    async def test_a_body_that_makes_no_sense(self, platform: Platform, body: bytes) -> None:
        """What is no JSON, or no rows, is 400 PGRST102."""
        for method, path in (("POST", "/notes"), ("PATCH", "/notes?id=eq.1")):
            answer = await response(platform, method, f"/rest/v1{path}", content=body)
            assert (answer.status_code, answer.json()["code"]) == (400, "PGRST102")

    async def test_what_there_is_no_verb_for_is_405(self, platform: Platform) -> None:
        """PGRST117 for a table, PGRST101 for a function."""
        for path, code in (("/notes", "PGRST117"), ("/rpc/add", "PGRST101")):
            answer = await response(platform, "PUT", f"/rest/v1{path}", json={})
            assert (answer.status_code, answer.json()["code"]) == (405, code)

    async def test_the_root_is_closed(self, platform: Platform) -> None:
        """404 PGRST126, with a slash or without."""
        for path in ("/rest/v1", "/rest/v1/"):
            answer = await response(platform, "GET", path)
            assert (answer.status_code, answer.json()["code"]) == (404, "PGRST126")

    async def test_an_update_of_nothing_changes_nothing(self, service: AsyncClient) -> None:
        """An empty document, with a filter or without."""
        await service.table("notes").insert(note(1)).execute()
        assert await answered(service.table("notes").update({}).eq("id", 1)) == []

    async def test_a_row_may_consist_of_defaults(
        self, service: AsyncClient, sandbox: asyncpg.Connection
    ) -> None:
        """An empty document inserts one."""
        await sandbox.execute(
            "create table public.defaults (id int primary key default 7, n int default 8);"
            "grant all on public.defaults to service_role"
        )
        assert await answered(service.table("defaults").insert({})) == [{"id": 7, "n": 8}]
        again = service.table("defaults").upsert({}, ignore_duplicates=True)
        assert await answered(again) == []

    async def test_a_page_beyond_the_end_is_416_pgrst103(self, service: AsyncClient) -> None:
        """Where the count was asked for; otherwise it is empty."""
        await service.table("notes").insert(note(1)).execute()
        assert await answered(service.table("notes").select("id").offset(5)) == []
        counted = service.table("notes").select("id", count=CountMethod.exact).offset(5)
        error = await refused(counted)
        assert (error.code, error.details) == (
            "PGRST103",
            "An offset of 5 was requested, but there are only 1 rows.",
        )

    async def test_head_answers_the_count_alone(self, service: AsyncClient) -> None:
        """In ``Content-Range``."""
        await service.table("notes").insert([note(1), note(2)]).execute()
        query = service.table("notes").select("id", count=CountMethod.exact, head=True)
        answer = await query.execute()
        assert (answer.data, answer.count) == ([], 2)


# ─── schemas ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_schema_that_is_not_exposed_is_406_pgrst106(connect: Connect) -> None:
    """The hint names those that are: *Data API → Exposed schemas*."""
    error = await refused(connect(schema="auth").table("users").select("*"))
    assert (error.code, error.message) == ("PGRST106", "Invalid schema: auth")
    assert error.hint == "Only the following schemas are exposed: public, uvian"
    error = await refused(connect(schema="auth").rpc("uid", {}))
    assert error.code == "PGRST106"


async def test_the_schema_is_chosen_by_the_profile(connect: Connect, user: str) -> None:
    """``Content-Profile`` for calls and writes, ``Accept-Profile`` for reads."""
    client = connect(schema="uvian")
    await client.rpc(
        "grant_credits", {"user_id": user, "amount": "7.5", "reference": "r"}
    ).execute()
    rows = await answered(client.table("credit_accounts").select("balance::text"))
    assert rows == [{"balance": "7.500000"}]
    error = await refused(connect(schema="public").table("credit_accounts").select("*"))
    assert error.code == "PGRST205"
