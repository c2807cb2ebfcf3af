"""What an API imports: submit, cancel, retry, follow.

    async with await Client.connect(database_url=…, redis_url=…) as uvian:
        job = await uvian.submit(user_id, "generation", {"logo_description": …})
        async for event in uvian.follow(job.id):
            await websocket.send_json(event)

It is light (no arq, no models, no imaging) and imports neither ``executors`` nor ``repositories``:
your own packages may have these names.
"""

from __future__ import annotations

__all__ = ["Client", "DatabaseAway", "Door", "JobHandle", "JobRefused", "NotSetUp", "PostedMessage"]

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import asyncpg

from uvian_common import dsn
from uvian_common.backoff import pause_before
from uvian_worker.client.calls import (
    Call,
    DatabaseAway,
    JobRefused,
    NotSetUp,
    StatementTooSlow,
    over_postgres,
    over_supabase,
)
from uvian_worker.client.inputs import Inputs
from uvian_worker.events.control import CancelJob, Control
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.log import Appender, answer_id, credits_changed, job_ended
from uvian_worker.events.reader import Expired, Reader, Snapshot
from uvian_worker.queue.dispatch import Dispatch, Dispatcher
from uvian_worker.redis.connection import FAULTS, redis_from_url
from uvian_worker.redis.keys import Keys, conversation_topic, job_topic
from uvian_worker.redis.url import BadConnectionString, readable

log = logging.getLogger("uvian.client")

#: How somebody came whose request is passed on as it is: signed in, or by an anonymous sign-in. What
#: the operator opened to them then holds (``job_types.browser``, ``anonymous``). None: it is the API's own.
Door: TypeAlias = Literal["browser", "anonymous"]

#: Seconds that a call goes on asking a database that is away: a failover or PostgREST's reload of its schema
#: cache is often over by then, and a user who waits for a request is still there.
PATIENCE = 3.0
#: Seconds that a call waits for Redis. What does not get there the sweeper and the renewals carry.
_REDIS_SECONDS = 1.0
_AWAY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class JobHandle:
    """A job as it was when it was asked about."""

    id: str
    status: str
    run: int
    created: bool  #: False when the same request had made it before
    cost: Decimal  #: credits reserved or charged


@dataclass(frozen=True, slots=True)
class PostedMessage:
    """A message that was stored, and the chat that answers it."""

    id: str
    position: int  #: in its conversation: what comes later stands later
    job: JobHandle
    answer_id: str  #: the id that the answer will have


class Client:
    """Creates jobs and follows them, for any number of users: check who asks before you call it.

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
        self._call = call
        self._patience = patience
        self._redis = redis
        self._keys = Keys(namespace)
        self._dispatcher = Dispatcher(redis, namespace, patience=0.5)
        self._appender = Appender(redis, namespace)
        self._control = Control(redis, namespace)
        self._reader = Reader(redis, namespace, endings=self._endings)
        self._inputs = Inputs(self._schemas)
        self._stack = AsyncExitStack()
        for part in (self._dispatcher, self._appender, self._control, self._reader):
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
        answer = await self._persist("create_jobs", {"request": {"jobs": [item]}})
        made = answer["jobs"][0]
        if "code" in made:
            raise JobRefused(made["code"], made)
        self._tell_accounts(answer)
        job = made["job"]
        if made["dispatch"]:
            await self._dispatch([job | {"delayed": made["delayed"]}])
        # Our own id tells that we made it, though the first reply was lost.
        return _handle(job, created=made["created"] or job["id"] == item["id"])

    async def cancel(self, job_id: str, *, user_id: str | None = None) -> JobHandle:
        """Cancel a job: at once when it waits, within a second when it runs.

        With ``user_id`` another user's job is ``not_found``. Raises ``JobRefused``.
        """
        arguments = {"job_id": job_id, "user_id": user_id}
        answer = await self._persist("cancel_job", arguments)
        if answer["requested"]:
            await self._tell_worker(answer["job"])
        if answer["ending"] is not None:
            self._announce([answer["ending"]])
        self._tell_accounts(answer)
        await self._dispatch(answer["dispatch"])
        return _handle(answer["job"])

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
        answer = await self._persist("retry_job", arguments)
        self._tell_accounts(answer)
        await self._dispatch(answer["dispatch"])
        return _handle(answer["job"])

    async def follow(
        self, job_id: str, cursor: str | None = None
    ) -> AsyncIterator[Envelope | Snapshot | Expired]:
        """All events of a job from its beginning (or after ``cursor``) to its ending, as they happen.

        After ``Expired`` read the row. Of a job that has ended, and whose events are gone, the
        ending is told from there.
        """
        async for event in self._reader.follow(job_topic(job_id), cursor):
            if isinstance(event, Expired) and event.ended and event.state:
                yield replace(event, state=event.state[:-1])
                yield event.state[-1]
            else:
                yield event

    async def create_conversation(
        self,
        user_id: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        conversation_id: str | None = None,
        door: Door | None = None,
    ) -> str:
        """A conversation of this user; its id.

        Who chooses the ``conversation_id`` may ask again after a lost answer, and makes one. Raises
        ``JobRefused`` (``conflict``: the id is another user's; by a ``door`` also ``type_not_open`` and
        ``too_many_conversations``).
        """
        arguments = {
            "conversation_id": conversation_id or str(uuid.uuid4()),
            "user_id": user_id,
            "title": title,
            "metadata": dict(metadata or {}),
            "door": door,
        }
        return str((await self._persist("create_conversation", arguments))["id"])

    async def post_message(
        self,
        user_id: str,
        conversation_id: str,
        content: str,
        *,
        on_busy: Literal["enqueue", "reject", "interrupt"] = "enqueue",
        options: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        max_cost: Decimal | None = None,
        door: Door | None = None,
    ) -> PostedMessage:
        """A user's message, and the chat that answers it.

        ``on_busy`` says what happens while another message is being answered: this one waits, is
        refused (``conversation_busy``), or takes its place. ``options`` go into the chat's input
        (``system_prompt``, ``model``, ``temperature``, ``max_tokens``). Raises ``JobRefused``.
        """
        arguments = {
            "user_id": user_id,
            "conversation_id": conversation_id,
            "content": content,
            "on_busy": on_busy,
            "options": dict(options or {}),
            # A key of ours, so that repeating the call after a lost reply cannot post it twice.
            "idempotency_key": idempotency_key or f"post-{uuid.uuid4()}",
            "max_cost": None if max_cost is None else str(max_cost),
            "door": door,
        }
        chat = {**(options or {}), "conversation_id": conversation_id}
        await self._inputs.require_valid("chat", chat, "options")
        answer = await self._persist("post_message", arguments)
        await self._follow_up(answer)
        message, job = answer["message"], answer["job"]
        handle = _handle(job, created=answer["created"] or not idempotency_key)
        return PostedMessage(message["id"], message["position"], handle, answer_id(job["id"]))

    async def stop(
        self, conversation_id: str, *, job_id: str | None = None, user_id: str | None = None
    ) -> bool:
        """Stop the answer that is being written, or is about to be; whether there was one.

        What there is of it is kept, and whoever waits behind it is next. Name the chat by ``job_id``
        where you know it: asked twice, or a moment too late, no other is stopped. Without it the call
        is not repeated, and raises ``DatabaseAway`` where nobody can tell. With ``user_id`` a
        conversation they take no part in is ``not_found``. Raises ``JobRefused``.
        """
        arguments = {"conversation_id": conversation_id, "user_id": user_id, "job_id": job_id}
        answer = await self._persist("stop_answer", arguments, repeat=job_id is not None)
        await self._follow_up(answer)
        return bool(answer["stopped"])

    async def update_conversation(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        user_id: str | None = None,
    ) -> None:
        """Change title or metadata; None leaves what there is.

        With ``user_id``, here and in the three below, only what that user may do is done: others hear
        ``not_found`` or ``owner_only``. Raises ``JobRefused``.
        """
        arguments = {
            "conversation_id": conversation_id,
            "title": title,
            "metadata": None if metadata is None else dict(metadata),
            "user_id": user_id,
        }
        await self._persist("update_conversation", arguments)

    async def delete_conversation(
        self, conversation_id: str, *, user_id: str | None = None
    ) -> None:
        """Delete a conversation with its messages; what is being answered in it is cancelled first."""
        arguments = {"conversation_id": conversation_id, "user_id": user_id}
        answer = await self._persist("delete_conversation", arguments)
        await self._tell_gateways(conversation_id)
        await self._follow_up(answer)

    async def add_members(self, conversation_id: str, members: Sequence[str]) -> None:
        """Let users take part without asking them: as the operator, not in a user's name (``invite``).

        Those who take part already are fine. Raises ``JobRefused`` (``unknown_user``).
        """
        arguments = {"conversation_id": conversation_id, "members": list(members)}
        await self._persist("add_members", arguments)

    async def invite(
        self,
        conversation_id: str,
        members: Sequence[str],
        *,
        user_id: str | None = None,
        door: Door | None = None,
    ) -> None:
        """Ask users to take part; they do when they accept. Whether they exist is not looked at."""
        arguments = {
            "conversation_id": conversation_id,
            "members": list(members),
            "user_id": user_id,
            "door": door,
        }
        await self._persist("invite_members", arguments)

    async def answer_invitation(
        self, conversation_id: str, *, user_id: str, accept: bool = True
    ) -> None:
        """Take part, or not, as the user who was invited. Raises ``JobRefused`` (``not_found``)."""
        arguments = {"conversation_id": conversation_id, "user_id": user_id, "accept": accept}
        await self._persist("answer_invitation", arguments)

    async def remove_member(
        self, conversation_id: str, member: str, *, user_id: str | None = None
    ) -> None:
        """Let a user take part no more, as the owner or that user may; their open chats are cancelled.

        An invitation that was not answered is withdrawn.
        """
        arguments = {"conversation_id": conversation_id, "member": member, "user_id": user_id}
        answer = await self._persist("remove_member", arguments)
        await self._tell_gateways(conversation_id)
        await self._follow_up(answer)

    async def follow_conversation(
        self, conversation_id: str, cursor: str | None = None
    ) -> AsyncIterator[Envelope | Snapshot | Expired]:
        """The messages of a conversation as they are written, from now on or after ``cursor``.

        Messages that are complete are rows: read them first. A ``MessageAssembler`` puts the others
        together. Ends when you stop.
        """
        async for event in self._reader.follow(conversation_topic(conversation_id), cursor):
            yield event

    async def _endings(self, job_ids: list[str]) -> Sequence[Mapping[str, Any]]:
        answer = await self._call("endings_of", {"request": {"jobs": job_ids}})
        return list(answer["endings"])

    async def _schemas(self) -> Mapping[str, Any]:
        types: Mapping[str, Any] = (await self._persist("type_schemas", {"request": {}}))["types"]
        return types

    async def _persist(
        self, function: str, arguments: dict[str, Any], *, repeat: bool = True
    ) -> Any:
        """Call the database; while it is away, repeat what can do nothing twice (once at least)."""
        tried, last = 0, time.monotonic() + self._patience
        while True:
            try:
                return await self._call(function, arguments)
            except StatementTooSlow:
                raise
            except (DatabaseAway, OSError) as error:
                tried += 1
                # On a connection that is dead the first answer may have been missed for longer than that.
                if not repeat or (tried > 1 and time.monotonic() > last):
                    raise
                log.debug("%s: %s; trying again", function, error)
            await asyncio.sleep(pause_before(tried, longest=0.8))

    async def _follow_up(self, answer: Mapping[str, Any]) -> None:
        """Carry to Redis what a call about a conversation asks for: cancellations come first."""
        for running in answer["cancel"]:
            await self._tell_worker(running)
        self._announce(answer["endings"])
        self._tell_accounts(answer)
        await self._dispatch(answer["dispatch"])

    @property
    def _redis_seconds(self) -> float:
        """How long a caller waits for Redis: hardly, once it is known to be away."""
        return _REDIS_SECONDS if self._dispatcher.away is None else _AWAY_SECONDS

    async def _dispatch(self, rows: list[dict[str, Any]]) -> None:
        dispatching = self._dispatcher.dispatch(Dispatch.of(row) for row in rows)
        try:
            async with asyncio.timeout(self._redis_seconds):
                await dispatching
        except TimeoutError:
            log.debug("%d jobs are not dispatched yet: Redis does not answer", len(rows))

    async def _tell_worker(self, running: Mapping[str, Any]) -> None:
        """The request stands in the row; without Redis it arrives with the next renewal."""
        try:
            async with asyncio.timeout(self._redis_seconds):
                await self._control.send(CancelJob(running["id"], running["run"]))
        except FAULTS as error:
            log.debug(
                "job %s: its worker hears of the cancellation later: %s", running["id"], error
            )

    async def _tell_gateways(self, conversation_id: str) -> None:
        """Who was removed hears no more; without Redis the gateways find out a minute later."""
        try:
            async with asyncio.timeout(self._redis_seconds):
                await self._redis.publish(self._keys.members, str(uuid.UUID(conversation_id)))
        except FAULTS as error:
            log.debug("conversation %s: gateways hear of it later: %s", conversation_id, error)

    def _announce(self, endings: Iterable[Mapping[str, Any]]) -> None:
        for ended in endings:
            for event in job_ended(ended):
                self._appender.submit(event)

    def _tell_accounts(self, answer: Mapping[str, Any]) -> None:
        for account in answer["accounts"]:
            self._appender.submit(credits_changed(account))


async def _leaves_nothing(_: asyncpg.Connection[Any]) -> None:
    """A call leaves no session state: what the pool would ask after each to be sure costs a round trip."""


def _handle(job: Mapping[str, Any], *, created: bool = False) -> JobHandle:
    return JobHandle(job["id"], job["status"], job["run"], created, Decimal(job["cost"]))
