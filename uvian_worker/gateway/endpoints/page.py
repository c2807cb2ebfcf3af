"""The page at ``/``: the files of ``web/``, read once, and nothing else that lies on the disk."""

from __future__ import annotations

__all__ = ["Page"]

import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from aiohttp import web

_FOLDER: Final = Path(__file__).parents[1] / "web"
_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_TEXT: Final = ("text/", "application/json", "image/svg")


class Page:
    """The page's files with their headers. ``pictures_from`` are other origins that pictures have."""

    def __init__(self, *, pictures_from: tuple[str, ...] = (), folder: Path = _FOLDER) -> None:
        self._policy = _policy(pictures_from)
        self._files = {
            _path(file, folder): file for file in sorted(folder.rglob("*")) if _is_ours(file)
        }

    def routes(self) -> Iterator[web.RouteDef]:
        """One route per file: what is not there cannot be requested."""
        for path, file in self._files.items():
            yield web.get(path, _handler(file.read_bytes(), self._headers(file)))

    def _headers(self, file: Path) -> dict[str, str]:
        kind = _TYPES[file.suffix]
        return {
            "Content-Type": f"{kind}; charset=utf-8" if kind.startswith(_TEXT) else kind,
            "Cache-Control": "no-cache",  # requested each time; an unchanged file costs a header
            "Content-Security-Policy": self._policy,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        }


def _policy(pictures_from: tuple[str, ...]) -> str:
    """Scripts and styles are files of ours: what somebody writes into a page does not run."""
    pictures = " ".join(("'self'", "blob:", "data:", *pictures_from))
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "font-src 'self'",
            f"img-src {pictures}",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _is_ours(file: Path) -> bool:
    return file.is_file() and file.suffix in _TYPES


def _path(file: Path, folder: Path) -> str:
    return "/" if file == folder / "index.html" else f"/{file.relative_to(folder).as_posix()}"


def _handler(content: bytes, headers: Mapping[str, str]) -> Handler:
    etag = hashlib.sha256(content).hexdigest()[:32]

    async def handle(request: web.Request) -> web.Response:
        known = request.if_none_match or ()
        if any(tag.value in (etag, "*") for tag in known):
            response = web.Response(status=304, headers=_without_type(headers))
        else:
            response = web.Response(body=content, headers=headers)
        response.etag = etag
        return response

    return handle


def _without_type(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name != "Content-Type"}
