"""Functions, through supabase-py: ``POST /rpc/<name>``, and what they are refused with."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from supabase import AsyncClient

from tests.supabase.asking import answered, refused, response
from tests.supabase.conftest import Connect
from tests.supabase.platform import Platform

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("sandbox")]


async def test_arguments_are_named_and_the_rest_have_defaults(service: AsyncClient) -> None:
    """Which arguments are meant is decided by the keys of the body."""
    assert await answered(service.rpc("add", {"a": 1})) == 11
    assert await answered(service.rpc("add", {"a": 1, "b": 2})) == 3


async def test_values_are_cast_from_json(service: AsyncClient) -> None:
    """A number may come as text; what is none is 22P02, as Postgres says it."""
    assert await answered(service.rpc("add", {"a": "1", "b": None})) is None
    error = await refused(service.rpc("add", {"a": "one"}))
    assert (error.code, error.message) == (
        "22P02",
        'invalid input syntax for type integer: "one"',
    )


async def test_a_document_may_be_the_only_argument(service: AsyncClient) -> None:
    """A function with one unnamed jsonb argument gets the whole body."""
    document: dict[str, Any] = {"text": "ü 漢 🦊 ' \" \\", "list": [1, None, {}]}
    assert await answered(service.rpc("echo", document)) == document


async def test_void_answers_nothing(platform: Platform) -> None:
    """204, without a body."""
    answer = await response(platform, "POST", "/rest/v1/rpc/nothing", json={})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_sets_are_cut_at_max_rows(service: AsyncClient) -> None:
    """Answers are cut at 1000 rows, those of set-returning functions too."""
    assert len(await answered(service.rpc("numbers", {"most": 2500}))) == 1000
    assert len(await answered(service.rpc("pairs", {"most": 2500}))) == 1000


async def test_rows_are_filtered_like_a_table(service: AsyncClient) -> None:
    """Select, filters, order and limit work on what a function returns."""
    query = service.rpc("pairs", {"most": 9}).select("twice").gt("n", 5)
    rows = await answered(query.order("n", desc=True).limit(2))
    assert rows == [{"twice": 18}, {"twice": 16}]


async def test_a_get_is_read_only(service: AsyncClient) -> None:
    """A function that writes is refused with 25006 (405) when it is called by GET."""
    assert await answered(service.rpc("add", {"a": 1}, get=True)) == 11
    error = await refused(service.rpc("write_note", {"id": 1}, get=True))
    assert error.code == "25006"


async def test_an_unknown_function_is_404_pgrst202(platform: Platform) -> None:
    """Unknown by name, or by the names of its arguments."""
    cases: list[tuple[str, dict[str, int], str, str | None]] = [
        ("nobody", {}, "nobody without parameters", None),
        ("number", {}, "number without parameters", "numbers"),
        ("add", {"a": 1, "c": 2}, "add(a, c)", "add(a, b)"),
    ]
    for name, body, what, meant in cases:
        answer = await response(platform, "POST", f"/rest/v1/rpc/{name}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "PGRST202")
        expected = f"Could not find the function public.{what} in the schema cache"
        hint = f"Perhaps you meant to call the function public.{meant}" if meant else None
        assert (answer.json()["message"], answer.json()["hint"]) == (expected, hint)


async def test_an_ambiguous_call_is_300_pgrst203(platform: Platform) -> None:
    """Two functions that differ by the types of their arguments cannot be told apart."""
    answer = await response(platform, "POST", "/rest/v1/rpc/twice", json={"a": 1})
    assert (answer.status_code, answer.json()["code"]) == (300, "PGRST203")


async def test_raise_exception_is_400_p0001(platform: Platform) -> None:
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


async def test_raise_sqlstate_pt418_is_418(platform: Platform) -> None:
    """A function chooses the HTTP status with ``PT`` and three digits."""
    body = {"state": "PT418", "message": "teapot"}
    answer = await response(platform, "POST", "/rest/v1/rpc/refuse", json=body)
    assert (answer.status_code, answer.json()["code"]) == (418, "PT418")


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("40001", 500),
        ("40P01", 500),
        ("55P03", 500),
        ("53300", 503),
        ("22003", 400),
        ("23514", 400),
        ("P0002", 500),
        ("XX000", 500),
        ("08006", 503),
        ("UV001", 400),
        ("53400", 500),
        ("21000", 500),
        ("22023", 400),
        ("PTNOW", 500),
    ],
)
async def test_the_status_follows_the_class(platform: Platform, state: str, status: int) -> None:
    """What Postgres calls it decides: rollbacks, locks and internal errors are a 500."""
    body = {"state": state, "message": "no"}
    answer = await response(platform, "POST", "/rest/v1/rpc/refuse", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, state)


async def test_a_new_function_is_found(service: AsyncClient, sandbox: asyncpg.Connection) -> None:
    """The schema cache is read again for what it does not know."""
    assert (await refused(service.rpc("later", {}))).code == "PGRST202"
    await sandbox.execute("create function public.later() returns int language sql as 'select 1'")
    assert await answered(service.rpc("later", {})) == 1
    await sandbox.execute("drop function public.later()")
    assert (await refused(service.rpc("later", {}))).code == "PGRST202"


async def test_the_catalog_is_read_again_when_it_is_told(
    platform: Platform, sandbox: asyncpg.Connection
) -> None:
    """``notify pgrst``: an overload makes ambiguous what was clear, once it is known."""

    async def status() -> int:
        body = {"a": 1, "b": 2}
        return (await response(platform, "POST", "/rest/v1/rpc/add", json=body)).status_code

    assert await status() == 200
    await sandbox.execute(
        "create function public.add(a int, b int, c int default 0) returns int language sql as 'select a'"
    )
    assert await status() == 200
    await sandbox.execute("notify pgrst, 'reload schema'")
    async with asyncio.timeout(60):
        while await status() != 300:
            await asyncio.sleep(0.01)


async def test_answers_go_to_whom_they_belong(service: AsyncClient) -> None:
    """Many calls at once, over few connections."""
    calls = [answered(service.rpc("add", {"a": number, "b": number})) for number in range(200)]
    assert await asyncio.gather(*calls) == [2 * number for number in range(200)]


async def test_large_documents_pass(service: AsyncClient) -> None:
    """Megabytes, in both directions."""
    document = {"text": "ü" * 2_000_000}
    assert await answered(service.rpc("echo", document)) == document


async def test_a_function_sees_who_called_it_and_how(
    service: AsyncClient, platform: Platform, connect: Connect, user: str
) -> None:
    """Role, claims, method, path and headers are settings of the transaction."""

    async def setting(client: AsyncClient, name: str) -> str:
        return str(await answered(client.rpc("setting", {"name": name})))

    assert await setting(service, "role") == "service_role"
    assert await setting(service, "request.method") == "POST"
    assert await setting(service, "request.path") == "/rpc/setting"
    assert "supabase-py" in json.loads(await setting(service, "request.headers"))["x-client-info"]
    signed_in = connect(platform.publishable_key, token=platform.user_token(user))
    assert await setting(signed_in, "role") == "authenticated"
    claims = json.loads(await setting(signed_in, "request.jwt.claims"))
    assert (claims["sub"], claims["aud"], claims["role"]) == (
        user,
        "authenticated",
        "authenticated",
    )
