"""The ImageStore port: pictures in, signed URLs out, content-addressed.

``repositories.local_images`` keeps it on a folder; Supabase Storage follows. Both pass
``tests/contracts/image_store.py``.
"""

from __future__ import annotations

__all__ = ["ImageStore", "StoredImage", "UserImages", "image_path"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


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

    async def close(self) -> None: ...
