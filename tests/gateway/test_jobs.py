"""Jobs over HTTP: made once, seen by their owner, stopped, run again."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from tests.gateway.site import Site, someone

pytestmark = pytest.mark.database


async def test_a_job_is_made_and_its_address_answered(site: Site) -> None:
    """201, where it is, and a row that is queued with the credits held."""
    await site.open("paid", price=3)
    user = await site.user(10)
    reply = await user.post("/v1/jobs", {"type": "paid", "input": {"a": [1, "ü", None]}})
    assert (reply.status, reply.body["created"]) == (201, True)
    assert Decimal(reply.body["cost"]) == 3
    shown = await user.get(reply.headers["Location"])
    assert shown.body["id"] == reply.body["id"]
    assert (shown.body["status"], shown.body["input"]) == ("queued", {"a": [1, "ü", None]})
    assert await site.account(user) == (7, 3)


@pytest.mark.parametrize("where", ["body", "header"])
async def test_the_same_key_makes_one_job(site: Site, where: str) -> None:
    """Twenty at once: one is 201, the others 200 with the same job; another input is a conflict."""
    user, stranger = await site.user(), await site.user()

    def asking(key: str, **more: Any) -> dict[str, Any]:
        body = {"type": "noop", **more}
        if where == "header":
            return {"body": body, "headers": {"Idempotency-Key": key}}
        return {"body": {**body, "idempotency_key": key}}

    replies = await asyncio.gather(*(user.post("/v1/jobs", **asking("k")) for _ in range(20)))
    assert sorted(reply.status for reply in replies) == [200] * 19 + [201]
    assert len({reply.body["id"] for reply in replies}) == 1
    other = await user.post("/v1/jobs", **asking("k", input={"other": 1}))
    assert other.code == "idempotency_conflict"
    assert (await stranger.post("/v1/jobs", **asking("k"))).status == 201


async def test_two_different_keys_in_one_request_are_refused(site: Site) -> None:
    """Header and body may agree, not differ; and no key is endless."""
    user = await site.user()
    body = {"type": "noop", "idempotency_key": "a"}
    reply = await user.post("/v1/jobs", body, headers={"Idempotency-Key": "b"})
    assert reply.code == "bad_request"
    assert (await user.post("/v1/jobs", body, headers={"Idempotency-Key": "a"})).status == 201
    long = await user.post("/v1/jobs", {"type": "noop"}, headers={"Idempotency-Key": "x" * 256})
    assert long.code == "bad_request"


async def test_what_keeps_a_job_out_has_a_status_and_a_code(site: Site) -> None:
    """402 with the numbers, 422, 429; nothing is made."""
    await site.open("paid", price=5)
    await site.open("full", max_queued_per_user=1)
    await site.open("off", enabled=False)
    user = await site.user(2)
    poor = await user.post("/v1/jobs", {"type": "paid"})
    assert (poor.status, poor.code) == (402, "insufficient_credits")
    assert [Decimal(poor.body[name]) for name in ("cost", "balance")] == [5, 2]
    dear = await user.post("/v1/jobs", {"type": "paid", "max_cost": "1"})
    assert (dear.status, dear.code) == (422, "cost_exceeds_max")
    assert (await user.post("/v1/jobs", {"type": "off"})).code == "type_disabled"
    assert (await user.post("/v1/jobs", {"type": "nothing"})).code == "unknown_type"
    await site.made(user, "full")
    full = await user.post("/v1/jobs", {"type": "full"})
    assert (full.status, full.code, full.body["limit"]) == (429, "too_many_queued", 1)
    assert len((await user.get("/v1/jobs")).body["items"]) == 1


async def test_only_what_the_operator_opened_can_be_submitted(site: Site) -> None:
    """Types for browsers, and those for anonymous sign-ins: as ``submit_job`` has it in SQL."""
    await site.world.type("internal")
    await site.open("public", anonymous=True)
    user = await site.user()
    anonymous = await site.user(is_anonymous=True)
    assert (await user.post("/v1/jobs", {"type": "internal"})).code == "type_not_open"
    assert (await anonymous.post("/v1/jobs", {"type": "noop"})).code == "type_not_open"
    assert (await anonymous.post("/v1/jobs", {"type": "public"})).status == 201


async def test_an_input_is_checked_field_by_field_before_anything_is_made(site: Site) -> None:
    """Against the schema that the workers of the type have registered."""
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "maximum": 5}, "s": {"type": "string"}},
        "required": ["s"],
        "additionalProperties": False,
    }
    await site.open("strict", input_schema=schema, price=1, max_input_bytes=100)
    user = await site.user(1)
    reply = await user.post("/v1/jobs", {"type": "strict", "input": {"n": 6, "x": 1}})
    assert (reply.status, reply.code) == (422, "invalid_input")
    assert {(each["field"], each["code"]) for each in reply.body["errors"]} == {
        ("input.n", "less_than_equal"),
        ("input.s", "missing"),
        ("input.x", "extra_forbidden"),
    }
    large = await user.post("/v1/jobs", {"type": "strict", "input": {"s": "x" * 101}})
    assert (large.status, large.code, large.body["limit"]) == (413, "input_too_large", 100)
    assert await site.account(user) == (1, 0)
    await site.made(user, "strict", input={"s": "", "n": 5})


async def test_a_user_who_was_deleted_makes_nothing(site: Site) -> None:
    """Though their token is still valid: they are told to sign in anew."""
    ghost = site.caller(someone())
    for path, body in (("/v1/jobs", {"type": "noop"}), ("/v1/conversations", {})):
        reply = await ghost.post(path, body)
        assert (reply.status, reply.code) == (401, "invalid_token")


async def test_a_list_goes_on_where_it_ended_while_jobs_are_added(site: Site) -> None:
    """Every job once, the newest first, though all were made in one moment or meanwhile."""
    user = await site.user()
    ids = {(await site.made(user))["id"] for _ in range(7)}
    await site.world.hand.execute("update uvian.jobs set created_at = '2026-01-01'")
    await site.made(await site.user())
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await user.get(f"/v1/jobs?limit=2{cursor}")).body
        seen += [job["id"] for job in page["items"]]
        if page["next_cursor"] is None:
            break
        await site.made(user)  # newer: not in what follows
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == 7
    assert set(seen) == ids


async def test_a_list_is_narrowed_by_status_and_type(site: Site) -> None:
    """Both at once too; a status that is none is refused."""
    await site.open("other")
    user = await site.user()
    first, second = await site.made(user), await site.made(user, "other")
    await user.post(f"/v1/jobs/{first['id']}/cancel")

    async def listed(query: str) -> list[str]:
        return [job["id"] for job in (await user.get(f"/v1/jobs?{query}")).body["items"]]

    assert await listed("status=cancelled") == [first["id"]]
    assert await listed("type=other") == [second["id"]]
    assert await listed("type=other&status=cancelled") == []
    assert (await user.get("/v1/jobs?status=lost")).code == "invalid_input"
    assert (await user.get("/v1/jobs?limit=1&limit=2")).code == "bad_request"


@pytest.mark.parametrize(
    "cursor", ["", "x", "W10=", "WyJhIiwiYiJd", "%00", "ü", "WzEsMl0=", "A" * 201]
)
async def test_a_cursor_of_somebody_elses_making_is_refused(site: Site, cursor: str) -> None:
    """422, whatever it decodes to."""
    reply = await (await site.user()).get(f"/v1/jobs?cursor={cursor}")
    assert reply.code == "invalid_input"


async def test_a_job_shows_stages_timings_and_its_end(site: Site) -> None:
    """As the row has them, while it runs and after it has failed."""
    user = await site.user()
    job = await site.made(user)
    claim = await site.world.claim(job)
    stages = [
        {"name": "draw", "label": "Drawing", "status": "completed", "offset_ms": 1.5, "ms": 12.5}
    ]
    await site.world.renew(
        {**claim, "stage": "draw", "progress": 0.5, "message": "half", "stages": stages}
    )
    shown = (await user.get(f"/v1/jobs/{job['id']}")).body
    assert (shown["status"], shown["progress"], shown["stage"]) == ("processing", 0.5, "draw")
    error = {"code": "timeout", "stage": "draw", "message": "Too slow.", "retryable": False}
    await site.world.settle(claim, "failed", error=error, error_message="Too slow.", stages=stages)
    shown = (await user.get(f"/v1/jobs/{job['id']}")).body
    assert (shown["status"], shown["error"]["code"]) == ("failed", "timeout")
    assert shown["stages"] == stages
    (run,) = shown["runs"]
    assert (run["run"], run["outcome"], run["stages"]) == (1, "failed", stages)
    assert run["error"]["stage"] == "draw"
    assert run["queued_at"] <= run["claimed_at"] <= run["ended_at"]
    assert "worker" not in run
    stranger = await site.user()
    assert (await stranger.get(f"/v1/jobs/{job['id']}")).status == 404


async def test_a_job_is_cancelled_and_run_again(site: Site) -> None:
    """Cancelling twice is fine; a retry names the run that was seen, and is done once."""
    user = await site.user()
    job = await site.made(user)
    for _ in range(2):
        reply = await user.post(f"/v1/jobs/{job['id']}/cancel")
        assert (reply.status, reply.body["status"]) == (200, "cancelled")
    for _ in range(2):
        reply = await user.post(f"/v1/jobs/{job['id']}/retry", {"expected_run": 1})
        assert (reply.status, reply.body["status"], reply.body["run"]) == (200, "queued", 2)
    early = await user.post(f"/v1/jobs/{job['id']}/retry", {"expected_run": 2})
    assert (early.status, early.code) == (409, "not_retryable")


async def test_a_running_job_is_asked_to_stop(site: Site) -> None:
    """The request stands in its row, for the worker's next renewal."""
    user = await site.user()
    job = await site.made(user)
    await site.world.claim(job)
    reply = await user.post(f"/v1/jobs/{job['id']}/cancel")
    assert (reply.status, reply.body["status"]) == (200, "processing")
    lease = await site.world.lease(job["id"])
    assert lease is not None
    assert lease["cancel_requested"]


async def test_a_list_says_what_was_asked_without_all_of_it(site: Site) -> None:
    """Plain fields, long texts cut; what is nested is in the job alone."""
    user = await site.user()
    asked = {"prompt": "🦊" * 300, "strength": 0.5, "seed": 7, "sharp": True, "deep": {"er": 1}}
    made = await site.made(user, input={**asked, "none": None})
    (listed,) = (await user.get("/v1/jobs")).body["items"]
    plain = {"prompt": "🦊" * 200, "strength": 0.5, "seed": 7, "sharp": True}
    assert listed["asked"] == plain
    assert "input" not in listed
    shown = (await user.get(f"/v1/jobs/{made['id']}")).body
    assert (shown["input"], shown["asked"]) == ({**asked, "none": None}, plain)


async def test_rest_takes_no_time_to_run_at(site: Site) -> None:
    """With a zone or without: it is no field of a request."""
    user = await site.user()
    for run_at in ("2040-01-01T00:00:00", "2040-01-01T00:00:00Z"):
        reply = await user.post("/v1/jobs", {"type": "noop", "run_at": run_at})
        assert (reply.status, reply.code) == (422, "invalid_input")


async def test_a_job_is_found_by_its_id_in_capitals(site: Site) -> None:
    """To be looked at, cancelled, and run again."""
    user = await site.user()
    at = f"/v1/jobs/{(await site.made(user))['id'].upper()}"
    assert (await user.get(at)).status == 200
    assert (await user.post(f"{at}/cancel")).body["status"] == "cancelled"
    assert (await user.post(f"{at}/retry", {"expected_run": 1})).body["run"] == 2


async def test_jobs_are_checked_before_the_first_worker_has_ever_started(site: Site) -> None:
    """The built-in types are known with the schema: what does not fit is refused, nothing is held."""
    caller = await site.user(10)
    for type_ in ("generation", "refinement", "chat"):
        await site.open(type_, price=1)
        reply = await caller.post("/v1/jobs", {"type": type_, "input": {"size": "huge"}})
        assert reply.status == 422
        fields = {error["field"] for error in reply.body["errors"]}
        assert "input.size" in fields
    assert await site.account(caller) == (10, 0)
    fits = {"logo_description": "A fox", "theme_description": "woods", "size": 256}
    assert (await caller.post("/v1/jobs", {"type": "generation", "input": fits})).status == 201
