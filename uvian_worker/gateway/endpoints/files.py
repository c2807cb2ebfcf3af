"""Pictures by addresses that work for a while: Supabase Storage signs its own, we those of a folder."""

from __future__ import annotations

__all__ = ["LIFETIME", "FileEndpoints", "FolderFiles", "signed"]

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import Field

from repositories.database import Database
from repositories.errors import NotFound, Unavailable
from repositories.files import FileRepository
from repositories.images import ImageStore, UserImages, content_type_of
from repositories.local import LocalImages
from uvian_worker.gateway.http.operations import (
    Answer,
    Endpoints,
    Operation,
    Parameters,
    Request,
    Shown,
)
from uvian_worker.gateway.http.problems import Problem

log = logging.getLogger("uvian.gateway")

_PIECE: Final = 128 * 1024  #: bytes of a picture that are in memory for one client
LIFETIME: Final = 600  #: seconds that an address works, unless the request says otherwise


class Sign(Parameters):
    """Paths of your pictures, as rows and events have them."""

    paths: Annotated[
        list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=100)
    ]
    expires_in: Annotated[int, Field(ge=60, le=3600)] = LIFETIME


class SignedFiles(Shown):
    """An address per path. What is missing, or another's, or belongs to no result, is left out."""

    urls: dict[str, str]
    expires_at: datetime


class FileEndpoints(Endpoints, tag="files"):
    """The handler. A path of somebody else gets no address."""

    def __init__(self, database: Database, images: ImageStore) -> None:
        self._files = FileRepository(database)
        self._images = images

    @Operation(
        "signFiles", "POST", "/v1/files/sign", body=Sign, reads=True, answers={200: SignedFiles}
    )
    async def sign(self, request: Request[Any, Any, Sign]) -> Answer:
        """URLs of your pictures that work without a token, for a limited time."""
        expires_in = request.body.expires_in
        expires_at = datetime.fromtimestamp(int(time.time()) + expires_in, UTC)
        # What a job has stored that was not charged for is nobody's, also before it has been removed.
        paths = await self._files.served(request.user.id, request.body.paths)
        urls = await signed(self._images, request.user.id, paths, expires_in=expires_in)
        return Answer(SignedFiles(urls=dict(urls), expires_at=expires_at))


async def signed(
    images: ImageStore, user_id: str, paths: Sequence[str], *, expires_in: int = LIFETIME
) -> Mapping[str, str]:
    """Addresses by path, of those that exist and are this user's."""
    own = UserImages(images, user_id)
    urls = await own.sign(list(dict.fromkeys(paths)), expires_in=expires_in)
    # A folder that nobody serves has paths of this machine, which are nobody's business.
    return {path: url for path, url in urls.items() if not url.startswith("file:")}


class FolderFiles:
    """``GET /v1/files/<path>?expires&signature``: the local folder, for whoever has a signed address."""

    def __init__(self, images: LocalImages) -> None:
        self._images = images

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One picture."""
        path = "{user_id}/{name}".format_map(request.match_info)
        expires = request.query.get("expires", "")
        signature = request.query.get("signature", "")
        if not self._images.verify(path, expires=expires, signature=signature):
            raise Problem(
                "forbidden", "The address was not signed, or has expired: request another."
            )
        left = max(0, int(expires) - int(time.time()))
        piece, size = await self._images.chunk(path, 0, _PIECE)
        response = web.StreamResponse(
            headers={
                "Cache-Control": f"private, max-age={left}, immutable",
                "Content-Type": content_type_of(path),
                "Content-Length": str(size),
            }
        )
        await response.prepare(request)
        if request.method != "HEAD":
            await self._send(response, request, path, piece, size)
        return response

    async def _send(
        self, response: web.StreamResponse, request: web.Request, path: str, piece: bytes, size: int
    ) -> None:
        """Piece by piece, as the client reads: its connection is looked after by ``connections``."""
        sent = 0
        try:
            while piece:
                await response.write(piece)
                sent += len(piece)
                if sent >= size:
                    return
                piece, _ = await self._images.chunk(path, sent, _PIECE)
        except (NotFound, Unavailable) as error:  # in the middle: it cannot be answered otherwise
            log.warning("A picture was not sent whole: %s", error)
        if request.transport is not None:
            request.transport.abort()
