"""Control messages to a worker, which come over Redis: cancel a job, pause, resume, drain."""

from __future__ import annotations

__all__ = ["RemoteControl"]

import asyncio
import logging

from uvian_common.tasks import cancel_until_done
from uvian_worker.events.control import (
    CancelJob,
    ControlMessage,
    DrainWorker,
    PauseWorker,
    ResumeWorker,
)
from uvian_worker.worker.services import Services
from uvian_worker.worker.shutdown import Shutdown

log = logging.getLogger("uvian.worker")


class RemoteControl:
    """Receives the messages until it is closed, and does what they say."""

    def __init__(self, services: Services, shutdown: Shutdown) -> None:
        self._services = services
        self._shutdown = shutdown
        self._task = asyncio.create_task(self._receive(), name="control")

    async def close(self) -> None:
        """Receive nothing more. Closing twice is fine."""
        await cancel_until_done(self._task)

    async def _receive(self) -> None:
        while True:
            try:
                async for message in self._services.control.listen(self._services.worker):
                    self._obey(message)
            except Exception:
                log.exception("the control channel failed; listening again")
            await asyncio.sleep(1)

    def _obey(self, message: ControlMessage) -> None:
        match message:
            case CancelJob(job_id=job_id, run=run):
                self._services.runner.cancel(job_id, run)
            case PauseWorker():
                log.info("paused")
                self._services.source.pause()
            case ResumeWorker() if not self._shutdown.has_begun:
                log.info("resumed")
                self._services.source.resume()
            case DrainWorker():
                self._shutdown.begin()
            case _:
                pass
