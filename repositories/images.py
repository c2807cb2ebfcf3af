"""The ImageStore port: pictures in, signed URLs out, content-addressed.

``repositories.local_images`` keeps it on a folder; Supabase Storage follows. Both pass
``tests/contracts/image_store.py``.
"""

from __future__ import annotations

__all__ = ["ImageStore", "StoredImage", "UserImages", "image_path"]

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from repositories.errors import DataError, NotFound


@dataclass(frozen=True, slots=True)
class StoredImage:
    """Where a picture is kept: ``path`` is ``<user id>/<sha256 of the content>.<extension>``."""

    path: str
    content_type: str
    size: int  #: bytes


class ImageStore(Protocol):
    """Files of all users, in one private bucket."""

    async def put(self, path: str, content: bytes, content_type: str) -> None:
        """Store ``content``; storing the same content at the same path again is a success."""
        ...

    async def get(self, path: str) -> bytes:
        """The bytes; raises ``NotFound``."""
        ...

    async def sign(self, paths: Sequence[str], *, expires_in: int) -> dict[str, str]:
        """URLs that work for ``expires_in`` seconds, for those of ``paths`` that exist, in one call."""
        ...

    async def delete(self, paths: Sequence[str]) -> None:
        """Remove files; those that do not exist are no error."""
        ...

    async def close(self) -> None:
        """Let go of what it holds; closing twice is fine."""
        ...


_EXTENSIONS = {"image/png": "png", "image/webp": "webp", "image/jpeg": "jpg"}


def image_path(user_id: str, content: bytes, content_type: str) -> str:
    """The content-addressed path of a picture; raises ``DataError`` for a type that is no picture."""
    extension = _EXTENSIONS.get(content_type)
    if extension is None:
        raise DataError(f"{content_type} is not one of {', '.join(_EXTENSIONS)}")
    return f"{user_id}/{hashlib.sha256(content).hexdigest()}.{extension}"


@dataclass(frozen=True, slots=True)
class UserImages:
    """The pictures of one user; another user's paths do not exist here."""

    store: ImageStore
    user_id: str

    async def put(self, content: bytes, content_type: str) -> StoredImage:
        """Store a picture under its content's address."""
        path = image_path(self.user_id, content, content_type)
        await self.store.put(path, content, content_type)
        return StoredImage(path, content_type, len(content))

    async def get(self, path: str) -> bytes:
        """The bytes; raises ``NotFound``, for another user's path as for a missing one."""
        self._own(path)
        return await self.store.get(path)

    def _own(self, path: str) -> None:
        if not path.startswith(f"{self.user_id}/"):
            raise NotFound("There is no such image.")
