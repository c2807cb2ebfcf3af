"""The ImageStore port on a folder: for `uvian demo`, `uvian dev`, and one machine with a disk.

A picture is written beside its path, flushed to the disk and renamed: a crash at any moment leaves
it whole or absent. Folders and files are opened one below the other without following links, so
that no link leads out of the folder, whenever it was made.
"""

from __future__ import annotations

__all__ = ["LocalImages"]

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlencode

from repositories.errors import NotFound, Unavailable
from repositories.images import (
    Register,
    StoredImage,
    address,
    is_image_path,
    missing,
    unregistered,
)
from repositories.local.errors import translated

T = TypeVar("T")

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A fifo in place of a file would block the open without an end.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalImages:
    """Pictures below ``root``, which is made when the first one comes.

    ``base_url`` is where a gateway serves them: then ``sign`` answers
    ``<base_url>/<path>?expires=<unix time>&signature=<HMAC-SHA256>``, which ``verify`` checks there
    with the same ``secret`` (at least 16 characters). Without it ``sign`` answers ``file:`` URLs,
    which work on this machine alone and do not expire.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        base_url: str | None = None,
        secret: str = "",
        max_bytes: int = 32 * 1024 * 1024,
        parallel: int = 8,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if base_url is not None and len(secret) < 16:
            raise ValueError("Signed URLs need a secret of at least 16 characters.")
        self._root = Path(root).absolute()
        self._base_url = None if base_url is None else base_url.rstrip("/")
        self._secret = secret.encode()
        self._max_bytes = max_bytes
        self._clock = clock
        self._device: int | None = None  #: of the folder, once something was stored or found in it
        # Threads of its own: waiting for a disk must not keep the image work waiting.
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="uvian-images")

    async def put(
        self,
        user_id: str,
        content: bytes,
        content_type: str,
        register: Register = unregistered,
    ) -> StoredImage:
        """Store a picture; see the port. Raises ``NotGranted`` and ``Unavailable`` of the disk."""
        stored = await self._in_thread(
            lambda: address(user_id, content, content_type, max_bytes=self._max_bytes)
        )
        await register(stored.path)
        await self._in_thread(lambda: self._put(stored, content))
        return stored

    async def get(self, path: str) -> bytes:
        """The bytes of a picture; see the port."""
        return await self._in_thread(lambda: self._get(path))

    async def chunk(self, path: str, offset: int, length: int) -> tuple[bytes, int]:
        """A part of a picture, and the size of all of it; raises as ``get`` does.

        For the gateway: a slow reader holds no file open, and no picture in memory.
        """
        return await self._in_thread(lambda: self._chunk(path, offset, length))

    async def sign(self, paths: Sequence[str], *, expires_in: int) -> dict[str, str]:
        """URLs by path; see the port."""
        existing = await self._in_thread(lambda: [path for path in paths if self._exists(path)])
        expires = str(int(self._clock()) + expires_in)
        return {path: self._url(path, expires) for path in existing}

    async def delete(self, paths: Sequence[str]) -> None:
        """Remove pictures; see the port."""
        await self._in_thread(lambda: self._delete(paths))

    async def close(self) -> None:
        """Finish what is under way; closing twice is fine."""
        await asyncio.to_thread(self._threads.shutdown)

    def verify(self, path: str, *, expires: str, signature: str) -> bool:
        """Whether ``sign`` made this URL and it has not expired: for the gateway that serves it."""
        if not self._secret:
            return False
        genuine = hmac.compare_digest(
            self._signature(path, expires).encode(), signature.encode(errors="replace")
        )
        return genuine and int(expires) >= self._clock()

    def _url(self, path: str, expires: str) -> str:
        if self._base_url is None:
            return (self._root / path).as_uri()
        query = urlencode({"expires": expires, "signature": self._signature(path, expires)})
        return f"{self._base_url}/{path}?{query}"

    def _signature(self, path: str, expires: str) -> str:
        message = f"{path}\n{expires}".encode(errors="replace")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _put(self, stored: StoredImage, content: bytes) -> None:
        folder, name = stored.path.split("/")
        with translated("written"), self._made_folder(folder) as directory:
            if _size(directory, name) != stored.size:  # missing, or cut short by a broken disk
                _write(directory, name, content)

    def _get(self, path: str) -> bytes:
        with (
            translated("read", absent=True),
            self._opened(path) as file,
            open(file, "rb", closefd=False) as reader,
        ):
            return reader.read()

    def _chunk(self, path: str, offset: int, length: int) -> tuple[bytes, int]:
        with (
            translated("read", absent=True),
            self._opened(path) as file,
            open(file, "rb", closefd=False) as reader,
        ):
            reader.seek(offset)
            return reader.read(length), os.fstat(file).st_size

    def _exists(self, path: str) -> bool:
        with contextlib.suppress(NotFound), translated("read", absent=True), self._opened(path):
            return True
        return False

    def _delete(self, paths: Sequence[str]) -> None:
        for path in filter(is_image_path, paths):
            folder, name = path.split("/")
            with (
                contextlib.suppress(NotFound),
                translated("removed", absent=True),
                self._folder(folder) as directory,
            ):
                os.unlink(name, dir_fd=directory)

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        if not is_image_path(path):
            raise missing()
        folder, name = path.split("/")
        with self._folder(folder) as directory, _descriptor(name, _READ, directory) as file:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise missing()
            yield file

    @contextlib.contextmanager
    def _folder(self, name: str) -> Iterator[int]:
        # The root itself may be a link: the operator made it.
        with self._opened_root() as root, _descriptor(name, _FOLDER, root) as folder:
            yield folder

    @contextlib.contextmanager
    def _opened_root(self) -> Iterator[int]:
        """The folder, and not the empty mount point of a drive that is not mounted.

        Its pictures are not missing then, and new ones would be written where nobody finds them.
        """
        try:
            with _descriptor(str(self._root), _FOLDER & ~os.O_NOFOLLOW) as root:
                device = os.fstat(root).st_dev
                if self._device not in (None, device) and _is_empty(root):
                    raise _gone()
                self._device = device
                yield root
        except FileNotFoundError as error:
            if self._device is not None and not self._root.exists():
                raise _gone() from error
            raise

    @contextlib.contextmanager
    def _made_folder(self, name: str) -> Iterator[int]:
        if self._device is None:  # afterwards a folder that is missing was not ours to make
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._opened_root() as root:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=root)
            with _descriptor(name, _FOLDER, root) as folder:
                yield folder


@contextlib.contextmanager
def _descriptor(name: str, flags: int, folder: int | None = None) -> Iterator[int]:
    opened = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        yield opened
    finally:
        os.close(opened)


def _size(folder: int, name: str) -> int | None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _write(folder: int, name: str, content: bytes) -> None:
    draft = f".{secrets.token_hex(8)}.tmp"
    try:
        with _descriptor(draft, _WRITE, folder) as file:
            with open(file, "wb", closefd=False) as writer:
                writer.write(content)
            os.fsync(file)
        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft, dir_fd=folder)
        raise
    os.fsync(folder)  # or a power failure could forget the name


def _is_empty(folder: int) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def _gone() -> Unavailable:
    return Unavailable(
        "The image folder is not where it was: is its drive mounted? Where it was removed on purpose, "
        "start the process again."
    )
