"""The demo: one generation on servers of its own, followed by its events, its pictures laid out."""

from __future__ import annotations

__all__ = ["STAGES", "Audience", "DemoOrder", "DemoResult", "Nobody", "run_demo"]

import asyncio
import os
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from uvian_worker.client import Client
from uvian_worker.config import PREFIX
from uvian_worker.contact_sheet import lay_out
from uvian_worker.local_servers import FOLDER, LocalServers, local_servers
from uvian_worker.watching import WatchedJob
from uvian_worker.worker_process import WorkerEnded, WorkerProcess

#: What a generation goes through, so that it can be shown before it happens.
STAGES: Final = {
    "base_image": "Base concept generation",
    "base_image_storage": "Storing base image",
    "palette_generation": "Palette generation",
    "palette_variations": "Creating/storing variations",
    "concept_storage": "Storing concept",
}


@dataclass(frozen=True, slots=True)
class DemoOrder:
    """What shall be made."""

    prompt: str
    theme: str
    palettes: int = 7
    size: int = 1024  #: pixels, width and height
    seed: int | None = None
    out: Path | None = None  #: where the pictures go; by default below ``folder``
    folder: Path = FOLDER

    def input(self) -> dict[str, Any]:
        """The input of the job."""
        asked = {
            "logo_description": self.prompt,
            "theme_description": self.theme,
            "num_palettes": self.palettes,
            "size": self.size,
            "seed": self.seed,
        }
        return {name: value for name, value in asked.items() if value is not None}


@dataclass(slots=True)
class DemoResult:
    """What became of it."""

    job: WatchedJob
    ms: float  #: from the call that submits to the event that ends, as a client sees it
    expected: int  #: pictures
    log: Path  #: the worker's
    out: Path | None = None
    files: list[Path] = field(default_factory=list)  #: the base image first

    @property
    def succeeded(self) -> bool:
        """Whether the job has completed with its base image and every variation."""
        return self.job.status == "completed" and len(self.files) == self.expected

    def as_document(self) -> dict[str, Any]:
        """For ``--json``."""
        job = self.job
        return {
            "id": job.id,
            "type": job.type,
            "status": job.status,
            "ms": round(self.ms, 1),
            "stages": [stage.as_document() for stage in job.stages.values()],
            "events": dict(sorted(job.counts.items())),
            "pictures": [str(file) for file in self.files],
            "palettes": [
                {"name": picture.name, "colours": list(picture.palette)}
                for _, picture in sorted(job.pictures.items())
                if picture.palette
            ],
            "warnings": job.warnings,
            "error": job.error,
        }


class Audience(Protocol):
    """Who watches the demo."""

    def preparing(self, step: str) -> None:
        """What is being started."""

    def begins(self, job: WatchedJob) -> None:
        """The job is submitted: what ``job`` knows grows from now on."""

    def changed(self) -> None:
        """The job has heard an event."""


class Nobody:
    """An audience that does not look."""

    def preparing(self, step: str) -> None:
        """Nothing."""

    def begins(self, job: WatchedJob) -> None:
        """Nothing."""

    def changed(self) -> None:
        """Nothing."""


async def run_demo(order: DemoOrder, audience: Audience | None = None) -> DemoResult:
    """Run one job from an empty machine to pictures on disk.

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
        client = await stack.enter_async_context(
            await Client.connect(database_url=servers.database_url, redis_url=servers.redis_url)
        )
        job, ms = await _watch_one(client, worker, servers.user_id, order, audience)
        result = DemoResult(job, ms, expected=order.palettes + 1, log=log)
        if job.status == "completed":
            result.out = (order.out or servers.folder / "demo" / job.id).absolute()
            result.files = await asyncio.to_thread(
                lay_out, job, result.out, images=servers.images_dir, asked=order.input(), ms=ms
            )
        return result


async def _watch_one(
    client: Client,
    worker: WorkerProcess,
    user_id: str,
    order: DemoOrder,
    audience: Audience,
) -> tuple[WatchedJob, float]:
    """Submit the job and hear all of its events; a worker that dies meanwhile is the end of it."""
    began = time.perf_counter()
    handle = await client.submit(user_id, "generation", order.input())
    job = WatchedJob(handle.id, "generation")
    job.expect(STAGES)
    audience.begins(job)
    following = asyncio.ensure_future(_follow(client, job, audience))
    ended = asyncio.ensure_future(worker.ended())
    try:
        await asyncio.wait({following, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not following.done():
            raise WorkerEnded(worker.last_words("The worker has ended in the middle of the job."))
        await following
    finally:
        following.cancel()
        ended.cancel()
    return job, (time.perf_counter() - began) * 1000


async def _follow(client: Client, job: WatchedJob, audience: Audience) -> None:
    async for event in client.follow(job.id):
        job.hear(event)
        audience.changed()


def _environment(servers: LocalServers) -> dict[str, str]:
    """Of ours, nothing that would make the demo another one on another machine."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {**plain, **servers.settings(), "UVIAN_IMAGE_MODEL": "local", "UVIAN_DRAIN_GRACE": "1"}
