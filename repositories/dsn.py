"""What a connection string says of the way to Postgres."""

from __future__ import annotations

__all__ = ["is_transaction_pool"]

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote

_TRANSACTION_POOL = "6543"  #: the port of Supabase's pooler in transaction mode


def is_transaction_pool(dsn: str) -> bool:
    """Whether one of its hosts is a pooler in transaction mode, which keeps no session.

    There LISTEN is heard by nobody and a session's locks exclude nobody.
    """
    return _TRANSACTION_POOL in _ports(dsn)


def _ports(dsn: str) -> Iterator[str]:
    """Every port that is named, as asyncpg and libpq read them: several hosts, or in the query."""
    authority = re.split("[/?#]", dsn.partition("://")[2], maxsplit=1)[0]
    query = parse_qs(dsn.partition("?")[2])
    hosts = unquote(authority.rpartition("@")[2])
    for host in ",".join([hosts, *query.get("host", ())]).split(","):
        yield host.rpartition("]")[2].rpartition(":")[2]  # an IPv6 address has colons of its own
    for ports in query.get("port", ()):
        yield from ports.split(",")
