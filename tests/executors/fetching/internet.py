"""An internet on this machine: one address that counts as public, and one that is inside."""

from __future__ import annotations

__all__ = ["INSIDE", "PUBLIC", "TRUST", "Internet", "Request", "plain"]

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from executors.fetching import Fetcher
from executors.fetching.addresses import Address, is_public

PUBLIC = ip_address("127.0.0.2")
INSIDE = ip_address("127.0.0.1")
TRUST = ssl.create_default_context()  # once: reading the system's certificates takes a while


def plain(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """An answer with its length."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(head).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


@dataclass(frozen=True, slots=True)
class Request:
    """What a server was asked."""

    target: str
    headers: dict[str, str]  #: names in lower case


Writing = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Internet:
    """A public server, a server inside that nobody may reach, and the names of both."""

    pages: dict[str, bytes | Writing] = field(default_factory=dict)
    names: dict[str, list[Address]] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)
    intruders: int = 0  #: connections to the server inside
    port: int = 0
    inside_port: int = 0

    async def lookup(self, host: str) -> list[Address]:
        """The system's resolver."""
        self.looked_up.append(host)
        await asyncio.sleep(0)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.names[host]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request at the public server."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            target = head[0].split()[1]
            self.asked.append(Request(target, {k.lower(): v for k, v in headers.items()}))
            page = self.pages.get(target, plain(b"", status="404 Not Found"))
            if isinstance(page, bytes):
                writer.write(page)
                await writer.drain()
            else:
                await page(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the fetcher has had enough
        finally:
            writer.close()

    async def intrude(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody is inside."""
        self.intruders += 1
        writer.write(plain(b"secret"))
        writer.close()

    def fetcher(
        self, *, http: bool = True, seconds: float = 20.0, tls: ssl.SSLContext = TRUST
    ) -> Fetcher:
        """A fetcher to which one address of this machine is public, on any port."""
        return Fetcher(
            http=http,
            seconds=seconds,
            allows=lambda address: is_public(address) or address == PUBLIC,
            ports=range(1, 65536),
            lookup=self.lookup,
            tls=tls,
        )

    def url(self, path: str = "/", host: str = "public.example", scheme: str = "http") -> str:
        """A URL at the public server."""
        return f"{scheme}://{host}:{self.port}{path}"
