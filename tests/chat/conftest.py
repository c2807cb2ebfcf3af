"""A worker's chats in this process: the real database, the real Redis, a model that follows a script."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from executors.base import JobServices
from executors.chat import ChatExecutor
from executors.events import Appended, Event, JobRef
from executors.registry import Registry
from executors.running.runner import Runner
from repositories.conversations import UserConversations
from repositories.database import Filter, Row
from repositories.jobs import JobRepository
from repositories.messages import Message, MessageRepository, UserMessages
from repositories.postgres import PostgresDatabase
from tests.chat.model import STOP, ScriptedModel, Step
from uvian_worker.client import Client, PostedMessage
from uvian_worker.events.assembler import AssembledMessage, MessageAssembler
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.publisher import Publisher
from uvian_worker.redis.connection import redis_from_url
from uvian_worker.redis.keys import Keys

NOTHING: Any = None  #: a service that a chat does not use


class Sink:
    """The real publisher; what is told is remembered."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.told: list[tuple[JobRef, Event]] = []

    def emit(self, job: JobRef, event: Event) -> asyncio.Future[Appended]:
        self.told.append((job, event))
        return self.publisher.emit(job, event)

    @property
    def types(self) -> list[str]:
        """The types of what was told, in order."""
        return [event.type for _, event in self.told]


@dataclass
class Chats:
    """Everything that a chat touches, and a user with a conversation."""

    database: PostgresDatabase
    superuser_dsn: str
    redis: Redis
    client: Client
    jobs: JobRepository
    runner: Runner
    sink: Sink
    model: ScriptedModel
    user_id: str
    conversation_id: str = ""
    last: PostedMessage | None = None
    clients: list[asyncio.Task[None]] = field(default_factory=list)

    async def ask(self, content: str = "Why?", **more: Any) -> str:
        """Post a question; the id of its chat."""
        self.last = await self.client.conversations.post(
            self.user_id, self.conversation_id, content, **more
        )
        return self.last.job.id

    async def run(self, *script: Step, job_id: str | None = None, run: int = 1) -> Row:
        """Answer the question (a new one) by this script; the job's row."""
        self.model.scripts.append(script or ("Because", " so.", STOP))
        job_id = job_id or await self.ask()
        await self.runner.run(job_id, run)
        return await self.row(job_id)

    async def begin(self, *script: Step) -> tuple[str, asyncio.Task[None]]:
        """Begin to answer by a script, until it pauses."""
        self.model.scripts.append(script)
        self.model.paused.clear()
        job_id = await self.ask()
        work = asyncio.create_task(self.runner.run(job_id, 1))
        await self.model.paused.wait()
        return job_id, work

    async def row(self, job_id: str) -> Row:
        """The job's row."""
        (row,) = await self.database.select("jobs", where=[Filter("id", "eq", job_id)])
        return row

    async def messages(self) -> list[Message]:
        """The conversation as it is stored."""
        return await MessageRepository(self.database).list(self.conversation_id)

    async def log(self, topic: str = "") -> list[Envelope]:
        """What is in a topic (of the conversation)."""
        await self.sink.publisher.flush()
        name = Keys("uvian").log(topic or f"conversation:{self.conversation_id}")
        return [Envelope.parse(fields[b"e"]) for _, fields in await self.redis.xrange(name)]

    async def execute(self, statement: str, *values: Any) -> list[Any]:
        """SQL as a superuser."""
        connection = await asyncpg.connect(self.superuser_dsn)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    def listen(self) -> MessageAssembler:
        """A client that follows the conversation from now on."""
        assembler = MessageAssembler()

        async def follow() -> None:
            async for event in self.client.conversations.follow(self.conversation_id):
                assembler.apply(event)

        self.clients.append(asyncio.create_task(follow()))
        return assembler


def shown(assembler: MessageAssembler) -> Sequence[AssembledMessage]:
    """What a client shows."""
    return list(assembler.messages.values())


@pytest.fixture
async def chats(database_dsn: str, superuser_dsn: str, redis_url: str) -> AsyncIterator[Chats]:
    """Chats that cost 10 credits, a user who has 100, and an empty conversation."""
    async for made in open_chats(database_dsn, superuser_dsn, redis_url):
        yield made


async def open_chats(dsn: str, superuser_dsn: str, redis_url: str) -> AsyncIterator[Chats]:
    """``chats`` on the servers a test chooses."""
    database = await PostgresDatabase.connect(dsn)
    redis = redis_from_url(redis_url, patience=1.0)
    publisher = Publisher(redis, "uvian")
    sink = Sink(publisher)
    jobs = JobRepository(database, "worker-1", lambda _: None)
    registry = Registry([ChatExecutor])
    await jobs.register("0.1.0", registry.descriptions())
    model = ScriptedModel()
    runner = Runner(
        jobs=jobs,
        registry=registry,
        sink=sink,
        services_of=lambda user: JobServices(
            concepts=NOTHING,
            images=NOTHING,
            image_model=NOTHING,
            conversations=UserConversations(database, user),
            messages=UserMessages(database, user),
            chat_model=model,
            fetcher=NOTHING,
        ),
        stop_grace=2,
    )
    client = await Client.connect(database_url=dsn, redis_url=redis_url)
    user_id = str(uuid.uuid4())
    chats = Chats(database, superuser_dsn, redis, client, jobs, runner, sink, model, user_id)
    await chats.execute("insert into auth.users (id) values ($1)", uuid.UUID(user_id))
    await database.insert("job_prices", [{"type": "chat", "amount": "10"}])
    await database.call("grant_credits", user_id=user_id, amount="100", reference="first")
    chats.conversation_id = await client.conversations.create(user_id, title="Colours")
    await runner.open()
    try:
        yield chats
    finally:
        for task in chats.clients:
            task.cancel()
        if chats.clients:
            await asyncio.wait(chats.clients)
        await runner.close()
        await client.close()
        await publisher.close(patience=1)
        await jobs.close()
        await database.close()
        await redis.aclose()
