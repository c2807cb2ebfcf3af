"""A small world for tests of the lifecycle: users, types, workers, and hands on the clock."""

from __future__ import annotations

__all__ = ["World", "opened"]

import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import asyncpg
import orjson

from repositories.database import Database, Function, Row
from tests.adapters import Adapter


class World:
    """The service's functions by short names; ``hand`` is the SQL editor, which also moves time."""

    def __init__(self, adapter: Adapter, service: Database, hand: asyncpg.Connection[Any]) -> None:
        self.adapter = adapter
        self.clean = adapter.clean
        self.service = service
        self.hand = hand

    async def call(self, function: Function, **request: Any) -> Any:
        """Call a function that takes one request."""
        return await self.service.call(function, request=request)

    # Who and what there is

    async def user(self, balance: str | int = 0) -> str:
        """A new user, with credits."""
        user = str(uuid.uuid4())
        await self.hand.execute("insert into auth.users (id) values ($1)", user)
        if Decimal(balance):
            await self.service.call(
                "grant_credits", user_id=user, amount=str(balance), reference="first"
            )
        return user

    async def type(
        self, name: str = "noop", *, price: str | int | None = None, **columns: Any
    ) -> str:
        """A type of job, with what the operator says of it."""
        await self.hand.execute(
            "insert into uvian.job_types (type) values ($1) on conflict do nothing", name
        )
        for column, value in columns.items():
            await self.hand.execute(
                f"update uvian.job_types set {column} = $1 where type = $2", value, name
            )
        if price is not None:
            await self.hand.execute(
                "insert into uvian.job_prices values ($1, $2) "
                "on conflict (type) do update set amount = excluded.amount",
                name,
                Decimal(price),
            )
        return name

    async def worker(self, name: str, *types: str, release: str = "0.1.0") -> None:
        """A worker that has made itself known."""
        await self.call(
            "register_worker",
            worker=name,
            release=release,
            types=[
                {"type": t, "input_schema": {}, "timeout_seconds": 60, "max_attempts": 3}
                for t in types
            ],
        )

    async def conversation(self, owner: str, *members: str) -> str:
        """A conversation of these."""
        made = await self.service.call("create_conversation", user_id=owner)
        if members:
            await self.service.call(
                "add_members", conversation_id=made["id"], members=list(members)
            )
        return str(made["id"])

    async def post(
        self,
        conversation: str,
        user: str,
        content: str = "Why?",
        on_busy: str = "enqueue",
        **more: Any,
    ) -> Row:
        """As the service, in the name of a user."""
        return dict(
            await self.service.call(
                "post_message",
                conversation_id=conversation,
                user_id=user,
                content=content,
                on_busy=on_busy,
                **more,
            )
        )

    async def answered(self, job: Row, content: str = "Because.", worker: str = "w1") -> Row:
        """The settlement of this chat, which it ran until now."""
        claim = await self.claim(job, worker)
        assert claim["claimed"], claim
        return await self.settlement(claim, worker=worker, message={"content": content})

    # What happens to jobs

    async def ask(self, *items: Row) -> list[Row]:
        """The answers of ``create_jobs``, as they come."""
        answer = await self.call("create_jobs", jobs=list(items))
        return list(answer["jobs"])

    async def create(self, user: str, type_: str = "noop", **item: Any) -> Row:
        """One new job."""
        answer = (await self.ask({"user_id": user, "type": type_, "input": {}, **item}))[0]
        assert "job" in answer, answer
        return dict(answer["job"])

    async def claim(self, job: Row, worker: str = "w1", *, run: int | None = None) -> Row:
        """The answer to claiming this run of the job (by default the one given)."""
        answer = await self.call(
            "claim_jobs",
            worker=worker,
            lease_seconds=15,
            jobs=[{"id": job["id"], "run": run or job["run"]}],
        )
        return dict(answer["jobs"][0])

    async def claim_all(self, jobs: Sequence[Row], worker: str = "w1") -> list[Row]:
        """The answers to claiming several in one call."""
        asked = [{"id": job["id"], "run": job["run"]} for job in jobs]
        answer = await self.call("claim_jobs", worker=worker, lease_seconds=15, jobs=asked)
        return list(answer["jobs"])

    async def claim_next(
        self, worker: str = "w1", *types: str, limit: int = 1, nonce: str | None = None
    ) -> list[Row]:
        """What a worker without a queue gets."""
        answer = await self.call(
            "claim_next_jobs",
            worker=worker,
            nonce=nonce or str(uuid.uuid4()),
            types=list(types or ("noop",)),
            limit=limit,
            lease_seconds=15,
        )
        return list(answer["jobs"])

    async def started(self, user: str, type_: str = "noop", worker: str = "w1", **item: Any) -> Row:
        """A new job that this worker runs."""
        job = await self.create(user, type_, **item)
        claim = await self.claim(job, worker)
        assert claim["claimed"], claim
        return claim

    async def settle(
        self, job: Row, outcome: str = "completed", worker: str = "w1", **item: Any
    ) -> Row:
        """The answer for this settlement alone."""
        return dict((await self.settlement(job, outcome, worker, **item))["jobs"][0])

    async def settlement(
        self, job: Row, outcome: str = "completed", worker: str = "w1", **item: Any
    ) -> Row:
        """The whole answer, with what to dispatch next and whose balance has changed."""
        item = {"id": job["id"], "run": job["run"], "outcome": outcome, **item}
        return dict(await self.call("settle_jobs", worker=worker, jobs=[item]))

    async def cancel(self, job: Row, user: str | None = None) -> Row:
        """As the service, in the name of a user if one is given."""
        return dict(await self.service.call("cancel_job", job_id=job["id"], user_id=user))

    async def retry(self, job: Row, expected_run: int, user: str | None = None) -> Row:
        """As the service, in the name of a user if one is given."""
        return dict(
            await self.service.call(
                "retry_job", job_id=job["id"], expected_run=expected_run, user_id=user
            )
        )

    async def renew(self, *jobs: Row, worker: str = "w1") -> Row:
        """Renew leases; each job may carry stage, progress and message."""
        keys = ("id", "run", "stage", "progress", "message", "stages")
        items = [{key: job[key] for key in keys if key in job} for job in jobs]
        return dict(await self.call("renew_leases", worker=worker, lease_seconds=15, jobs=items))

    async def sweep(self, **request: Any) -> Row:
        """One sweep."""
        return dict(await self.call("sweep_jobs", **{"limit": 500, "lease_seconds": 15, **request}))

    # Looking

    async def row(self, job: Row | str) -> Row:
        """The job's row as it is."""
        return await self._one("select * from uvian.jobs where id = $1", job)

    async def state(self, job: Row | str) -> Row:
        """What the machine remembers of the job."""
        return await self._one("select * from uvian.job_state where job_id = $1", job)

    async def messages(self, conversation: str) -> list[Row]:
        """The messages of a conversation, in order."""
        rows = await self.hand.fetch(
            "select * from uvian.messages where conversation_id = $1 order by position",
            conversation,
        )
        return [dict(row) for row in rows]

    async def lease(self, job: Row | str) -> Row | None:
        """The job's lease, if somebody has it."""
        row = await self.hand.fetchrow("select * from uvian.job_leases where job_id = $1", _id(job))
        return dict(row) if row else None

    async def account(self, user: str) -> tuple[Decimal, Decimal]:
        """Balance and what is reserved."""
        row = await self.hand.fetchrow(
            "select balance, reserved from uvian.credit_accounts where user_id = $1", user
        )
        return (row["balance"], row["reserved"]) if row else (Decimal(0), Decimal(0))

    async def entries(self, job: Row) -> list[tuple[str, Decimal]]:
        """What the books say of this job."""
        rows = await self.hand.fetch(
            "select kind, amount from uvian.credit_entries where job_id = $1 order by id", job["id"]
        )
        return [(row["kind"], row["amount"]) for row in rows]

    async def _one(self, statement: str, job: Row | str) -> Row:
        row = await self.hand.fetchrow(statement, _id(job))
        assert row is not None
        return dict(row)

    # Moving time

    async def expire(self, *jobs: Row) -> None:
        """The leases of these jobs ran out a second ago."""
        await self.hand.execute(
            "update uvian.job_leases set expires_at = now() - interval '1 s' "
            "where job_id = any ($1::uuid[])",
            [job["id"] for job in jobs],
        )

    async def make_due(self, *jobs: Row) -> None:
        """What waits for its time waits no more."""
        ids = [job["id"] for job in jobs]
        await self.hand.execute(
            "update uvian.jobs set run_at = now() where id = any ($1::uuid[])", ids
        )
        await self.hand.execute(
            "update uvian.job_state set redispatch_at = now() where job_id = any ($1::uuid[])", ids
        )

    async def lose(self, job: Row, worker: str = "w1") -> Row:
        """The worker of this job dies, and the sweep finds out; the job as it is then."""
        await self.expire(job)
        await self.sweep()
        return await self.row(job)


@contextlib.asynccontextmanager
async def opened(adapter: Adapter) -> AsyncIterator[World]:
    """A world on a database, in which a sweep was just now and the type ``noop`` is known."""
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(adapter.database())
        hand = await asyncpg.connect(adapter.clean.superuser_dsn)
        stack.push_async_callback(hand.close)
        for kind in ("json", "jsonb"):
            await hand.set_type_codec(
                kind, encoder=_dumps, decoder=_loads, schema="pg_catalog", format="text"
            )
        await hand.set_type_codec(
            "uuid", encoder=str, decoder=str, schema="pg_catalog", format="text"
        )
        await hand.execute(
            "update uvian.sweeps set last_at = now(), hold_until = now() - interval '1 s'"
        )
        world = World(adapter, service, hand)
        await world.type("noop")
        yield world


def _id(job: Row | str) -> str:
    return job if isinstance(job, str) else str(job["id"])


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


def _loads(value: str) -> Any:
    return orjson.loads(value)
