"""Jobs that ask a model, run by the real runner on the real database."""

from __future__ import annotations

__all__ = ["ChatProbe", "ImageProbe", "Works"]

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, TypeVar

import asyncpg
from pydantic import BaseModel

from executors.base import BaseExecutor, JobContext, JobInput, JobServices
from executors.providers.base import ChatMessage, ChatModel, ImageModel, VendorRequest
from executors.registry import Registry
from executors.running.runner import Runner
from executors.stages.image_preparation import prepare_image
from repositories.database import Filter, Row
from repositories.jobs import JobRepository, Settlement
from repositories.postgres import PostgresDatabase
from tests.executors.providers.cases import MAX_ATTEMPTS, PRICE
from tests.executors.running.conftest import MemorySink
from tests.servers import CleanDatabase

ModelT = TypeVar("ModelT", ChatModel, ImageModel)
BALANCE = 10


class NoInput(JobInput):
    """Every job asks the same."""


class Said(BaseModel):
    """What was answered."""

    text: str = ""
    width: int = 0


class ChatProbe(BaseExecutor[NoInput, Said]):
    """Asks one question."""

    type = "chat_probe"
    Input = NoInput
    Output = Said
    max_attempts = MAX_ATTEMPTS
    make: Callable[[], ChatModel]

    async def execute(self, job: JobContext[NoInput]) -> Said:
        said = ""
        async with job.stage("asking", weight=1):
            request = VendorRequest(
                id=job.checkpoints.get("request"),
                save=lambda id_: job.checkpoint(request=id_),
                comes_back=job.comes_back,
            )
            question = [ChatMessage("user", "How do you do?")]
            async for delta in self.make().stream(question, request=request):
                said += delta.text
        return Said(text=said)


class ImageProbe(BaseExecutor[NoInput, Said]):
    """Asks for one picture, and prepares it as a generation does."""

    type = "image_probe"
    Input = NoInput
    Output = Said
    max_attempts = MAX_ATTEMPTS

    async def execute(self, job: JobContext[NoInput]) -> Said:
        made = await prepare_image(
            job, subject="a fox", theme="autumn", size=64, style=None, seed=None
        )
        return Said(width=made.width)


class Books(JobRepository):
    """Keeps how each run ended: of a job that is queued again the row does not say why."""

    def __init__(self, database: PostgresDatabase) -> None:
        super().__init__(database, "worker-1", lambda _: None)
        self.settled: list[Mapping[str, Any]] = []

    async def settle(self, item: Mapping[str, Any]) -> Settlement:
        self.settled.append(item)
        return await super().settle(item)


class Works:
    """A user with credits, a runner, and both probes."""

    def __init__(self, database: PostgresDatabase, hand: asyncpg.Connection[Any]) -> None:
        self.database = database
        self.hand = hand
        self.user = str(uuid.uuid4())
        self.sink = MemorySink()
        self.jobs = Books(database)
        self.registry = Registry([ChatProbe, ImageProbe])
        self.make_image: Callable[[], ImageModel] | None = None
        self.runner = Runner(
            jobs=self.jobs,
            registry=self.registry,
            sink=self.sink,
            services_of=self._services,
            stop_grace=5,
        )

    def asks(self, *, chat: Callable[[], ChatModel], image: Callable[[], ImageModel]) -> None:
        """Who is asked from now on: made anew for each run, as by a worker that has just started."""
        probe = self.registry.find(ChatProbe.type)
        assert isinstance(probe, ChatProbe)
        probe.make = chat
        self.make_image = image

    async def create(self, type_: str) -> str:
        """A queued job's id."""
        item = {"user_id": self.user, "type": type_, "input": {}}
        answer = await self.database.call("create_jobs", request={"jobs": [item]})
        return str(answer["jobs"][0]["job"]["id"])

    async def row(self, job_id: str) -> Row:
        """The job's row."""
        return (await self.database.select("jobs", where=[Filter("id", "eq", job_id)]))[0]

    async def wait_of(self, job_id: str) -> float:
        """Seconds between the end of the last run and the next one."""
        seconds = await self.hand.fetchval(
            "select extract(epoch from run_at - updated_at) from uvian.jobs where id = $1", job_id
        )
        return float(seconds)

    async def let_time_pass(self, job_id: str) -> None:
        """The next run is due."""
        await self.hand.execute("update uvian.jobs set run_at = now() where id = $1", job_id)

    @property
    def code(self) -> str | None:
        """The error of the last run, if it had one."""
        error = self.jobs.settled[-1].get("error")
        return None if error is None else str(error["code"])

    async def balance(self) -> tuple[Decimal, Decimal]:
        """The user's credits: what there is, and how much of it is reserved."""
        row = await self.hand.fetchrow(
            "select balance, reserved from uvian.credit_accounts where user_id = $1", self.user
        )
        assert row is not None
        return row["balance"], row["reserved"]

    def _services(self, _: str) -> JobServices:
        assert self.make_image is not None
        return JobServices(
            concepts=None,  # type: ignore[arg-type] # the probes store nothing
            images=None,  # type: ignore[arg-type]
            image_model=self.make_image(),
            chat_model=None,  # type: ignore[arg-type]
            fetcher=None,  # type: ignore[arg-type]
            conversations=None,  # type: ignore[arg-type]
            messages=None,  # type: ignore[arg-type]
        )

    async def _prepare(self) -> None:
        await self.jobs.register("0.1.0", self.registry.descriptions())
        await self.hand.execute("insert into auth.users (id) values ($1)", self.user)
        await self.database.call(
            "grant_credits", user_id=self.user, amount=str(BALANCE), reference="test"
        )
        for type_ in self.registry.types:
            await self.hand.execute("insert into uvian.job_prices values ($1, $2)", type_, PRICE)
        await self.runner.open()

    @classmethod
    @asynccontextmanager
    async def opened(cls, clean: CleanDatabase) -> AsyncIterator[Works]:
        """On a database of its own."""
        database = await PostgresDatabase.connect(clean.dsn)
        hand = await asyncpg.connect(clean.superuser_dsn)
        works = cls(database, hand)
        await works._prepare()
        try:
            yield works
        finally:
            await works.runner.close()
            await works.jobs.close()
            await hand.close()
            await database.close()
