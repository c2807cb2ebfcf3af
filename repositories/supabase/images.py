"""The ImageStore port over Supabase Storage: one private bucket, the first folder is the user."""

from __future__ import annotations

__all__ = ["BUCKET", "SupabaseImages"]

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import pydantic
from storage3.types import CreateOrUpdateBucketOptions, FileOptions

from repositories.errors import Conflict, DataError, Unavailable
from repositories.images import (
    Register,
    StoredImage,
    address,
    content_type_of,
    is_image_path,
    unregistered,
)
from repositories.supabase.client import Supabase

if TYPE_CHECKING:
    from storage3._async.file_api import AsyncBucketProxy  # it has no public name

T = TypeVar("T")

log = logging.getLogger("uvian.images")

BUCKET: Final = "uvian-images"

#: As ``functions/platform.sql`` makes it over a connection.
_AS_IT_SHOULD_BE: Final[CreateOrUpdateBucketOptions] = {
    "public": False,
    "file_size_limit": 32 * 1024 * 1024,
    "allowed_mime_types": ["image/png", "image/webp", "image/jpeg"],
}
_FOR_EVER: Final = "31536000"  #: seconds of cache: what is at an address never changes
_MANY: Final = 500  #: paths in one call
_DIGESTS: Final = 2  #: threads


class SupabaseImages:
    """Pictures in the bucket ``uvian-images``, at most ``parallel`` calls at a time.

    Every call may be repeated, and is when its reply is lost: what is stored at an address is the
    content the address names, so that a duplicate is a success. ``timeout`` is in seconds, for a call
    with its tries. ``supabase`` stays the caller's to close.
    """

    def __init__(
        self,
        supabase: Supabase,
        *,
        max_bytes: int = 32 * 1024 * 1024,
        parallel: int = 6,
        timeout: float = 60.0,
    ) -> None:
        self._supabase = supabase
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._calls = asyncio.Semaphore(parallel)
        # Threads of their own: an upload must not wait for the pictures that are being worked on.
        self._threads = ThreadPoolExecutor(_DIGESTS, thread_name_prefix="uvian-images")

    async def require_bucket(self) -> None:
        """Raise ``Misconfigured`` unless the bucket is there; say so when everybody may read it."""
        if await self._answer(self._is_public):
            log.warning(
                "the bucket %s is public: whoever knows a picture's path can read it. In the "
                "dashboard: Storage > %s > Edit bucket > Public bucket, off.",
                BUCKET,
                BUCKET,
            )

    async def make_bucket(self) -> None:
        """Make the bucket, private; one that is there is left as it is. Raises where Storage refuses."""
        storage = self._supabase.storage
        with contextlib.suppress(Conflict):
            await self._answer(lambda: storage.create_bucket(BUCKET, options=_AS_IT_SHOULD_BE))

    async def _is_public(self) -> bool:
        try:
            return (await self._supabase.storage.get_bucket(BUCKET)).public
        except pydantic.ValidationError:
            return False  # a bucket all the same, which this release of storage3 cannot read

    @property
    def _files(self) -> AsyncBucketProxy:
        """Made anew each time: its repr has the key in it, and monitors keep what variables hold."""
        return self._supabase.storage.from_(BUCKET)

    async def put(
        self,
        user_id: str,
        content: bytes,
        content_type: str,
        register: Register = unregistered,
    ) -> StoredImage:
        """Store a picture; see the port."""
        stored = await self._in_thread(
            lambda: address(user_id, content, content_type, max_bytes=self._max_bytes)
        )
        await register(stored.path)
        options: FileOptions = {"content-type": content_type, "cache-control": _FOR_EVER}
        with contextlib.suppress(Conflict):
            await self._answer(lambda: self._files.upload(stored.path, content, options))
        return stored

    async def get(self, path: str) -> bytes:
        """The bytes of a picture, which are those its address names; see the port."""
        content_type_of(path)
        content = await self._answer(lambda: self._downloaded(path))
        digest = await self._in_thread(lambda: hashlib.sha256(content).hexdigest())
        if digest not in path:
            raise DataError(f"What is stored at {path} is not what its address names.")
        return content

    async def sign(self, paths: Sequence[str], *, expires_in: int) -> dict[str, str]:
        """URLs by path; see the port."""
        urls: dict[str, str] = {}
        for some in _pages(paths):
            urls |= await self._answer(partial(self._signed, some, expires_in))
        return urls

    async def delete(self, paths: Sequence[str]) -> None:
        """Remove pictures; see the port."""
        for some in _pages(paths):
            await self._answer(partial(self._removed, some))

    async def close(self) -> None:
        """Finish what is under way; closing twice is fine."""
        await asyncio.to_thread(self._threads.shutdown)

    async def _downloaded(self, path: str) -> bytes:
        content = await self._files.download(path)
        if content.lstrip()[:1] in (b"<", b"{"):  # no picture begins so
            raise Unavailable(
                "Something else than Storage has answered: with a page, not a picture."
            )
        return content

    async def _signed(self, paths: list[str], expires_in: int) -> dict[str, str]:
        answers = await self._files.create_signed_urls(paths, expires_in)
        return {each["path"]: each["signedURL"] for each in answers if each["signedURL"]}

    async def _removed(self, paths: list[str]) -> None:
        await self._files.remove(paths)

    async def _answer(self, request: Callable[[], Awaitable[T]]) -> T:
        async def send() -> T:
            async with self._calls:
                try:
                    return await request()
                except (KeyError, TypeError) as error:
                    # The answer has not the form of Storage's: it is JSON of something in between.
                    raise Unavailable("Something else than Storage has answered.") from error

        return await self._supabase.call(send, timeout=self._timeout)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _pages(paths: Sequence[str]) -> Iterator[list[str]]:
    """What are paths at all, in lists that one call takes."""
    real = [path for path in paths if is_image_path(path)]
    for start in range(0, len(real), _MANY):
        yield real[start : start + _MANY]
