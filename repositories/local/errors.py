"""What the errors of a disk are in this project's words."""

from __future__ import annotations

__all__ = ["translated"]

import contextlib
import errno
from collections.abc import Iterator
from typing import Final

from repositories.errors import Misconfigured, NotGranted, Unavailable
from repositories.images import missing

_ABSENT: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO}
# Only the operator can end these. All else passes: a disk that is full or read only for a while, a
# network drive that does not answer.
_DENIED: Final = {errno.EACCES, errno.EPERM}
_MISSHAPEN: Final = {errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG}


@contextlib.contextmanager
def translated(done: str, *, absent: bool = False) -> Iterator[None]:
    """The one place where the errors of the disk become ours; paths of the machine stay in the cause.

    ``absent`` is whether what is not there is a missing picture (and no fault of the disk).
    """
    try:
        yield
    except OSError as error:
        if absent and error.errno in _ABSENT:
            raise missing() from error
        if error.errno in _DENIED:
            raise NotGranted(
                f"Images may not be {done}: give the worker's user access to the image folder."
            ) from error
        if error.errno in _MISSHAPEN:
            raise Misconfigured(
                f"An image could not be {done}: {error.strerror}. Something else stands in the image "
                "folder where a user's folder belongs."
            ) from error
        raise Unavailable(
            f"An image could not be {done}: {error.strerror}. Look at the image folder's disk."
        ) from error
