"""Which addresses are public: everything in the registries that is not, and what hides inside.

Of IPv4 the special blocks are listed; of IPv6 only what is allocated for the public at all, without
its special blocks. The tables are ours because ``ipaddress.is_global`` answers differently from one
release of Python to the next.

Sources: IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890), RFC 6052 (NAT64).
"""

from __future__ import annotations

__all__ = ["Address", "is_public"]

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

_NOT_PUBLIC: Final = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers; a cloud has its metadata at 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # looks public, and is the host of every Azure machine
        "169.254.0.0/16",  # link-local; most clouds have their metadata at 169.254.169.254
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; a cloud has its metadata at 192.0.0.192
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

_ALLOCATED: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries any IPv4 address
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)

#: An IPv4 address in the last 32 bits: as a dual-stack socket writes it, and as DNS64 answers it
#: where a machine has IPv6 alone. All other ways to write one inside the other are given up ones.
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether anybody on the internet could reach this address, and would reach the same machine."""
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _NOT_PUBLIC)
    if address.scope_id is not None:
        return False
    if address in _MAPPED or address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _ALLOCATED and not any(address in block for block in _NOT_PUBLIC_6)
