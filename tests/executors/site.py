"""Jobs of two users on the real database and the real image store, with the offline providers."""

from __future__ import annotations

__all__ = ["Site", "open_site"]

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from executors.base import JobServices
from executors.events import Appended, Event, JobRef
from executors.fetching import Fetcher
from executors.providers.offline.chat import LocalChatModel
from executors.providers.offline.images import LocalImageModel
from executors.registry import BUILT_IN, Registry
from executors.running.runner import Runner
from repositories.concepts import Concept, UserConcepts
from repositories.conversations import UserConversations
from repositories.database import Filter, Row
from repositories.images import UserImages
from repositories.jobs import JobRepository
from repositories.local import LocalImages
from repositories.messages import UserMessages
from repositories.postgres import PostgresDatabase
from tests.servers import CleanDatabase


@dataclass(frozen=True, slots=True)
class Things:
    """What belongs to a user."""

    concept: Concept
    conversation: str
    question: str  #: the newest message in it


@dataclass
class Site:
    """A worker's inside, and hands in its database."""

    clean: CleanDatabase
    database: PostgresDatabase
    images: LocalImages
    jobs: JobRepository
    registry: Registry
    on_event: Callable[[Event], None] = lambda _: None
    runner: Runner = field(init=False)

    def __post_init__(self) -> None:
        self.image_model = LocalImageModel()
        self.chat_model = LocalChatModel(pace=0)
        self.fetcher = Fetcher()
        self.runner = Runner(
            jobs=self.jobs,
            registry=self.registry,
            sink=self,
            services_of=lambda user: JobServices(
                concepts=UserConcepts(self.database, user, "worker-1"),
                images=UserImages(self.images, user),
                image_model=self.image_model,
                chat_model=self.chat_model,
                conversations=UserConversations(self.database, user),
                messages=UserMessages(self.database, user),
                fetcher=self.fetcher,
            ),
        )

    def emit(self, _: JobRef, event: Event) -> asyncio.Future[Appended]:
        """The sink."""
        self.on_event(event)
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        answer.set_result(Appended.APPENDED)
        return answer

    async def user(self) -> str:
        """Somebody new."""
        user = str(uuid.uuid4())
        await self.sql("insert into auth.users (id) values ($1)", uuid.UUID(user))
        return user

    async def run(self, user: str, type_: str, **input_: Any) -> Row:
        """Create a job, run it once, answer its row."""
        job = {"user_id": user, "type": type_, "input": input_}
        answer = await self.database.call("create_jobs", request={"jobs": [job]})
        job_id = str(answer["jobs"][0]["job"]["id"])
        await self.runner.run(job_id, 1)
        return (await self.database.select("jobs", where=[Filter("id", "eq", job_id)]))[0]

    async def things(self, user: str, **changed: Any) -> Things:
        """One of each that a user can have."""
        concept = await self.concept(user, **changed)
        conversation = await self.database.call("create_conversation", user_id=user)
        row = {
            "conversation_id": conversation["id"],
            "user_id": user,
            "role": "user",
            "content": "?",
        }
        (question,) = await self.database.insert("messages", [row])
        return Things(concept, conversation["id"], question["id"])

    async def ending(self, user: str, type_: str, **input_: Any) -> tuple[str, str | None, str]:
        """Status, code and sentence of a job, or of the refusal to make it."""
        job = {"user_id": user, "type": type_, "input": input_}
        answer = (await self.database.call("create_jobs", request={"jobs": [job]}))["jobs"][0]
        if "job" not in answer:
            return "failed", answer["code"], ""
        await self.runner.run(answer["job"]["id"], 1)
        where = [Filter("id", "eq", answer["job"]["id"])]
        (row,) = await self.database.select("jobs", where=where)
        assert row["status"] == "completed" or row["output"] is None
        return row["status"], (row["error"] or {}).get("code"), row["error_message"] or ""

    async def concept(self, user: str, **changed: Any) -> Concept:
        """A concept that a generation of this user has made."""
        asked = {"logo_description": "a fox", "theme_description": "autumn", "size": 256}
        row = await self.run(user, "generation", **{**asked, "num_palettes": 2, **changed})
        assert row["status"] == "completed", row["error_message"]
        return await UserConcepts(self.database, user).get(row["result_id"])

    async def sql(self, statement: str, *values: Any) -> None:
        """SQL as a superuser."""
        connection = await asyncpg.connect(self.clean.superuser_dsn)
        try:
            await connection.execute(statement, *values)
        finally:
            await connection.close()


@asynccontextmanager
async def open_site(clean: CleanDatabase, folder: Path) -> AsyncIterator[Site]:
    """All of it, opened and closed in order."""
    database = await PostgresDatabase.connect(clean.dsn)
    jobs = JobRepository(database, "worker-1", lambda _: None)
    registry = Registry(BUILT_IN)
    await jobs.register("0.1.0", registry.descriptions())
    site = Site(clean, database, LocalImages(folder), jobs, registry)
    await site.runner.open()
    try:
        yield site
    finally:
        await site.runner.close()
        await site.fetcher.close()
        await site.images.close()
        await jobs.close()
        await database.close()
