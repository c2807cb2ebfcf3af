"""The loop that removes files nobody has been charged for: of cancelled jobs at once, of others later."""

from __future__ import annotations

__all__ = ["FileSweeper"]

import asyncio
import logging
import random

from repositories.errors import RepositoryError
from repositories.files import FileRepository
from repositories.images import ImageStore
from uvian_common.tasks import cancel_until_done

log = logging.getLogger("uvian.files")


class FileSweeper:
    """Looks every ``interval`` seconds, in every worker; the database hands each file to one of them."""

    def __init__(self, files: FileRepository, store: ImageStore, *, interval: float = 5.0) -> None:
        self._files = files
        self._store = store
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; starting twice is fine."""
        if self._task is None:
            self._task = asyncio.create_task(self._loop(), name="file sweeper")

    async def close(self) -> None:
        """Stop; closing twice, or unstarted, is fine."""
        if self._task is not None:
            await cancel_until_done(self._task)
            self._task = None

    async def _loop(self) -> None:
        while True:
            if not await self._sweep_safely():
                # Several workers need not call at the same moment.
                await asyncio.sleep(self._interval * random.uniform(1, 1.1))  # noqa: S311 - jitter

    async def _sweep_safely(self) -> bool:
        try:
            return await self._files.remove_unnamed(self._store)
        except RepositoryError as error:
            log.info("files that nothing names were not removed, trying again: %s", error)
        except Exception:
            log.exception("files that nothing names were not removed, trying again")
        return False
