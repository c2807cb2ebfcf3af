"""A job without servers: the real runner, executors and picture files; a database in memory."""

from __future__ import annotations

__all__ = ["Bench", "Model", "Pictures", "picture"]

import asyncio
import functools
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from executors.base import JobServices
from executors.events import Appended, Event, ImageReady, JobRef
from executors.generation import GenerationExecutor
from executors.imaging.codec import DECODERS, LIMITS, Decoders, Limits, encode_png
from executors.providers.base import GeneratedImage
from executors.providers.offline.chat import LocalChatModel
from executors.providers.offline.marks.draw import draw_mark
from executors.refinement import RefinementExecutor
from executors.registry import Registry
from executors.running.runner import Runner
from repositories.concepts import UserConcepts
from repositories.database import Filter
from repositories.errors import Refused
from repositories.images import Register, StoredImage, UserImages, unregistered
from repositories.jobs import ClaimedJob, Settlement
from repositories.local import LocalImages
from repositories.outages import Outage

USER = str(uuid.UUID(int=7))
JOB = str(uuid.UUID(int=8))
NOTHING: Any = None  #: a service that a generation does not use


@functools.cache
def picture(size: int = 256) -> bytes:
    """A mark as PNG."""
    return encode_png(
        draw_mark("a fox", "autumn", size=size, seed=1, style=None), flat=True
    ).content


class Model:
    """An ``ImageModel`` that answers, or raises, what the test says; it keeps the bill."""

    name = "scripted"

    def __init__(self) -> None:
        self.answer: bytes | Exception = picture()
        self.asked: list[dict[str, Any]] = []

    async def generate(self, **asked: Any) -> GeneratedImage:
        self.asked.append(asked)
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return GeneratedImage(self.answer, self.name, "scripted-1", asked["seed"], ("polished",))

    async def refine(self, **asked: Any) -> GeneratedImage:
        return await self.generate(**asked)


class Pictures:
    """Local images that fail where the test says: ``fails(number of the put)`` is what is raised."""

    def __init__(self, folder: Path) -> None:
        self.local = LocalImages(folder)
        self.puts = 0
        self.fails: Callable[[int], Exception | None] = lambda _: None

    async def put(
        self, user_id: str, content: bytes, content_type: str, register: Register = unregistered
    ) -> StoredImage:
        number, self.puts = self.puts, self.puts + 1
        if (error := self.fails(number)) is not None:
            raise error
        return await self.local.put(user_id, content, content_type, register)

    async def get(self, path: str) -> bytes:
        return await self.local.get(path)

    async def sign(self, paths: Sequence[str], *, expires_in: int) -> dict[str, str]:
        return await self.local.sign(paths, expires_in=expires_in)

    async def delete(self, paths: Sequence[str]) -> None:
        await self.local.delete(paths)

    async def close(self) -> None:
        await self.local.close()


class MemoryJobs:
    """One job, its fence and its checkpoints: what the runner and ``UserConcepts`` ask a database."""

    worker = "worker-1"

    def __init__(self, input_: Mapping[str, Any], type_: str = "generation") -> None:
        self.input = dict(input_)
        self.type = type_
        self.rows: dict[str, list[dict[str, Any]]] = {"concepts": [], "concept_variations": []}
        self.run = 1
        self.held = False
        self.checkpoints: dict[str, Any] = {}
        self.settled: list[dict[str, Any]] = []
        self.files: list[str] = []
        self.concepts: list[dict[str, Any]] = []
        self.concept_error: Exception | None = None
        self.loses_at_checkpoint = False

    async def claim(self, job_id: str, run: int) -> ClaimedJob:
        self.held = True
        return ClaimedJob(
            id=job_id,
            user_id=USER,
            type=self.type,
            run=run,
            attempt=0,
            max_attempts=3,
            input=self.input,
            created_at="2026-01-01T00:00:00+00:00",
            checkpoints=dict(self.checkpoints),
            parent_id=None,
            cancel_requested=False,
        )

    async def renew(self, _: object) -> tuple[set[str], set[str]]:
        return set(), set()

    async def checkpoint(self, _job: str, run: int, values: Mapping[str, Any]) -> bool:
        if self.loses_at_checkpoint:
            self.held = False
        if self.held and run == self.run:
            self.checkpoints |= values
            return True
        return False

    async def register_file(self, _job: str, run: int, path: str) -> bool:
        self.files.append(path)
        return self.held and run == self.run

    async def settle(self, item: Mapping[str, Any]) -> Settlement:
        if not self.held:
            return Settlement(settled=False)
        self.settled.append(dict(item))
        self.held = False
        status = {"retry": "queued", "interrupted": "queued"}.get(item["outcome"], item["outcome"])
        self.run += status == "queued"
        return Settlement(settled=True, status=status, attempt=1)

    async def announced(self, _job: str, _run: int) -> None: ...

    async def close(self) -> None: ...

    async def call(self, function: str, /, **arguments: Any) -> Any:
        """``store_concept``, for ``UserConcepts``."""
        assert function == "store_concept"
        await asyncio.sleep(0)
        if self.concept_error is not None:
            raise self.concept_error
        request = arguments["request"]
        if not self.held or request["run"] != self.run:
            return {"stored": False}
        parent = request["concept"]["parent_id"]
        if parent and all(row["id"] != parent for row in self.rows["concepts"]):
            raise Refused("not_found", "There is no such concept.")
        self.concepts.append(request)
        return {"stored": True}

    async def select(
        self, table: str, *, columns: Sequence[str], where: Sequence[Filter], **_: object
    ) -> list[dict[str, Any]]:
        """Rows by equality, for ``UserConcepts``."""
        found = [row for row in self.rows[table] if all(row[f.column] == f.value for f in where)]
        return [{name: row[name] for name in columns} for row in found]


@dataclass
class Bench:
    """One job and all that it touches."""

    jobs: MemoryJobs
    pictures: Pictures
    model: Any
    limits: Limits = LIMITS
    decoders: Decoders = DECODERS
    chat_model: Any = field(default_factory=lambda: LocalChatModel(pace=0))
    fetcher: Any = None
    told: list[tuple[JobRef, Event]] = field(default_factory=list)
    on_event: Callable[[Event], None] = lambda _: None
    runner: Runner = field(init=False)
    outage: Outage = field(default_factory=Outage)

    def __post_init__(self) -> None:
        self.begin(self.jobs)

    def begin(self, jobs: MemoryJobs) -> None:
        """A runner for these jobs, in the same process as the one before."""
        self.jobs = jobs
        self.runner = Runner(
            jobs=self.jobs,  # type: ignore[arg-type] # as much of it as a runner uses
            registry=Registry([GenerationExecutor, RefinementExecutor]),
            sink=self,
            services_of=lambda user: JobServices(
                concepts=UserConcepts(self.jobs, user, "worker-1"),  # type: ignore[arg-type]
                images=UserImages(self.pictures, user),
                image_model=self.model,
                conversations=NOTHING,
                messages=NOTHING,
                chat_model=self.chat_model,
                fetcher=self.fetcher,
                image_limits=self.limits,
                decoders=self.decoders,
            ),
            stop_grace=5,
            outage=self.outage,
        )

    def emit(self, job: JobRef, event: Event) -> asyncio.Future[Appended]:
        """The sink."""
        self.told.append((job, event))
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        answer.set_result(Appended.APPENDED)
        self.on_event(event)
        return answer

    async def run(self) -> dict[str, Any]:
        """Run the job's next run; how it was settled."""
        await self.runner.run(JOB, self.jobs.run)
        return self.jobs.settled[-1]

    @property
    def types(self) -> list[str]:
        """The types of what was told."""
        return [event.type for _, event in self.told]

    @property
    def images(self) -> list[ImageReady]:
        """The pictures that were announced."""
        return [event for _, event in self.told if isinstance(event, ImageReady)]
