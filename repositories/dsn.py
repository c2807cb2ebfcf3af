"""What a connection string says of the way to Postgres."""

from __future__ import annotations

__all__ = ["UNREADABLE", "is_readable", "is_transaction_pool"]

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qs, unquote

#: What to say of one, without the string: it holds a password.
UNREADABLE: Final = (
    "is no connection string: it reads postgresql://user:password@host:5432/name, "
    "with : / @ ? and # of a password written as %3A %2F %40 %3F and %23"
)

_TRANSACTION_POOL = "6543"  #: the port of Supabase's pooler in transaction mode


def is_transaction_pool(dsn: str) -> bool:
    """Whether one of its hosts is a pooler in transaction mode, which keeps no session.

    There LISTEN is heard by nobody and a session's locks exclude nobody.
    """
    return _TRANSACTION_POOL in _ports(dsn)


def is_readable(dsn: str) -> bool:
    """Whether its scheme and ports are what they should be; the rest is for Postgres to judge."""
    scheme, marks, _ = dsn.partition("://")
    named = all(_is_port(port) for port in _ports(dsn))
    return bool(marks) and scheme in {"postgres", "postgresql"} and named


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdecimal() and int(text) < 65536)


def _ports(dsn: str) -> Iterator[str]:
    """Every port that is named, as asyncpg and libpq read them: several hosts, or in the query."""
    authority = re.split("[/?#]", dsn.partition("://")[2], maxsplit=1)[0]
    query = parse_qs(dsn.partition("?")[2])
    hosts = unquote(authority.rpartition("@")[2]).split(",")
    more = ",".join(query.get("host", ())).split(",")
    for host in [*hosts, *(host for host in more if not host.startswith("/"))]:  # a socket's folder
        yield host.rpartition("]")[2].partition(":")[2]  # an IPv6 address has colons of its own
    for ports in query.get("port", ()):
        yield from ports.split(",")
