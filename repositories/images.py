"""The ImageStore port: pictures in, signed URLs out, content-addressed.

``repositories.local`` implements it on a folder, ``repositories.supabase`` over Storage. Both pass
``tests/contracts/image_store.py``.

A path is ``<user id>/<sha256 of the content>.<extension>``, and nothing else is a path: whatever
does not have this form (``..``, ``//``, ``%2f``, a backslash, U+0000, another first element) is
answered like a picture that is not there. The store makes the paths itself, so a picture cannot be
stored under another's address; storing it again is free, and a retried job may do so.
"""

from __future__ import annotations

__all__ = [
    "CONTENT_TYPES",
    "ImageStore",
    "Register",
    "StoredImage",
    "UserImages",
    "address",
    "content_type_of",
    "is_image_path",
    "missing",
    "unregistered",
]

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from repositories.errors import DataError, NotFound, PictureRefused
from repositories.outages import NoRetries, StoreRetries

#: What may be stored, with the extension of its paths.
CONTENT_TYPES: Final[Mapping[str, str]] = {
    "image/png": "png",
    "image/webp": "webp",
    "image/jpeg": "jpg",
}
_TYPES: Final = {extension: kind for kind, extension in CONTENT_TYPES.items()}

#: Lower case alone: two spellings would be one file on some systems, and two on others.
_USER: Final = re.compile(r"[0-9a-z][0-9a-z-]{0,63}")
_PATH: Final = re.compile(rf"{_USER.pattern}/[0-9a-f]{{64}}\.(?P<extension>{'|'.join(_TYPES)})")


Register = Callable[[str], Awaitable[None]]


async def unregistered(_: str) -> None:
    """For files that no job stores."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """Where a picture is stored: ``path`` is ``<user id>/<sha256 of the content>.<extension>``."""

    path: str
    content_type: str
    size: int  #: bytes


class ImageStore(Protocol):
    """Files of all users, in one private bucket.

    Raises only errors of ``repositories.errors``. Work is off the event loop, and as many calls may
    be made at a time as there are pictures: the store keeps its own bound.
    """

    async def put(
        self,
        user_id: str,
        content: bytes,
        content_type: str,
        register: Register = unregistered,
    ) -> StoredImage:
        """Store a picture at its address; what is there already is a success and not written again.

        ``register`` is called with the path before anything is written, so no file is without a row.
        The picture is there as a whole or not at all. Raises ``DataError`` for a type that is not in
        ``CONTENT_TYPES``, an empty content, or more bytes than the store allows.
        """
        ...

    async def get(self, path: str) -> bytes:
        """The bytes; raises ``NotFound``."""
        ...

    async def sign(self, paths: Sequence[str], *, expires_in: int) -> dict[str, str]:
        """URLs that work for ``expires_in`` seconds, by path, for those of ``paths`` that exist."""
        ...

    async def delete(self, paths: Sequence[str]) -> None:
        """Remove pictures; those that do not exist are no error."""
        ...

    async def close(self) -> None:
        """Release connections and threads; closing twice is fine."""
        ...


@dataclass(frozen=True, slots=True)
class UserImages:
    """The pictures of one user: another user's are not found here.

    With ``retries`` a store that is away is waited for, until the run is stopped.
    """

    store: ImageStore
    user_id: str
    retries: StoreRetries = field(default_factory=NoRetries)
    register: Register = unregistered  #: called with each path before it is stored

    def require_store(self) -> None:
        """Raise ``StoreAway`` where the store is known to be away: before anything is paid for."""
        self.retries.outage.require()

    async def put(self, content: bytes, content_type: str) -> StoredImage:
        """Store a picture under its content's address; see the port."""
        return await self.retries.call(
            lambda: self.store.put(self.user_id, content, content_type, self.register)
        )

    async def put_many(self, pictures: Sequence[tuple[bytes, str]]) -> list[StoredImage]:
        """Store pictures (content, content type) in parallel; the answers are in their order.

        When one fails, all have been tried before its error is raised: what was stored is whole.
        """
        puts = (self.put(content, content_type) for content, content_type in pictures)
        answers = await asyncio.gather(*puts, return_exceptions=True)
        stored = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            stored.append(answer)
        return stored

    async def get_stored(self, path: str) -> bytes:
        """The bytes of what an earlier run has stored, for a result that will name it; as ``get``.

        It is registered as if it were stored anew: a removal that has begun meanwhile is waited for,
        and one that has not does not begin.
        """
        if self._is_own(path):
            await self.register(path)
        return await self.get(path)

    async def get(self, path: str) -> bytes:
        """The bytes; raises ``NotFound``, for another user's path as for a missing one."""
        if not self._is_own(path):
            raise missing()
        return await self.retries.call(lambda: self.store.get(path))

    async def sign(self, paths: Sequence[str], *, expires_in: int) -> dict[str, str]:
        """URLs by path, for those of ``paths`` that exist and are this user's."""
        own = [path for path in paths if self._is_own(path)]
        if not own:
            return {}
        return await self.retries.call(lambda: self.store.sign(own, expires_in=expires_in))

    def _is_own(self, path: str) -> bool:
        return is_image_path(path) and path.partition("/")[0] == self.user_id


def address(user_id: str, content: bytes, content_type: str, *, max_bytes: int) -> StoredImage:
    """Where a picture belongs. Reads all of it: for a thread, not for the event loop.

    Raises ``DataError`` for what may not be stored (see ``ImageStore.put``).
    """
    extension = CONTENT_TYPES.get(content_type)
    if extension is None:
        raise DataError(f"{content_type!r} is not one of {', '.join(CONTENT_TYPES)}.")
    if not content:
        raise DataError("The picture is empty.")
    if len(content) > max_bytes:
        raise PictureRefused(
            f"The picture has {len(content)} bytes; at most {max_bytes} are stored."
        )
    if not _USER.fullmatch(user_id):
        raise DataError("The user's id is not one.")
    path = f"{user_id}/{hashlib.sha256(content).hexdigest()}.{extension}"
    return StoredImage(path, content_type, len(content))


def is_image_path(path: str) -> bool:
    """Whether a store could have made this path."""
    return _PATH.fullmatch(path) is not None


def content_type_of(path: str) -> str:
    """The content type that a path says; raises ``NotFound`` for what is none."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise missing()
    return _TYPES[match["extension"]]


def missing() -> NotFound:
    """The one answer for a picture that is missing, another user's, or no path at all."""
    return NotFound("There is no such image.")
