"""Which URLs may be fetched at all.

One parser reads them, the one that the HTTP client connects by: where two parsers disagree about
the host, one of them is deceived.
"""

from __future__ import annotations

__all__ = ["PORTS", "REFUSED", "Rules", "refused"]

import re
from collections.abc import Callable, Container
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from yarl import URL

from executors.errors import InvalidInput
from executors.fetching.addresses import Address, is_public

#: The one sentence for whatever is refused: which rule it was would describe our network.
REFUSED: Final = (
    "the address may not be fetched: give a public https address without a name or password in it"
)

PORTS: Final = frozenset({80, 443, 8080, 8443})

_LONGEST = 2048  # characters, as browsers and servers agree
#: At least two labels, none of them empty; the last one is no number in any notation.
_NAME: Final = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+"
    r"(?!(?:[0-9]+|0x[0-9a-f]*)$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
#: Even empty ones, which are lost in parsing.
_CREDENTIALS: Final = re.compile(r"[^/?#]*//[^/?#]*@")


def refused() -> InvalidInput:
    """The one error for whatever is refused."""
    return InvalidInput(REFUSED)


@dataclass(frozen=True, slots=True)
class Rules:
    """Which URLs may be fetched, before any name is looked up."""

    http: bool = False  #: whether http:// will do
    ports: Container[int] = PORTS
    allows: Callable[[Address], bool] = is_public

    def parse(self, url: str, base: URL | None = None) -> URL:
        """The URL to connect to (``base`` is where a redirect came from); raises ``InvalidInput``."""
        if len(url) > _LONGEST or not url.isprintable() or any(c in url for c in " \\"):
            raise refused()
        try:
            parsed = URL(url) if base is None else base.join(URL(url))
            port = parsed.port
        except ValueError:
            raise refused() from None
        if parsed.scheme not in ({"https", "http"} if self.http else {"https"}):
            raise refused()
        if _CREDENTIALS.match(url) or parsed.raw_user is not None or port not in self.ports:
            raise refused()
        return parsed.with_host(self._host(parsed.raw_host or "")).with_fragment(None)

    def _host(self, host: str) -> str:
        """A DNS name, or an address in its one canonical notation that may be connected to."""
        name = host.removesuffix(".")
        if _NAME.fullmatch(name):
            return name
        try:
            address = ip_address(host)
        except ValueError:
            raise refused() from None
        if not self.allows(address):
            raise refused()
        return str(address)
