"""The one way out: look up, check, connect to what was checked, read within limits."""

from __future__ import annotations

__all__ = ["Fetcher", "Lookup"]

import asyncio
import errno
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Container
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, ip_address
from typing import Any, Final, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from executors.errors import InvalidInput, NotFound, ProviderUnavailable
from executors.fetching.addresses import Address, is_public
from executors.fetching.urls import PORTS, Rules, refused

Lookup: TypeAlias = Callable[[str], Awaitable[list[Address]]]
"""The addresses of a name; raises ``socket.gaierror``."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 5
_COME_AGAIN: Final = frozenset({408, 425, 429})
_INFLATE: Final = {"gzip", "x-gzip", "deflate"}
_EITHER_HEADER: Final = 32 + zlib.MAX_WBITS  # gzip or zlib, as the data says


class Fetcher:
    """Reads what is at a URL that a user or a vendor gave.

    Nothing is fetched from an address that is not public: every redirect and every answer of DNS is
    checked, the connection goes to the very address that was checked, and nothing of ours goes with
    the request: no cookie, no referrer, no credential, no proxy of the environment. Make it inside
    of a running event loop.
    """

    def __init__(
        self,
        *,
        http: bool = False,
        seconds: float = 20.0,
        allows: Callable[[Address], bool] = is_public,
        ports: Container[int] = PORTS,
        lookup: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``seconds`` is for everything from the first lookup to the last byte.

        The others are for tests, which have no public server: no setting leads to them.
        """
        self._rules = Rules(http=http, ports=ports, allows=allows)
        self._seconds = seconds
        # A lookup cannot be cancelled: one that hangs must not hold a thread that pictures need.
        self._lookups = ThreadPoolExecutor(8, thread_name_prefix="uvian-dns")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_CheckedResolver(lookup or self._look_up, allows),
                ssl=tls or ssl.create_default_context(),
                socket_factory=lambda info: _checked_socket(info, allows),
                use_dns_cache=False,
                force_close=True,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=10.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "uvian-worker", "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
        )

    async def fetch(self, url: str, *, max_bytes: int) -> bytes:
        """What is at ``url``.

        Raises ``InvalidInput`` for what may not be fetched, is too large or refuses us, ``NotFound``
        where nothing is, ``ProviderUnavailable`` for a server that is away, broken or too slow.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(self._rules.parse(url), max_bytes)
        except TimeoutError:
            raise ProviderUnavailable("the server of the address takes too long") from None
        except aiohttp.ClientSSLError as error:
            raise InvalidInput("the server of the address has no valid certificate") from error
        except aiohttp.InvalidURL as error:
            raise refused() from error
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.EACCES:
                raise refused() from error
            raise ProviderUnavailable("the server of the address cannot be reached") from error

    async def close(self) -> None:
        """Close what is open; closing twice is fine."""
        await self._session.close()
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, host: str) -> list[Address]:
        found = await asyncio.get_running_loop().run_in_executor(self._lookups, _addresses, host)
        return [ip_address(address) for address in found]

    async def _follow(self, url: URL, max_bytes: int) -> bytes:
        for _ in range(_MOST_REDIRECTS + 1):
            # Redirects are followed here: the client would follow them past the rules.
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    _check_status(response.status)
                    return await _content(response, max_bytes)
                url = self._rules.parse(response.headers.get("Location", ""), base=url)
        raise InvalidInput("the address leads from one to another without an end")


class _CheckedResolver(AbstractResolver):
    """Resolves to the addresses that were checked: the name is not looked up a second time."""

    def __init__(self, lookup: Lookup, allows: Callable[[Address], bool]) -> None:
        self._lookup = lookup
        self._allows = allows

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            addresses = await self._lookup(host)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise ProviderUnavailable("the address cannot be looked up") from error
            # The user may not learn which names exist in this network, and which do not.
            raise refused() from error
        # One that is not public among them is enough: such an answer is no accident.
        if not addresses or not all(map(self._allows, addresses)):
            raise refused()
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=_family(address),
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """It holds nothing that must be closed."""


def _addresses(host: str) -> list[str]:
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(info[4][0]) for info in infos]


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6


def _checked_socket(info: tuple[Any, ...], allows: Callable[[Address], bool]) -> socket.socket:
    """The last gate, right before connecting: whatever the client above has made of a URL."""
    family, kind, protocol, _, target = info
    if not allows(ip_address(target[0])):
        raise PermissionError(errno.EACCES, "not a public address")
    return socket.socket(family, kind, protocol)


def _check_status(status: int) -> None:
    if status == 200:
        return
    if status in (404, 410):
        raise NotFound("there is nothing at the address")
    if status >= 500 or status in _COME_AGAIN:
        raise ProviderUnavailable(f"the server of the address answers with status {status}")
    raise InvalidInput(f"the server of the address refuses with status {status}")


async def _content(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The body, never more than ``max_bytes`` of it in memory, compressed or not."""
    if (response.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in _INFLATE:
        return await _inflated(response.content, max_bytes)
    if encoding != "identity":
        raise InvalidInput("the server of the address compresses in a way that was not asked for")
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(content)


async def _inflated(stream: aiohttp.StreamReader, max_bytes: int) -> bytes:
    inflate = zlib.decompressobj(wbits=_EITHER_HEADER)
    content = bytearray()
    try:
        async for chunk in stream.iter_any():
            content += inflate.decompress(chunk, max_bytes + 1 - len(content))
            if len(content) > max_bytes:
                raise _too_large(max_bytes)
            if inflate.eof:
                break
    except zlib.error as error:
        raise ProviderUnavailable("the server of the address answers with damaged data") from error
    if not inflate.eof:
        raise ProviderUnavailable("the server of the address answers with half a file")
    return bytes(content)


def _too_large(max_bytes: int) -> InvalidInput:
    return InvalidInput(f"the file at the address is larger than {max_bytes:,} bytes")
