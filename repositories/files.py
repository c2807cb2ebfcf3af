"""Files and the rows that name them: what a user may see, and what nothing names any more."""

from __future__ import annotations

__all__ = ["FileRepository"]

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from repositories.database import Database
from repositories.images import ImageStore, is_image_path


@dataclass(frozen=True, slots=True)
class FileRepository:
    """The registered files of all users."""

    database: Database

    async def served(self, user_id: str, paths: Sequence[str]) -> list[str]:
        """Of ``paths`` those that a result of this user's names, or a job of theirs that runs."""
        paths = [path for path in paths if is_image_path(path)]
        if not paths:
            return []
        request = {"user_id": user_id, "paths": paths}
        answer = await self.database.call("served_files", request=request)
        named = set(answer["paths"])
        return [path for path in paths if path in named]

    async def remove_unnamed(self, store: ImageStore) -> bool:
        """Remove some files that nothing names from ``store``; whether there may be more.

        Nothing is lost when it ends half way: what was not removed is chosen again after two minutes.
        """
        chosen = await self.database.call("choose_unnamed_files", request={"id": str(uuid.uuid4())})
        if chosen["files"]:
            await store.delete(chosen["files"])
            await self.database.call("forget_files", request={"files": chosen["files"]})
        return bool(chosen["more"])
