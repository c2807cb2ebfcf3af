"""Locks in one order: many connections at once, and nobody is lost to a deadlock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from repositories import errors
from repositories.database import Database
from tests.adapters import over_postgres_only
from tests.lifecycle.invariants import broken
from tests.lifecycle.world import World

pytestmark = [pytest.mark.database, over_postgres_only]

OUTCOMES = ("completed", "completed", "completed", "failed", "retry", "interrupted", "cancelled")


class Worker:
    """Calls every function with random batches in random order, as often as it takes."""

    def __init__(
        self,
        name: str,
        database: Database,
        users: list[str],
        conversations: list[str],
        seed: int,
    ) -> None:
        self.name = name
        self.database = database
        self.users = users
        self.conversations = conversations
        self.chance = random.Random(seed)
        self.transient: list[str] = []

    async def call(self, function: Any, **arguments: Any) -> Any:
        """As the batchers do: transient faults are tried again, others are not expected."""
        for _ in range(30):
            try:
                return await self.database.call(function, **arguments)
            except errors.Transient as error:
                self.transient.append(f"{function}: {error}")
        raise AssertionError(f"{function} never came through: {self.transient[-1]}")

    async def rounds(self, number: int, known: list[dict[str, Any]]) -> None:
        """Create some, then do everything to any of those that anybody made."""
        for _ in range(number):
            items = [
                {
                    "user_id": self.chance.choice(self.users),
                    "type": self.chance.choice(["paid", "limited", "chat"]),
                    "input": {"conversation_id": self.chance.choice(self.conversations)},
                }
                for _ in range(8)
            ]
            known += await self.post()
            made = await self.call("create_jobs", request={"jobs": items})
            known.extend({"id": a["job"]["id"], "run": 1} for a in made["jobs"] if "job" in a)
            mine = self.chance.sample(known, min(20, len(known)))
            claimed = await self.call("claim_jobs", request={"worker": self.name, "jobs": mine})
            held = [c for c in claimed["jobs"] if c["claimed"]]
            held += (await self.poll())["jobs"]
            await self.call(
                "renew_leases",
                request={
                    "worker": self.name,
                    "jobs": [{"id": j["id"], "run": j["run"], "progress": 0.5} for j in held],
                },
            )
            for job in self.chance.sample(known, min(3, len(known))):
                answer = await self.call("cancel_job", job_id=job["id"])
                if answer["cancelled"] and self.chance.random() < 0.5:
                    await self.retry(answer["job"])
            await self.call("sweep_jobs", request={})
            self.chance.shuffle(held)
            settled = await self.call(
                "settle_jobs",
                request={
                    "worker": self.name,
                    "jobs": [
                        {
                            "id": j["id"],
                            "run": j["run"],
                            "outcome": self.chance.choice(OUTCOMES),
                            "delay": 0,
                            "charge": self.chance.random(),
                            "message": {"content": "Because."},
                        }
                        for j in held
                    ],
                },
            )
            known.extend({"id": d["id"], "run": d["run"]} for d in settled["dispatch"])
            await self.call("mark_jobs", request={"announced": mine, "dispatched": mine[::-1]})

    async def poll(self) -> Any:
        """What is due, without a queue."""
        return await self.call(
            "claim_next_jobs",
            request={
                "worker": self.name,
                "nonce": f"{self.chance.getrandbits(128):032x}",
                "types": ["limited", "paid", "chat"],
                "limit": 6,
            },
        )

    async def post(self) -> list[dict[str, Any]]:
        """A message in some conversation, which may interrupt; whose members come and go, and itself."""
        conversation, user = self.chance.choice(self.conversations), self.chance.choice(self.users)
        match self.chance.choice(
            ["enqueue"] * 12 + ["interrupt", "interrupt", "reject", "out", "gone"]
        ):
            case "out":
                await self.unless(
                    "owner_stays not_found", "remove_member", conversation, member=user
                )
                await self.unless("not_found", "add_members", conversation, members=[user])
            case "gone":
                made = await self.call("create_conversation", user_id=user)
                await self.call("add_members", conversation_id=made["id"], members=self.users)
                if conversation in self.conversations:
                    self.conversations[self.conversations.index(conversation)] = made["id"]
                await self.unless("not_found", "delete_conversation", conversation)
            case on_busy:
                posted = await self.unless(
                    "conversation_busy not_found",
                    "post_message",
                    conversation,
                    user_id=user,
                    content="Why?",
                    on_busy=on_busy,
                )
                return [{"id": posted["job"]["id"], "run": 1}] if posted else []
        return []

    async def unless(
        self, codes: str, function: Any, conversation: str, **arguments: Any
    ) -> dict[str, Any] | None:
        """None where it is refused for what another has done in between."""
        try:
            answer = await self.call(function, conversation_id=conversation, **arguments)
        except errors.Refused as refused:
            if refused.code not in codes.split():
                raise
            return None
        return dict(answer)

    async def retry(self, job: dict[str, Any]) -> None:
        """As if new, unless another was faster or its user is out."""
        try:
            await self.call("retry_job", job_id=job["id"], expected_run=job["run"])
        except errors.Refused as refused:
            if refused.code not in ("not_retryable", "not_found"):
                raise

    async def finish(self) -> None:
        """Until there is nothing left to do."""
        while got := (await self.poll())["jobs"]:
            items = [{"id": j["id"], "run": j["run"], "outcome": "completed"} for j in got]
            await self.call("settle_jobs", request={"worker": self.name, "jobs": items})


@asynccontextmanager
async def _workers(
    world: World, number: int, users: list[str], conversations: list[str]
) -> AsyncIterator[list[Worker]]:
    """Each with connections of its own."""
    async with AsyncExitStack() as stack:
        databases = [
            await stack.enter_async_context(world.adapter.database()) for _ in range(number)
        ]
        yield [
            Worker(f"w{n}", database, users, conversations, n)
            for n, database in enumerate(databases)
        ]


async def test_a_storm_of_everything_ends_with_everything_ended(world: World) -> None:
    """Random batches in random order over all functions at once: no deadlock, all rows as they must be."""
    await world.type("paid", price=1)
    await world.type("limited", price=2, max_running_per_user=3)
    await world.type("chat", price=3, max_running_per_user=2)
    # Found out before lock_timeout hides it.
    await world.hand.execute(f"alter database {world.clean.name} set deadlock_timeout = '50ms'")
    users = [await world.user(100_000) for _ in range(4)]
    conversations = [await world.conversation(*users[n:], *users[:n]) for n in range(4)]
    known: list[dict[str, Any]] = []
    async with _workers(world, 8, users, conversations) as workers:
        await asyncio.gather(*(worker.rounds(12, known) for worker in workers))
        assert await broken(world) == {}
        await world.hand.execute("update uvian.job_leases set expires_at = now() - interval '1 s'")
        await world.sweep()
        for _ in range(60):
            await world.hand.execute(
                "update uvian.jobs set run_at = now() where status = 'queued' and run_at > now()"
            )
            await world.hand.execute(
                "update uvian.job_state set redispatch_at = now() where redispatch_at is not null"
            )
            await world.sweep()
            await workers[0].finish()
    assert await broken(world) == {}
    left = await world.hand.fetch(
        "select status, admitted, count(*) from uvian.jobs where finished_at is null group by 1, 2"
    )
    assert left == []
    faults = [fault for worker in workers for fault in worker.transient]
    assert [fault for fault in faults if "deadlock" in fault] == []
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    assert await world.hand.fetchval(deadlocks) == 0


_HANDS_MAY_FAIL = (
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.UniqueViolationError,  # of two who would have the turn
)
#: What a hand is refused that queues the chat of somebody who takes no part in the conversation any more.
_HANDS_ARE_REFUSED = "not_found"


async def test_hands_in_the_storm_are_the_ones_who_wait(world: World) -> None:
    """Statements over many rows, in an order of their own, may fail; the service's calls come through."""
    await world.type("paid", price=1)
    await world.type("limited", price=2, max_running_per_user=3)
    users = [await world.user(100_000) for _ in range(3)]
    conversations = [await world.conversation(*users[n:], *users[:n]) for n in range(3)]
    known: list[dict[str, Any]] = []
    over = asyncio.Event()

    async def hand(seed: int) -> None:
        chance = random.Random(seed)
        connection = await asyncpg.connect(world.clean.superuser_dsn)
        await connection.execute("set deadlock_timeout = '20ms'")  # first to look, first to yield
        try:
            while not over.is_set():
                status = chance.choice(["queued", "cancelled", "completed"])
                try:
                    await connection.execute(
                        "update uvian.jobs set status = $1 where id in "
                        "(select id from uvian.jobs order by random() limit 5)",
                        status,
                    )
                except _HANDS_MAY_FAIL:
                    continue
                except asyncpg.PostgresError as refusal:
                    if refusal.args[0] != _HANDS_ARE_REFUSED:
                        raise
        finally:
            await connection.close()

    hands_at_work = [asyncio.create_task(hand(n)) for n in range(2)]
    try:
        async with _workers(world, 3, users, conversations) as workers:
            await asyncio.gather(*(worker.rounds(3, known) for worker in workers))
    finally:
        over.set()
        await asyncio.gather(*hands_at_work)
    assert await broken(world) == {}
