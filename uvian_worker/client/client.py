"""The client of an API: its connections, jobs, and through ``conversations`` chats."""

from __future__ import annotations

__all__ = ["Client"]

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import asyncpg

from uvian_common import dsn
from uvian_worker.client.calls import Call, JobRefused, NotSetUp, over_postgres, over_supabase
from uvian_worker.client.conversations import Conversations
from uvian_worker.client.database import PATIENCE, ClientDatabase
from uvian_worker.client.handles import Door, JobHandle, handle_of
from uvian_worker.client.inputs import Inputs
from uvian_worker.events.control import Control
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.log import Appender
from uvian_worker.events.reader import Expired, Reader, Snapshot
from uvian_worker.queue.dispatch import Dispatcher
from uvian_worker.redis.connection import redis_from_url
from uvian_worker.redis.keys import job_topic
from uvian_worker.redis.url import BadConnectionString, readable
from uvian_worker.sweep.outbox import Outbox


class Client:
    """Creates jobs and follows them, for any number of users: check who the user is before you call it.

    The database is the truth: when Redis is away a submitted job runs as soon as it is back. Every
    call may raise ``DatabaseAway`` (after some seconds of trying; the request may have been carried
    out all the same) and ``NotSetUp``.
    """

    def __init__(
        self, call: Call, redis: Any, *, namespace: str = "uvian", patience: float = PATIENCE
    ) -> None:
        """``call(function, arguments)`` runs a function of the schema ``uvian`` as the service.

        While the database is away it is called again, for ``patience`` seconds.
        """
        self._database = ClientDatabase(call, patience=patience)
        self._inputs = Inputs(self._schemas)
        dispatcher = Dispatcher(redis, namespace, patience=0.5)
        appender = Appender(redis, namespace)
        control = Control(redis, namespace)
        self._reader = Reader(redis, namespace, ended_jobs=self._ended_jobs)
        self._outbox = Outbox(dispatcher, appender, control)
        self.conversations = Conversations(
            self._database,
            redis,
            namespace,
            inputs=self._inputs,
            outbox=self._outbox,
            reader=self._reader,
        )
        self._stack = AsyncExitStack()
        for part in (dispatcher, appender, control, self._reader, self._outbox):
            self._stack.push_async_callback(part.close)

    @classmethod
    async def connect(
        cls,
        *,
        database_url: str,
        redis_url: str,
        namespace: str = "uvian",
        connections: int = 4,
        patience: float = PATIENCE,
    ) -> Self:
        """A client on connections of its own, straight to Postgres.

        Raises ``NotSetUp`` for a URL that cannot be used; the message holds nothing of a password.
        """
        try:
            arguments = dsn.read(database_url).arguments(10)
        except BadConnectionString as error:
            raise NotSetUp(f"database_url {error}.") from None
        pool = await asyncpg.create_pool(
            **arguments,
            min_size=0,
            max_size=connections,
            statement_cache_size=0,
            reset=_leaves_nothing,
            command_timeout=10,
        )
        call = over_postgres(pool)
        return cls.over(call, redis_url, namespace=namespace, patience=patience, close=pool.close)

    @classmethod
    def over_supabase(
        cls,
        supabase: Any,
        redis_url: str,
        *,
        namespace: str = "uvian",
        patience: float = PATIENCE,
    ) -> Self:
        """A client over your ``supabase.AsyncClient`` (secret key, schema ``uvian`` exposed)."""
        return cls.over(over_supabase(supabase), redis_url, namespace=namespace, patience=patience)

    @classmethod
    def over(
        cls,
        call: Call,
        redis_url: str,
        *,
        namespace: str = "uvian",
        patience: float = PATIENCE,
        close: Callable[[], Awaitable[Any]] | None = None,
    ) -> Self:
        """A client that calls the database by ``call``; ``close`` is called when it is closed."""
        try:
            redis = redis_from_url(readable(redis_url), patience=2.0)
        except BadConnectionString as error:
            raise NotSetUp(f"redis_url {error}.") from None
        client = cls(call, redis, namespace=namespace, patience=patience)
        if close is not None:
            client._stack.push_async_callback(close)
        client._stack.push_async_callback(redis.aclose)
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Closing twice is fine."""
        await self._stack.aclose()

    async def submit(
        self,
        user_id: str,
        type: str,  # noqa: A002 - the field's name
        input: Mapping[str, Any],  # noqa: A002 - the field's name
        *,
        idempotency_key: str | None = None,
        priority: int = 0,
        run_at: datetime | None = None,
        max_cost: Decimal | None = None,
        door: Door | None = None,
    ) -> JobHandle:
        """Create a job, reserve its credits, and wake a worker.

        The same ``idempotency_key`` of a user makes one job. ``priority`` is seconds of head start;
        ``run_at`` has a time zone. Raises ``JobRefused`` (``invalid_input``, ``unknown_type``,
        ``not_allowed``, ``insufficient_credits``, ``too_many_queued``, …).
        """
        if run_at is not None and run_at.utcoffset() is None:
            message = "run_at needs a time zone, as in datetime.now(UTC) + timedelta(hours=1)."
            raise JobRefused("invalid_input", {"field": "run_at", "message": message})
        item = {
            # The id is ours, so that repeating the call after a lost reply cannot make two jobs.
            "id": str(uuid.uuid4()),
            "user_id": user_id,
            "type": type,
            "input": dict(input),
            "priority": priority,
            "run_at": run_at.isoformat() if run_at else None,
            "idempotency_key": idempotency_key,
            "max_cost": None if max_cost is None else str(max_cost),
            "door": door,
        }
        await self._inputs.require_valid(type, input)
        answer = await self._database.call("create_jobs", {"request": {"jobs": [item]}})
        made = answer["jobs"][0]
        if "code" in made:
            raise JobRefused(made["code"], made)
        job = made["job"]
        dispatch = [job | {"delayed": made["delayed"]}] if made["dispatch"] else []
        await self._outbox.deliver({"accounts": answer["accounts"], "dispatch": dispatch})
        # A row with our own id was made by us, though the first reply was lost.
        return handle_of(job, created=made["created"] or job["id"] == item["id"])

    async def cancel(self, job_id: str, *, user_id: str | None = None) -> JobHandle:
        """Cancel a job: at once when it waits, within a second when it runs.

        With ``user_id`` another user's job is ``not_found``. Raises ``JobRefused``.
        """
        answer = await self._database.call("cancel_job", {"job_id": job_id, "user_id": user_id})
        requests = {
            "cancel": [answer["job"]] if answer["requested"] else [],
            "terminal_events": [answer["terminal_event"]]
            if answer["terminal_event"] is not None
            else [],
        }
        await self._outbox.deliver({**answer, **requests})
        return handle_of(answer["job"])

    async def retry(
        self,
        job_id: str,
        *,
        expected_run: int,
        user_id: str | None = None,
        door: Door | None = None,
    ) -> JobHandle:
        """Run a failed or cancelled job again; ``expected_run`` is the run the caller saw.

        What would be refused as a new job is refused here. Raises ``JobRefused`` (``not_found``,
        ``not_retryable``, ``insufficient_credits``, …).
        """
        arguments = {
            "job_id": job_id,
            "expected_run": expected_run,
            "user_id": user_id,
            "door": door,
        }
        answer = await self._database.call("retry_job", arguments)
        await self._outbox.deliver(answer)
        return handle_of(answer["job"])

    async def follow(
        self, job_id: str, cursor: str | None = None
    ) -> AsyncIterator[Envelope | Snapshot | Expired]:
        """All events of a job from its beginning (or after ``cursor``) to its terminal event, as they happen.

        After ``Expired`` read the row. Of a job that has ended, and whose events are gone, the
        terminal event comes from the row.
        """
        async for event in self._reader.follow(job_topic(job_id), cursor):
            if isinstance(event, Expired) and event.ended and event.state:
                yield replace(event, state=event.state[:-1])
                yield event.state[-1]
            else:
                yield event

    async def _ended_jobs(self, job_ids: list[str]) -> Sequence[Mapping[str, Any]]:
        answer = await self._database.call_once(
            "terminal_events_of", {"request": {"jobs": job_ids}}
        )
        return list(answer["terminal_events"])

    async def _schemas(self) -> Mapping[str, Any]:
        types: Mapping[str, Any] = (await self._database.call("type_schemas", {"request": {}}))[
            "types"
        ]
        return types


async def _leaves_nothing(_: asyncpg.Connection[Any]) -> None:
    """A call leaves no session state, and the pool's own reset would cost a round trip after each."""
