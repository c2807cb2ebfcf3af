"""cancel_job, retry_job, submit_job: as the owner, as somebody else, as the service."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import orjson
import pytest

from repositories import errors
from tests.lifecycle.world import World

pytestmark = pytest.mark.database


class Browser:
    """A user as PostgREST lets one in: a role and claims for one transaction."""

    def __init__(self, connection: asyncpg.Connection[Any], claims: dict[str, Any]) -> None:
        self._connection = connection
        self._claims = claims

    async def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the schema as this user."""
        marks = ", ".join(f"${n}" for n in range(1, len(arguments) + 1))
        async with self._connection.transaction():
            await self._connection.execute("set local role authenticated")
            await self._connection.execute(
                "select set_config('request.jwt.claims', $1, true)",
                orjson.dumps(self._claims).decode(),
            )
            answer = await self._connection.fetchval(
                f"select to_jsonb(uvian.{function}({marks}))::text", *arguments
            )
        return orjson.loads(answer)


@contextlib.asynccontextmanager
async def signed_in(world: World, user: str | None, **claims: Any) -> AsyncIterator[Browser]:
    """This user in a browser."""
    connection = await asyncpg.connect(world.clean.authenticator_dsn)
    try:
        sub = {} if user is None else {"sub": user}
        yield Browser(connection, {"role": "authenticated", **sub, **claims})
    finally:
        await connection.close()


# ─── cancel ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_queued_job_is_cancelled_at_once(world: World) -> None:
    """It ends, its credits come back, and the answer has what is to be announced."""
    await world.type(price=10)
    user = await world.user(100)
    job = await world.create(user)
    answer = await world.cancel(job)
    assert (answer["cancelled"], answer["requested"]) == (True, False)
    assert answer["terminal_event"]["status"] == "cancelled"
    assert answer["accounts"][0]["balance"] == "100.000000"
    assert await world.account(user) == (Decimal(100), Decimal(0))
    assert (await world.claim(job))["reason"] == "stale"


async def test_a_running_job_is_asked_to_stop(world: World) -> None:
    """Its worker ends it; until then the reservation stays."""
    await world.type(price=10)
    user = await world.user(100)
    job = await world.started(user)
    answer = await world.cancel(job)
    assert (answer["cancelled"], answer["requested"]) == (False, True)
    assert answer["terminal_event"] is None
    assert await world.account(user) == (Decimal(90), Decimal(10))


async def test_cancelling_again_is_answered_as_it_is(world: World) -> None:
    """A lost reply, or a second click: nothing happens twice and nothing is an error."""
    await world.type(price=10)
    user = await world.user(100)
    job, running = await world.create(user), await world.started(user)
    await world.cancel(job)
    again = await world.cancel(job)
    assert (again["cancelled"], again["terminal_event"], again["accounts"]) == (True, None, [])
    await world.cancel(running)
    assert (await world.cancel(running))["requested"]
    await world.settle(running)
    late = await world.cancel(running)
    assert (late["cancelled"], late["job"]["status"]) == (False, "completed")
    assert await world.account(user) == (Decimal(90), Decimal(0))


async def test_only_the_owner_cancels(world: World) -> None:
    """Another user's job and one that does not exist are the same answer."""
    owner, stranger = await world.user(), await world.user()
    job = await world.create(owner)
    for job_id, user in ((job["id"], stranger), (str(uuid.uuid4()), owner)):
        async with signed_in(world, user) as browser:
            with pytest.raises(asyncpg.PostgresError, match="not_found") as refused:
                await browser.call("cancel_job", uuid.UUID(job_id))
            assert refused.value.sqlstate == "PT404"
    async with signed_in(world, owner) as browser:
        assert (await browser.call("cancel_job", uuid.UUID(job["id"])))["cancelled"]


async def test_a_user_is_not_somebody_else_by_asking(world: World) -> None:
    """The argument user_id is the service's; from a browser it is not looked at."""
    owner, stranger = await world.user(), await world.user()
    job = await world.create(owner)
    async with signed_in(world, stranger) as browser:
        with pytest.raises(asyncpg.PostgresError, match="not_found"):
            await browser.call("cancel_job", uuid.UUID(job["id"]), uuid.UUID(owner))
        with pytest.raises(asyncpg.PostgresError, match="not_found"):
            await browser.call("retry_job", uuid.UUID(job["id"]), 1, uuid.UUID(owner))


async def test_nobody_in_particular_may_nothing(world: World) -> None:
    """A token without a subject (the legacy anon key's kind) is not the service."""
    job = await world.create(await world.user())
    async with signed_in(world, None) as browser:
        with pytest.raises(asyncpg.PostgresError, match="not_found"):
            await browser.call("cancel_job", uuid.UUID(job["id"]))


async def test_the_service_acts_for_a_user_or_for_itself(world: World) -> None:
    """With a user it may do what that user may; without one it may do it to anybody's job."""
    owner, stranger = await world.user(), await world.user()
    job = await world.create(owner)
    with pytest.raises(errors.Refused, match="no such job"):
        await world.cancel(job, stranger)
    assert (await world.cancel(job, owner))["cancelled"]
    assert (await world.retry(job, 1))["job"]["status"] == "queued"


# ─── retry ───────────────────────────────────────────────────────────────────────────────────────


async def failed(world: World, user: str, type_: str = "noop") -> dict[str, Any]:
    """A job that failed, with a checkpoint."""
    job = await world.started(user, type_)
    await world.call(
        "save_checkpoints",
        worker="w1",
        jobs=[{"id": job["id"], "run": 1, "checkpoints": {"base": "a"}}],
    )
    error = {"code": "internal", "message": "No."}
    await world.settle(job, "failed", error=error, error_message="No.")
    return job


async def test_a_failed_job_runs_again_as_if_new(world: World) -> None:
    """Another run, attempts and outcome cleared, credits reserved again, checkpoints kept."""
    await world.type(price=10)
    user = await world.user(100)
    job = await failed(world, user)
    answer = await world.retry(job, 1)
    assert (answer["job"]["status"], answer["job"]["run"], answer["job"]["attempt"]) == (
        "queued",
        2,
        0,
    )
    assert [one["run"] for one in answer["dispatch"]] == [2]
    assert answer["accounts"][0]["reserved"] == "10.000000"
    row = await world.row(job)
    assert (row["error"], row["error_message"], row["finished_at"]) == (None, None, None)
    assert (await world.state(job))["announce_at"] is None
    assert (await world.claim({**job, "run": 2}))["checkpoints"] == {"base": "a"}
    await world.settle({**job, "run": 2})
    assert await world.account(user) == (Decimal(90), Decimal(0))
    assert [kind for kind, _ in await world.entries(job)] == [
        "reserve",
        "release",
        "reserve",
        "charge",
    ]


async def test_a_retry_repeated_after_a_lost_reply_runs_once(world: World) -> None:
    """The run that the caller saw identifies the request, whatever has become of it since."""
    job = await failed(world, await world.user())
    first = await world.retry(job, 1)
    assert await world.retry(job, 1) == first
    await world.claim({**job, "run": 2})
    again = await world.retry(job, 1)
    assert (again["job"]["status"], again["dispatch"]) == ("processing", [])
    await world.settle({**job, "run": 2}, "failed")
    assert (await world.retry(job, 1))["job"]["status"] == "failed", "the retry asked for is over"
    assert (await world.retry(job, 2))["job"]["run"] == 3


@pytest.mark.parametrize("ending", ["completed", None])
async def test_what_did_not_fail_is_not_retried(world: World, ending: str | None) -> None:
    """Neither a job that completed nor one that still runs."""
    job = await world.started(await world.user())
    if ending:
        await world.settle(job, ending)
    with pytest.raises(errors.Refused) as refused:
        await world.retry(job, 1)
    assert refused.value.code == "not_retryable"


async def test_another_run_than_the_caller_saw_is_not_retried(world: World) -> None:
    """A page that was open too long does not start a run its user did not see fail."""
    job = await failed(world, await world.user())
    await world.retry(job, 1)
    await world.cancel(job)
    for run in (3, 0):
        with pytest.raises(errors.Refused) as refused:
            await world.retry(job, run)
        assert refused.value.code == "not_retryable"


async def test_a_retry_that_cannot_be_paid_for_changes_nothing(world: World) -> None:
    """Too few credits: the job stays failed, and the message says how many."""
    await world.type(price=10)
    user = await world.user(10)
    job = await failed(world, user)
    await world.create(user)
    with pytest.raises(
        errors.Refused, match=r"costs 10\.000000 credits; the balance is 0\.000000"
    ) as r:
        await world.retry(job, 1)
    assert r.value.code == "insufficient_credits"
    assert (await world.row(job))["status"] == "failed"


async def test_a_retry_keeps_the_limits_of_creation(world: World) -> None:
    """A thousand failed jobs are no way around max_queued_per_user or a disabled type."""
    user = await world.user()
    job = await failed(world, user)
    await world.create(user)
    await world.type(max_queued_per_user=1)
    with pytest.raises(errors.Refused) as refused:
        await world.retry(job, 1)
    assert refused.value.code == "too_many_queued"
    await world.type(max_queued_per_user=2, enabled=False)
    with pytest.raises(errors.Refused) as refused:
        await world.retry(job, 1)
    assert refused.value.code == "type_disabled"


async def test_a_retry_forgets_crashes(world: World) -> None:
    """A suspect that its owner runs again has its attempts back."""
    job = await failed(world, await world.user())
    await world.hand.execute("update uvian.job_state set crashes = 5, isolated = true")
    await world.retry(job, 1)
    state = await world.state(job)
    assert (state["crashes"], state["isolated"]) == (0, False)


# ─── submit ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_browser_submits_what_the_operator_opened(world: World) -> None:
    """The row is the caller's, the sweeper dispatches it at once, and listeners are told."""
    await world.type("open", browser=True)
    user = await world.user()
    heard: list[str] = []
    await world.hand.add_listener("uvian_jobs", lambda *args: heard.append(args[2]))
    async with signed_in(world, user) as browser:
        answer = await browser.call("submit_job", "open", '{"a": 1}')
    assert answer["created"]
    assert (answer["job"]["user_id"], answer["job"]["type"]) == (user, "open")
    await world.hand.execute("select 1")
    assert heard == ["uvian_jobs"]
    swept = await world.sweep()
    assert [one["id"] for one in swept["dispatch"]] == [answer["job"]["id"]]


async def test_a_type_is_closed_to_browsers_until_it_is_opened(world: World) -> None:
    """A third party's executor is not reachable because it was installed."""
    user = await world.user()
    await world.worker("w1", "third_party")
    async with signed_in(world, user) as browser:
        for type_ in ("third_party", "nothing"):
            with pytest.raises(asyncpg.PostgresError, match="type_not_open") as refused:
                await browser.call("submit_job", type_, "{}")
            assert refused.value.sqlstate == "PT403"


async def test_anonymous_sign_ins_need_an_operators_word_of_their_own(world: World) -> None:
    """They have the role authenticated, and cost nothing to make by the thousand."""
    await world.type("open", browser=True)
    user = await world.user()
    async with signed_in(world, user, is_anonymous=True) as browser:
        with pytest.raises(asyncpg.PostgresError, match="type_not_open"):
            await browser.call("submit_job", "open", "{}")
        await world.type("open", anonymous=True)
        assert (await browser.call("submit_job", "open", "{}"))["created"]


@pytest.mark.parametrize(
    ("settings", "arguments", "state", "code"),
    [
        ({"price": 5}, ("{}",), "PT402", "insufficient_credits"),
        ({"price": 5}, ("{}", None, "4"), "PT422", "cost_exceeds_max"),
        ({"max_queued_per_user": 0}, ("{}",), "PT429", "too_many_queued"),
        ({"max_input_bytes": 5}, ('{"a": "long"}',), "PT413", "input_too_large"),
        ({"enabled": False}, ("{}",), "PT422", "type_disabled"),
        ({}, ("[]",), "PT422", "invalid_input"),
        ({}, ('{"a": 2}', "used"), "PT409", "idempotency_conflict"),
    ],
)
async def test_a_refusal_has_a_status_and_a_code(
    world: World, settings: dict[str, Any], arguments: tuple[Any, ...], state: str, code: str
) -> None:
    """PostgREST makes of PT4xx the HTTP status, of the message the code, and of the detail the rest."""
    await world.type("open", browser=True)
    user = await world.user()
    async with signed_in(world, user) as browser:
        await browser.call("submit_job", "open", '{"a": 1}', "used")
        await world.type("open", **settings)
        max_cost = (Decimal(arguments[2]),) if len(arguments) > 2 else ()
        with pytest.raises(asyncpg.PostgresError) as refused:
            await browser.call("submit_job", "open", *arguments[:2], *max_cost)
    assert (refused.value.sqlstate, refused.value.args[0]) == (state, code)
    assert orjson.loads(refused.value.detail)["code"] == code


async def test_submitting_twice_with_a_key_is_one_job(world: World) -> None:
    """A double click, or a browser that repeats a request."""
    await world.type("open", browser=True)
    user = await world.user()
    async with signed_in(world, user) as browser:
        first = await browser.call("submit_job", "open", "{}", "k")
        again = await browser.call("submit_job", "open", "{}", "k")
    assert (first["created"], again["created"]) == (True, False)
    assert again["job"]["id"] == first["job"]["id"]


async def test_nobody_submits_without_signing_in(world: World) -> None:
    """A token without a subject has no credits to spend and no row to own."""
    await world.type("open", browser=True)
    async with signed_in(world, None) as browser:
        with pytest.raises(asyncpg.PostgresError, match="unauthorized"):
            await browser.call("submit_job", "open", "{}")
