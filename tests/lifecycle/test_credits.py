"""Credits: never more than reserved, never twice, and the books always add up."""

from __future__ import annotations

import asyncio
import contextlib
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repositories import errors
from tests.adapters import Adapter, over_postgres_only
from tests.lifecycle.invariants import broken
from tests.lifecycle.world import World, opened

pytestmark = [pytest.mark.database, over_postgres_only]


# ─── grants and the price ────────────────────────────────────────────────────────────────────────


async def test_a_reference_is_granted_once(world: World) -> None:
    """A payment whose webhook comes twice is credited once; the answer is the account as it is."""
    user = await world.user()

    async def grant() -> Any:
        return await world.service.call("grant_credits", user_id=user, amount="5", reference="p1")

    answers = await asyncio.gather(*(grant() for _ in range(4)))
    assert all(answer["balance"] == "5.000000" for answer in answers)
    assert await world.account(user) == (Decimal(5), Decimal(0))


async def test_a_reference_with_another_amount_is_refused(world: World) -> None:
    """Silence would hide a mistake; the message says what was granted before."""
    user = await world.user(5)
    with pytest.raises(errors.Refused, match=r"granted before, with 5\.000000") as refused:
        await world.service.call("grant_credits", user_id=user, amount="6", reference="first")
    assert refused.value.code == "reference_conflict"


@pytest.mark.parametrize(
    "amount", ["0", "-1", "NaN", "Infinity", "0.0000001", "100000000000000", None]
)
async def test_an_amount_that_is_none_is_refused(world: World, amount: str | None) -> None:
    """Neither nothing nor less, nor more than the column holds."""
    user = await world.user()
    with pytest.raises(errors.Refused) as refused:
        await world.service.call("grant_credits", user_id=user, amount=amount, reference="r")
    assert refused.value.code == "invalid_amount"


async def test_a_grant_needs_a_user_and_a_reason(world: World) -> None:
    """Both refusals name what is missing."""
    with pytest.raises(errors.Refused, match="no such user"):
        await world.service.call(
            "grant_credits",
            user_id="00000000-0000-0000-0000-000000000000",
            amount="1",
            reference="r",
        )
    with pytest.raises(errors.Refused, match="Name the payment"):
        await world.service.call(
            "grant_credits", user_id=await world.user(), amount="1", reference=""
        )


async def test_money_is_exact(world: World) -> None:
    """A million-fold of a millionth is one, and answers carry text: no float on the way."""
    await world.type(price="0.000001")
    user = await world.user("0.000003")
    answers = await world.ask(*({"user_id": user, "type": "noop", "input": {}} for _ in range(4)))
    assert [a.get("code") for a in answers] == [None, None, None, "insufficient_credits"]
    assert await world.account(user) == (Decimal(0), Decimal("0.000003"))


async def test_a_price_is_what_the_operator_wrote(world: World) -> None:
    """Without a row a type is free."""
    await world.type("dear", price="1.5")
    assert await world.service.call("calculate_cost", type="dear", input={}) == 1.5
    assert await world.service.call("calculate_cost", type="noop", input={}) == 0


# ─── the books ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "statement", ["update uvian.credit_entries set amount = 1", "delete from uvian.credit_entries"]
)
async def test_entries_are_never_changed(world: World, statement: str) -> None:
    """Not even by a superuser's hand: what was booked is corrected by another entry."""
    await world.user(5)
    with pytest.raises(asyncpg.PostgresError, match="append-only"):
        await world.hand.execute(statement)


async def test_a_reservation_cannot_be_charged_twice(world: World) -> None:
    """Should all fences fail, the unique key of the books refuses the second charge."""
    await world.type(price=5)
    job = await world.started(await world.user(5))
    await world.settle(job)
    with pytest.raises(asyncpg.UniqueViolationError):
        await world.hand.execute(
            "insert into uvian.credit_entries (user_id, job_id, reservation, kind, amount) "
            "select user_id, job_id, reservation, kind, amount from uvian.credit_entries "
            "where kind = 'charge'"
        )


async def test_a_balance_cannot_become_negative(world: World) -> None:
    """Should all checks fail, the constraint refuses."""
    await world.user(5)
    with pytest.raises(asyncpg.CheckViolationError):
        await world.hand.execute("update uvian.credit_accounts set balance = -1")


# ─── whatever happens ────────────────────────────────────────────────────────────────────────────

OUTCOMES = ("completed", "failed", "cancelled", "retry", "interrupted", "not_mine")
STATUSES = ("queued", "completed", "failed", "cancelled")

steps = st.one_of(
    st.tuples(st.just("create"), st.integers(0, 1), st.integers(1, 3)),
    st.tuples(st.just("insert"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("claim"), st.integers(0, 5), st.integers(0, 1)),
    st.tuples(st.just("settle"), st.integers(0, 5), st.integers(0, 5)),
    st.tuples(st.just("settle"), st.integers(0, 5), st.integers(0, 5)),
    st.tuples(st.just("cancel"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("retry"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("hand"), st.integers(0, 5), st.integers(0, 3)),
    st.tuples(st.just("delete"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("crash"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("sweep"), st.just(0), st.just(0)),
    st.tuples(st.just("grant"), st.integers(0, 1), st.integers(1, 20)),
    st.tuples(st.just("price"), st.integers(0, 8), st.just(0)),
    st.tuples(st.just("limit"), st.integers(1, 4), st.just(0)),
)
Step = tuple[str, int, int]


class Story:
    """Steps that were drawn, done by the service and by hands on connections of their own."""

    def __init__(self, world: World, users: list[str], hands: asyncpg.Pool[Any]) -> None:
        self.world = world
        self.users = users
        self.hands = hands
        self.grants = 0

    async def jobs(self) -> list[dict[str, Any]]:
        """The newest six, with the worker that has each."""
        rows = await self.world.hand.fetch(
            "select j.id, j.run, l.worker from uvian.jobs j left join uvian.job_leases l on l.job_id = j.id "
            "where j.user_id = any ($1::uuid[]) order by j.created_at desc, j.id limit 6",
            self.users,
        )
        return [dict(row) for row in rows]

    async def together(self, group: list[Step]) -> None:
        """All steps of the group at once; refusals are part of the story, and so is a deadlock of hands."""
        jobs = await self.jobs()
        tolerated = (errors.Refused, errors.Transient, asyncpg.PostgresError)
        results = await asyncio.gather(
            *(self.step(jobs, *s) for s in group), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, tolerated):
                raise result
            if isinstance(result, asyncpg.PostgresError):
                assert result.sqlstate in {"PT402", "PT409", "40P01", "55P03"}, result

    async def step(self, jobs: list[dict[str, Any]], what: str, one: int, two: int) -> None:
        """Do it; what concerns no job that exists is left out."""
        world = self.world
        if what == "create":
            user = self.users[one]
            await world.ask(*({"user_id": user, "type": "noop", "input": {}} for _ in range(two)))
        elif what == "insert":
            await self.by_hand(
                "insert into uvian.jobs (user_id, type) values ($1, 'noop')", self.users[one]
            )
        elif what == "sweep":
            await world.sweep()
        elif what == "grant":
            self.grants += 1
            await world.service.call(
                "grant_credits",
                user_id=self.users[one],
                amount=str(two),
                reference=f"g{self.grants}",
            )
        elif what == "price":
            await self.by_hand("update uvian.job_prices set amount = $1", Decimal(one) / 4)
        elif what == "limit":
            await self.by_hand(
                "update uvian.job_types set max_running_per_user = greatest($1, max_running_per_user)",
                one,
            )
        elif one < len(jobs):
            await self.step_of_job(jobs[one], what, two)

    async def step_of_job(self, job: dict[str, Any], what: str, two: int) -> None:
        """A step that concerns one job."""
        world = self.world
        if what == "claim":
            await world.claim(job, f"w{two}")
        elif what == "settle":
            await world.settle(
                job, OUTCOMES[two], job["worker"] or "w0", delay=two, charge=[1, 0, 0.3][two % 3]
            )
        elif what == "cancel":
            await world.cancel(job)
        elif what == "retry":
            await world.retry(job, job["run"])
        elif what == "hand":
            await self.by_hand(
                "update uvian.jobs set status = $1 where id = $2", STATUSES[two], job["id"]
            )
        elif what == "delete":
            await self.by_hand("delete from uvian.jobs where id = $1", job["id"])
        elif what == "crash":
            await self.by_hand(
                "update uvian.job_leases set expires_at = now() - interval '1 s' where job_id = $1",
                job["id"],
            )
            await world.sweep()

    async def by_hand(self, statement: str, *arguments: Any) -> None:
        """On another connection than those that look."""
        async with self.hands.acquire() as connection:
            await connection.execute("set lock_timeout = '1s'")
            await connection.execute(statement, *arguments)


@contextlib.asynccontextmanager
async def _stage(adapter: Adapter) -> Any:
    pool = asyncpg.create_pool(adapter.clean.superuser_dsn, min_size=1, max_size=4)
    async with opened(adapter) as world, pool as hands:
        yield world, hands


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(story=st.lists(st.lists(steps, min_size=1, max_size=4), min_size=3, max_size=15))
def test_the_books_add_up_whatever_happens_at_once(
    adapter: Adapter, story: list[list[Step]]
) -> None:
    """Random steps of several connections at once: after each group every invariant holds."""

    async def play() -> None:
        async with _stage(adapter) as (world, hands):
            await world.hand.execute(
                "truncate uvian.jobs, uvian.credit_accounts, uvian.credit_entries cascade"
            )
            await world.type(price="2.5", max_running_per_user=2)
            users = [await world.user(12), await world.user(7)]
            told = Story(world, users, hands)
            for group in story:
                await told.together(group)
                assert await broken(world) == {}

    asyncio.run(play())
