"""Where a request comes from: the other end of its connection, or what a proxy of ours says of it."""

from __future__ import annotations

__all__ = ["Addresses", "counted"]

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from aiohttp import web

_Address = IPv4Address | IPv6Address


class Addresses:
    """``proxies`` are networks whose word is taken. Everybody else's ``X-Forwarded-For`` means nothing."""

    def __init__(self, proxies: Iterable[str]) -> None:
        self._proxies = [ip_network(network, strict=False) for network in proxies]

    def of(self, request: web.BaseRequest) -> str | None:
        """The client's, as it is counted; None where a proxy does not say."""
        peer = peer_of(request.get_extra_info("peername"))
        if peer is not None and not self._is_proxy(peer):
            return counted(peer)
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ()))
        # From the right: what stands on the left anybody may have written.
        for text in reversed(forwarded.split(",")):
            address = _parsed(text)
            if address is None:
                return None
            if not self._is_proxy(address):
                return counted(address)
        return None

    def of_peer(self, peername: Any) -> str | None:
        """The other end of a connection, as it is counted; None for a proxy, which speaks for many."""
        peer = peer_of(peername)
        return None if peer is None or self._is_proxy(peer) else counted(peer)

    def _is_proxy(self, address: _Address) -> bool:
        return any(
            address.version == network.version and address in network for network in self._proxies
        )


def peer_of(peername: Any) -> _Address | None:
    """The address in what a socket says of its other end; None for a socket in a file."""
    return _parsed(str(peername[0])) if isinstance(peername, (tuple, list)) and peername else None


def counted(address: _Address) -> str:
    """Under which it is counted: of IPv6 one customer has at least 2^64."""
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address)


def _parsed(text: str) -> _Address | None:
    """``203.0.113.7``, ``203.0.113.7:4711``, ``2001:db8::1``, ``[2001:db8::1]:4711``."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # On a socket for both families IPv4 looks like ::ffff:203.0.113.7.
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
