"""What an upload brings, and whether its bucket takes it."""

from __future__ import annotations

__all__ = ["Upload", "require_admitted", "require_key", "uploaded"]

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import BodyPartReader, web

from tests.supabase.objects import Bucket
from tests.supabase.storage_errors import StorageError

_KEY: Final = re.compile(r"[\w/!\-.*'() &$@=;:+,?]+", re.ASCII)
_GLOBAL_LIMIT: Final = 50 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way in."""

    content: bytes
    content_type: str
    cache_control: str

    @property
    def metadata(self) -> dict[str, Any]:
        """What ``storage.objects.metadata`` says of it."""
        size = len(self.content)
        digest = hashlib.md5(self.content, usedforsecurity=False).hexdigest()
        return {
            "eTag": f'"{digest}"',
            "size": size,
            "mimetype": self.content_type,
            "cacheControl": self.cache_control,
            "lastModified": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "contentLength": size,
            "httpStatusCode": 200,
        }


async def uploaded(request: web.BaseRequest) -> Upload:
    """The file of a request: as a form, which is how storage3 sends it, or as the body."""
    kind = request.headers.get("Content-Type", "application/octet-stream")
    if not kind.startswith("multipart/form-data"):
        return Upload(await request.read(), kind, request.headers.get("Cache-Control", "no-cache"))
    content, content_type, seconds = b"", "application/octet-stream", "3600"
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        if part.filename is not None:
            content = bytes(await part.read())
            content_type = part.headers.get("Content-Type", content_type)
        elif part.name == "cacheControl":
            seconds = await part.text()
    return Upload(content, content_type, f"max-age={seconds}")


def require_key(name: str) -> None:
    """The characters that S3 takes; dots and slashes lead nowhere, for no file is named so."""
    if not _KEY.fullmatch(name) or not name.strip("/"):
        raise StorageError(400, "InvalidKey", f"Invalid key: {name}")


def require_admitted(bucket: Bucket, upload: Upload) -> None:
    """The limits of the bucket, and of the project."""
    kind = upload.content_type.partition(";")[0].strip()
    allowed = bucket.allowed_mime_types
    if allowed and not any(_matches(kind, pattern) for pattern in allowed):
        raise StorageError(415, "invalid_mime_type", f"mime type {kind} is not supported")
    if len(upload.content) > min(bucket.file_size_limit or _GLOBAL_LIMIT, _GLOBAL_LIMIT):
        raise StorageError(413, "Payload too large", "The object exceeded the maximum allowed size")


def _matches(kind: str, pattern: str) -> bool:
    return kind == pattern or (pattern.endswith("/*") and kind.startswith(pattern[:-1]))
