"""The laboratory's server: what it was asked, when the asking ended, and what it breaks."""

from __future__ import annotations

__all__ = ["LAB_KEY", "Asked", "Exchange", "Handler", "Lab", "LabVendor"]

import asyncio
import json
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from aiohttp import web

from tests.executors.providers.lab import faults
from tests.executors.providers.lab.faults import Fault
from tests.executors.providers.lab.pictures import broken, painted

#: The key that every vendor here wants to see. Wherever it shows up in a log, it leaked.
LAB_KEY = "sk-lab-4e0dd2b7c1f94a53"

PAGE = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"

#: A model of this name does what the name says, for whoever has the laboratory open by hand.
BY_NAME: Mapping[str, Fault] = {
    "lab:slow": faults.Slow(5, after=0),
    "lab:paced": faults.Paced(0.02),
    "lab:silent": faults.Silence(),
    "lab:stall": faults.Silence(after=2),
    "lab:cut": faults.Cut(after=2),
    "lab:error-inside": faults.ErrorInside(after=2),
    "lab:rate-limited": faults.Status(429, "rate_limit_exceeded", headers={"Retry-After": "20"}),
    "lab:no-quota": faults.Status(429, "insufficient_quota"),
    "lab:down": faults.Status(503),
    "lab:html": faults.Html(502),
    "lab:no-end": faults.NoEnd(),
    "lab:broken-image": faults.BrokenImage(),
    "lab:bomb": faults.BrokenImage("bomb"),
    "lab:expired": faults.Expired(),
}


@dataclass(eq=False)
class Asked:
    """One request as it came in, and how it ended."""

    route: str  #: the vendor and what was asked of it: ``openai.chat``
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any  #: JSON, or a form's fields, or None
    at: float = field(default_factory=time.monotonic)
    fault: Fault | None = None
    closed_at: float | None = None  #: when the client went away before the answer was over
    over: asyncio.Event = field(default_factory=asyncio.Event)  #: answered, or the client is gone


Handler = Callable[["Exchange"], Awaitable[web.StreamResponse]]


class LabVendor(Protocol):
    """One vendor of the laboratory."""

    name: str

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Method, path, name and handler of all that can be asked."""
        ...

    def is_known(self, headers: Mapping[str, str]) -> bool:
        """Whether the request carries the right key, where this vendor wants it."""
        ...

    def error(self, fault: faults.Status) -> Any:
        """An error as this vendor words it."""
        ...

    def exports(self, url: str) -> Mapping[str, str]:
        """The settings that point a worker here."""
        ...


class Lab:
    """All vendors on one port of loopback. Scripts say what goes wrong; ``asked`` what came in."""

    def __init__(self, vendors: Sequence[Callable[[Lab], LabVendor]], *, port: int = 0) -> None:
        self.vendors = [vendor(self) for vendor in vendors]
        self.asked: list[Asked] = []
        self.on_asked: Callable[[Asked], None] = lambda _: None
        self._port = port
        self._scripts: dict[str, deque[Fault | None]] = {}
        self._forever: dict[str, Fault] = {}
        self._files: dict[str, tuple[bytes, str] | None] = {}
        self._runner: web.AppRunner | None = None
        self.closing = False

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/files/{name}", self._file)
        for vendor in self.vendors:
            for method, path, name, handler in vendor.routes():
                app.router.add_route(
                    method, path, self._handling(vendor, f"{vendor.name}.{name}", handler)
                )
        # A handler whose client has gone is cancelled: that is how we know when it went.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=0.05, access_log=None
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closing = True
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where it is; vendors have their paths below it."""
        return f"http://127.0.0.1:{self._port}"

    def script(self, *steps: Fault | None, key: str = "", forever: bool = False) -> None:
        """What happens to the requests to come, one after the other; None is a good answer.

        ``key`` chooses them: the header ``X-Lab-Script``, a model, a route (``openai.chat``), or all.
        With ``forever`` the last step is repeated, else good answers follow.
        """
        self._scripts[key] = deque(steps)
        self._forever.pop(key, None)
        if forever and (last := steps[-1]) is not None:
            self._forever[key] = last

    def keep_file(self, content: bytes, content_type: str, *, expired: bool = False) -> str:
        """The URL of a result."""
        name = f"{len(self._files)}"
        self._files[name] = None if expired else (content, content_type)
        return f"{self.url}/files/{name}"

    def picture(self, fault: Fault | None, width: int = 64, height: int = 64) -> bytes:
        """The picture that a model would make, or one as the fault says."""
        if isinstance(fault, faults.BrokenImage):
            return broken(fault.kind)
        return painted(width, height)

    async def until_asked(self, count: int, *, within: float = 30.0) -> Asked:
        """Wait until so many requests came in; the last of them."""
        async with asyncio.timeout(within):
            while len(self.asked) < count:
                await asyncio.sleep(0.002)
        return self.asked[count - 1]

    async def until_asked_for(self, route: str, *, within: float = 30.0) -> Asked:
        """Wait until this was asked; the first such request."""
        async with asyncio.timeout(within):
            while True:
                for asked in self.asked:
                    if asked.route == route:
                        return asked
                await asyncio.sleep(0.002)

    def _step(self, asked: Asked) -> Fault | None:
        model = asked.body.get("model", "") if isinstance(asked.body, dict) else ""
        if model in BY_NAME:
            return BY_NAME[model]
        for key in (asked.headers.get("X-Lab-Script", ""), model, asked.route, ""):
            if script := self._scripts.get(key):
                return script.popleft()
            if key in self._forever:
                return self._forever[key]
        return None

    def _handling(
        self, vendor: LabVendor, route: str, handler: Handler
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            asked = Asked(route, request.method, request.path, request.headers, None)
            self.asked.append(asked)
            try:
                asked.body = await _body(request)
                exchange = Exchange(self, vendor, request, asked)
                if not vendor.is_known(request.headers):
                    return await exchange.error(
                        faults.Status(401, "invalid_api_key", "Wrong key: sk-lab-************4a53")
                    )
                asked.fault = exchange.fault = self._step(asked)
                self.on_asked(asked)
                return await exchange.answered(handler)
            except (asyncio.CancelledError, ConnectionResetError):
                if not self.closing:
                    asked.closed_at = time.monotonic()
                raise
            finally:
                asked.over.set()

        return handle

    async def _file(self, request: web.Request) -> web.StreamResponse:
        asked = Asked("files", request.method, request.path, request.headers, None)
        self.asked.append(asked)
        found = self._files.get(request.match_info["name"])
        if found is None:
            return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")
        return web.Response(body=found[0], content_type=found[1])


class Exchange:
    """One request and its answer, which breaks where the fault says so."""

    def __init__(self, lab: Lab, vendor: LabVendor, request: web.Request, asked: Asked) -> None:
        self.lab = lab
        self.request = request
        self.asked = asked
        self.fault: Fault | None = None
        self._vendor = vendor

    @property
    def body(self) -> Any:
        """What was sent."""
        return self.asked.body

    async def answered(self, handler: Handler) -> web.StreamResponse:
        """The handler's answer, or the fault that comes before any."""
        match self.fault:
            case faults.Status():
                return await self.error(self.fault)
            case faults.Html(status, headers):
                return await self._send(PAGE, status, "text/html", headers)
            case faults.Endless(compressed):
                return await self._endless(compressed=compressed)
        await self._at(-1)
        return await handler(self)

    async def json(
        self, document: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        """Answer a document."""
        return await self._send(json.dumps(document).encode(), status, "application/json", headers)

    async def content(self, content: bytes, content_type: str) -> web.StreamResponse:
        """Answer bytes."""
        return await self._send(content, 200, content_type)

    async def error(self, fault: faults.Status) -> web.StreamResponse:
        """Answer an error in the vendor's words."""
        document = json.dumps(self._vendor.error(fault)).encode()
        return await self._send(document, fault.status, "application/json", fault.headers)

    async def stream(
        self,
        pieces: Sequence[bytes],
        *,
        head: Sequence[bytes] = (),
        tail: Sequence[bytes] = (),
        error: Callable[[faults.ErrorInside], bytes] = lambda _: b"",
        content_type: str = "text/event-stream",
    ) -> web.StreamResponse:
        """Answer piece by piece; ``head`` and ``tail`` are what is around the text."""
        response = web.StreamResponse(headers={"Content-Type": self._labelled(content_type)})
        response.enable_chunked_encoding()
        await response.prepare(self.request)
        for piece in head:
            await response.write(piece)
        for number, piece in enumerate([b"", *self._disordered(pieces, tail)]):
            if piece:
                await response.write(piece)
            await self._at(number)
            if isinstance(self.fault, faults.ErrorInside) and self.fault.after == number:
                await response.write(error(self.fault))
                return response
        if isinstance(self.fault, faults.Trailing):
            for piece in pieces:
                await response.write(piece)
        await response.write_eof()
        return response

    def _disordered(self, pieces: Sequence[bytes], tail: Sequence[bytes]) -> list[bytes]:
        match self.fault:
            case faults.Repeated():
                return [piece for piece in pieces for _ in range(2)] + list(tail)
            case faults.Shuffled():
                return [*pieces[:-2], *tail[:1], *pieces[-2:], *tail[1:]]
            case faults.NoEnd():
                return list(pieces)
        return [*pieces, *tail]

    async def _at(self, place: int) -> None:
        """Break here, if the fault says so."""
        match self.fault:
            case faults.Slow(seconds, after) if after == place:
                await asyncio.sleep(seconds)
            case faults.Paced(seconds) if place > 0:
                await asyncio.sleep(seconds)
            case faults.Silence(after) if after == place:
                await asyncio.Event().wait()
            case faults.Cut(after) if after == place:
                self._cut()

    def _cut(self) -> None:
        transport = self.request.transport
        if transport is not None:
            transport.close()  # what was written still goes out
        raise ConnectionResetError("cut, as scripted")

    def _labelled(self, content_type: str) -> str:
        if isinstance(self.fault, faults.Mislabelled):
            return self.fault.content_type
        return content_type

    async def _send(
        self,
        content: bytes,
        status: int,
        content_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            status=status, headers={**(headers or {}), "Content-Type": self._labelled(content_type)}
        )
        response.content_length = len(content)
        await response.prepare(self.request)
        half = len(content) // 2
        await self._at(0)
        await response.write(content[:half])
        await self._at(1)
        await response.write(content[half:])
        await response.write_eof()
        return response

    async def _endless(self, *, compressed: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        if compressed:
            response.headers["Content-Encoding"] = "gzip"
        compressor = zlib.compressobj(9, zlib.DEFLATED, 31)

        def squeezed(content: bytes) -> bytes:
            # Flushed: the compressor would keep gigabytes to itself, and we the loop.
            return compressor.compress(content) + compressor.flush(zlib.Z_SYNC_FLUSH)

        written = squeezed if compressed else bytes
        await response.prepare(self.request)
        await response.write(written(b'data: {"'))
        while True:
            await response.write(written(b"x" * 65536))
            await asyncio.sleep(0)


async def _body(request: web.Request) -> Any:
    if request.content_type.startswith("multipart/"):
        form = await request.post()
        return {
            name: (value.filename, value.content_type, value.file.read())
            if isinstance(value, web.FileField)
            else value
            for name, value in form.items()
        }
    content = await request.read()
    if request.content_type.startswith("image/"):
        return content
    return json.loads(content) if content else None
