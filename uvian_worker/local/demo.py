"""The demo: one job after the other on servers of its own, followed by events, pictures laid out."""

from __future__ import annotations

from uvian_common.tasks import cancel_until_done

__all__ = ["PARTS", "STAGES", "Audience", "DemoOrder", "DemoResult", "Nobody", "run_demo"]

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from repositories.concepts import Concept, UserConcepts
from repositories.messages import Message, UserMessages
from repositories.postgres import PostgresDatabase
from uvian_worker.client import Client
from uvian_worker.config.environment import PREFIX
from uvian_worker.events.job_view import WatchedJob
from uvian_worker.local.contact_sheet import Shown, lay_out
from uvian_worker.local.servers import FOLDER, LocalServers, local_servers
from uvian_worker.local.worker_process import WorkerEnded, WorkerProcess

#: What each type of job goes through, so that it can be shown before it happens.
STAGES: Final = {
    "generation": {
        "base_image": "Base concept generation",
        "base_image_storage": "Storing base image",
        "palette_generation": "Palette generation",
        "palette_variations": "Creating/storing variations",
        "concept_storage": "Storing concept",
    },
    "refinement": {
        "original_image": "Loading the original",
        "image_refinement": "Refining the image",
        "refined_image_storage": "Storing refined image",
        "concept_storage": "Storing concept",
    },
    "chat": {"answer": "Answering"},
}


@dataclass(frozen=True, slots=True)
class DemoOrder:
    """What shall be made."""

    prompt: str
    theme: str
    refinement: str  #: the prompt that the concept is refined by
    question: str | None = None  #: by default one about the concept
    only: str | None = None  #: one of ``PARTS``; else all of them
    palettes: int = 7
    size: int = 1024  #: pixels, width and height
    seed: int | None = None
    out: Path | None = None  #: where the pictures go; by default below ``folder``
    folder: Path = FOLDER


@dataclass(slots=True)
class DemoResult:
    """What became of one job."""

    shown: Shown
    expected: int  #: pictures; 0 for a chat
    log: Path  #: the worker's
    images: Path  #: where the worker keeps pictures
    message: Message | None = None  #: the answer of a chat, as it is stored
    files: list[Path] = field(default_factory=list)  #: the base image first

    @property
    def job(self) -> WatchedJob:
        """The job, as it was watched."""
        return self.shown.job

    @property
    def text(self) -> str | None:
        """What was answered."""
        return None if self.message is None else self.message.content

    @property
    def succeeded(self) -> bool:
        """Whether the job has completed with all of its pictures, or with an answer that is stored."""
        made = len(self.job.pictures) == self.expected
        return self.job.status == "completed" and made and (self.expected > 0 or bool(self.message))

    def as_document(self) -> dict[str, Any]:
        """For ``--json``."""
        job = self.job
        return {
            "id": job.id,
            "type": job.type,
            "status": job.status,
            "ms": round(self.shown.ms, 1),
            "stages": [stage.as_document() for stage in job.stages.values()],
            "events": dict(sorted(job.counts.items())),
            "pictures": [str(file) for file in self.files],
            "palettes": [
                {"name": picture.name, "colours": list(picture.palette)}
                for _, picture in sorted(job.pictures.items())
                if picture.palette
            ],
            "operations": list((job.output or {}).get("operations", ())),
            "answer": self._answer(),
            "warnings": job.warnings,
            "error": job.error,
        }

    def _answer(self) -> dict[str, Any] | None:
        stored = self.message
        if stored is None:
            return None
        return {
            "message_id": stored.id,
            "conversation_id": stored.conversation_id,
            "question": self.shown.words,
            "text": self.text,
            "usage": stored.usage,
        }


class Audience(Protocol):
    """Who watches the demo."""

    def preparing(self, step: str) -> None:
        """What is being started."""

    def begins(self, shown: Shown) -> None:
        """A job is submitted: what ``shown.job`` knows grows from now on."""

    def changed(self) -> None:
        """The job has received an event."""

    def ends(self, result: DemoResult) -> None:
        """The job is over; another one may follow."""


class Nobody:
    """An audience that does not look."""

    def preparing(self, step: str) -> None:
        """Nothing."""

    def begins(self, shown: Shown) -> None:
        """Nothing."""

    def changed(self) -> None:
        """Nothing."""

    def ends(self, result: DemoResult) -> None:
        """Nothing."""


async def run_demo(order: DemoOrder, audience: Audience | None = None) -> list[DemoResult]:
    """Run every part from an empty machine to pictures on disk; the first that fails is the last.

    Raises ``EmbeddedError``, ``RepositoryError``, ``JobRefused`` and ``WorkerEnded``.
    """
    audience = audience or Nobody()
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(local_servers(order.folder, audience.preparing))
        audience.preparing("Starting a worker")
        log = servers.folder / "worker.log"
        worker = WorkerProcess(_environment(servers), folder=servers.folder, log=log)
        await stack.enter_async_context(worker)
        await worker.ready()
        await servers.open_types()
        client = await stack.enter_async_context(
            await Client.connect(database_url=servers.database_url, redis_url=servers.redis_url)
        )
        run = _Run(order, audience, servers, client, worker, log)
        for part in (order.only,) if order.only else PARTS:
            await PARTS[part](run)
            if not run.results[-1].succeeded:
                break
        await run.lay_out()
        return run.results


@dataclass(slots=True)
class _Run:
    """One run of the demo: where its parts happen."""

    order: DemoOrder
    audience: Audience
    servers: LocalServers
    client: Client
    worker: WorkerProcess
    log: Path
    results: list[DemoResult] = field(default_factory=list)

    async def watch(
        self,
        type_: str,
        submitting: Awaitable[str],
        *,
        words: str,
        pictures: int = 0,
        **about: Any,
    ) -> None:
        """Submit a job, receive all of its events, and remember the result.

        ``submitting`` answers its id; ``words`` are what was requested; ``about`` is what else
        ``Shown`` takes.
        """
        began = time.perf_counter()
        job = WatchedJob(await submitting, type_)
        job.expect(STAGES[type_])
        shown = Shown(job, words, **about)
        self.audience.begins(shown)
        await self._watch(job)
        shown.ms = (time.perf_counter() - began) * 1000
        result = DemoResult(shown, pictures, self.log, self.servers.images_dir)
        if type_ == "chat" and job.result_id is not None:
            result.message = await self._stored(job.result_id)
        self.results.append(result)
        self.audience.ends(result)

    async def submit(self, type_: str, input_: dict[str, Any]) -> str:
        """A job of the demo's user; its id."""
        if self.order.seed is not None:
            input_ = {**input_, "seed": self.order.seed}
        return (await self.client.submit(self.servers.user_id, type_, input_)).id

    async def post(self, question: str) -> str:
        """A question in a conversation of its own; the id of the chat that answers it."""
        user_id = self.servers.user_id
        conversation_id = await self.client.conversations.create(user_id, title=question[:80])
        return (await self.client.conversations.post(user_id, conversation_id, question)).job.id

    async def newest_concept(self) -> Concept | None:
        """That of the newest generation: this demo's, or an earlier one's."""
        async with self._database() as database:
            newest = await UserConcepts(database, self.servers.user_id).list(limit=100)
        return next((concept for concept in newest if concept.parent_id is None), None)

    async def _stored(self, message_id: str) -> Message:
        async with self._database() as database:
            return await UserMessages(database, self.servers.user_id).get(message_id)

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[PostgresDatabase]:
        database = await PostgresDatabase.connect(self.servers.database_url)
        try:
            yield database
        finally:
            await database.close()

    async def _watch(self, job: WatchedJob) -> None:
        """Until the job has ended; a worker that dies meanwhile is the end of it."""
        following = asyncio.ensure_future(self._follow(job))
        ended = asyncio.ensure_future(self.worker.ended())
        try:
            await asyncio.wait({following, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                said = "The worker has ended in the middle of the job."
                raise WorkerEnded(self.worker.last_words(said))
            await following
        finally:
            await cancel_until_done(following, ended)

    async def _follow(self, job: WatchedJob) -> None:
        async for event in self.client.follow(job.id):
            job.apply(event)
            self.audience.changed()

    async def lay_out(self) -> None:
        """Pictures of the jobs that have completed, on one page."""
        made = [result for result in self.results if result.expected]
        done = [result for result in made if result.job.status == "completed"]
        if done:
            folder = self.order.out or self.servers.folder / "demo" / done[0].job.id
            files = await asyncio.to_thread(
                lay_out,
                [result.shown for result in done],
                folder.absolute(),
                images=self.servers.images_dir,
            )
            for result, its_files in zip(done, files, strict=True):
                result.files = its_files


async def _generation(run: _Run) -> None:
    order = run.order
    input_ = {
        "logo_description": order.prompt,
        "theme_description": order.theme,
        "num_palettes": order.palettes,
        "size": order.size,
    }
    await run.watch(
        "generation",
        run.submit("generation", input_),
        words=order.prompt,
        theme=order.theme,
        pictures=order.palettes + 1,
    )


async def _refinement(run: _Run) -> None:
    """Of the newest concept; without any, one is made first."""
    original = await run.newest_concept()
    if original is None:
        await _generation(run)
        original = await run.newest_concept()
    if original is not None:
        prompt = run.order.refinement
        input_ = {"concept_id": original.id, "refinement_prompt": prompt}
        await run.watch(
            "refinement",
            run.submit("refinement", input_),
            words=prompt,
            original=original.image_path,
            pictures=1,
        )


async def _chat(run: _Run) -> None:
    """About the newest concept, or what would be one; nothing needs to be made for a question."""
    question = run.order.question
    if question is None:
        concept = await run.newest_concept()
        about = run.order.prompt if concept is None else concept.logo_description
        question = f"Which other colours would suit “{about}”?"
    await run.watch("chat", run.post(question), words=question)


#: What the demo consists of, in its order.
PARTS: Final[dict[str, Callable[[_Run], Awaitable[None]]]] = {
    "generation": _generation,
    "refinement": _refinement,
    "chat": _chat,
}


def _environment(servers: LocalServers) -> dict[str, str]:
    """Of ours, nothing that would make the demo another one on another machine."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {**plain, **servers.settings(), "UVIAN_IMAGE_MODEL": "local", "UVIAN_DRAIN_GRACE": "1"}
