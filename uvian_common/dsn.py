"""What a connection string says: read as platforms hand it out, and never repeated in an error.

Supabase, Vercel, Neon, Prisma and others put into it what their own drivers understand. Whatever
asyncpg does not know it would send to the server as a setting, which refuses the connection.
"""

from __future__ import annotations

__all__ = [
    "UNREADABLE",
    "BadConnectionString",
    "ConnectionString",
    "Url",
    "is_transaction_pool",
    "named_nearest",
    "read",
    "split_url",
]

import difflib
import ipaddress
import os
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode


class BadConnectionString(ValueError):
    """It cannot be used; the message says why and what to write, and holds nothing of a password."""


#: What to say of one, without the string: it holds a password.
UNREADABLE: Final = (
    "is no connection string: it reads postgresql://user:password@host:5432/name, "
    "with : / @ ? and # of a password written as %3A %2F %40 %3F and %23"
)

_TRANSACTION_POOL: Final = "6543"  #: the port of Supabase's pooler in transaction mode


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: libpq's parameters that asyncpg knows, and settings of a session that any Postgres has.
_PASSED_ON: Final = _words(
    """host port user password dbname database passfile service
    sslmode sslrootcert sslcert sslkey sslcrl sslpassword sslnegotiation
    ssl_min_protocol_version ssl_max_protocol_version target_session_attrs krbsrvname gsslib
    application_name options search_path statement_timeout lock_timeout
    idle_in_transaction_session_timeout idle_session_timeout timezone datestyle intervalstyle
    client_min_messages default_transaction_isolation jit work_mem"""
)
#: For other drivers, poolers and ORMs: what they ask for has a setting of its own here, or is so anyway.
_LEFT_OUT: Final = _words(
    """channel_binding client_encoding connect_timeout connection_limit fallback_application_name
    gssencmode gssdelegation keepalives keepalives_count keepalives_idle keepalives_interval
    load_balance_hosts max_idle_connection_lifetime max_pool_size min_pool_size pgbouncer pool_max_conns
    pool_max_conn_idle_time pool_max_conn_lifetime pool_min_conns pool_mode pool_size pool_timeout
    prepare_threshold preparethreshold prepared_statement_cache_size prepared_statements
    schema single_use_connections socket_timeout sockettimeout sslaccept sslcertmode sslcompression sslsni
    statement_cache_size supa tcp_user_timeout tcpkeepalive uselibpqcompat workaround
    default_query_exec_mode binary_parameters"""
)
#: Values that this driver does not support, and what to write instead.
_UNSUPPORTED: Final = {
    "gssencmode": ("require", "use TLS: sslmode=verify-full"),
    "sslcertmode": ("require", "leave it out"),
    "sslaccept": ("strict", "write sslmode=verify-full"),
}
_INSTEAD: Final = {
    "hostaddr": "give the address as the host",
    "currentschema": "leave it out: everything is in the schema uvian",
    "ssl": "write sslmode=require, or sslmode=verify-full",
    "tls": "write sslmode=require, or sslmode=verify-full",
    "require_auth": "leave it out",
    "requirepeer": "leave it out",
    "requiressl": "write sslmode=require",
    "replication": "leave it out",
}
_MODES: Final = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": (
        "any",
        "primary",
        "standby",
        "read-write",
        "read-only",
        "prefer-standby",
    ),
    "sslnegotiation": ("postgres", "direct"),
}
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_OTHERS_SPELLING: Final = {"no-verify": "require"}  # node-postgres: encrypted, nothing checked
_PARAMETER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,40}")
_PLACEHOLDER: Final = re.compile(
    r"\[.*\]|<.*>|\{.*\}|\$\{.*\}|%5B(YOUR-)?PASSWORD%5D", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of a URL with a password, decoded; ``hosts`` as they are written."""

    scheme: str
    user: str
    password: str
    hosts: str
    path: str  #: without its first slash
    query: tuple[tuple[str, str], ...]

    def written(self) -> str:
        """As every parser reads it: whatever was not escaped is."""
        user, password = quote(self.user, safe=""), quote(self.password, safe="")
        login = f"{user}:{password}@" if password else f"{user}@" if user else ""
        path = f"/{quote(self.path)}" if self.path else ""
        query = f"?{urlencode(self.query, quote_via=quote, safe='/,:')}" if self.query else ""
        return f"{self.scheme}://{login}{self.hosts}{path}{query}"


def split_url(text: str, *, unreadable: str) -> Url:
    """The parts; raises ``BadConnectionString``, with the sentence ``unreadable`` where nothing is clear.

    Strict where a guess could take part of a password for something else: an address, a name, a
    parameter, all of which are shown in errors and logs.
    """
    scheme, marks, rest = text.strip().partition("://")
    authority, tail = re.match(r"([^/?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    if not marks or not scheme or re.search(r"[@#\s]", tail) or re.search(r"[\s]", scheme):
        raise BadConnectionString(unreadable)
    login, _, hosts = authority.rpartition("@")
    user, _, password = login.partition(":")
    if _PLACEHOLDER.fullmatch(password) or _PLACEHOLDER.search(user):
        raise BadConnectionString(
            "has brackets left: what the dashboard shows as [YOUR-PASSWORD] is replaced together with "
            "its brackets (those of a password itself are written as %5B and %5D)"
        )
    if not all(_is_host(host) for host in unquote(hosts).split(",")):
        raise BadConnectionString(unreadable)
    path, _, query = tail.partition("?")
    return Url(
        scheme.lower(),
        unquote(user),
        unquote(password),
        hosts,
        unquote(path.removeprefix("/")),
        tuple(parse_qsl(query, keep_blank_values=True)),
    )


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """One that can be used."""

    url: Url
    notes: tuple[str, ...] = ()  #: what it asks for and does not get, as sentences

    @property
    def text(self) -> str:
        """The string, escaped where it has to be; to read it again changes nothing."""
        return self.url.written()

    @property
    def is_transaction_pool(self) -> bool:
        """Whether it leads to a pooler in transaction mode, which has no sessions.

        There LISTEN receives nothing, and the locks of a session exclude nobody.
        """
        options = {name.lower(): value.lower() for name, value in self.url.query}
        return (
            _TRANSACTION_POOL in _ports(self.url)
            or options.get("pgbouncer") in ("true", "1")
            or options.get("pool_mode") == "transaction"
            or bool(re.search(r"-pooler\.[\w.-]*neon\.tech", self.url.hosts))
        )

    def arguments(self, timeout: float) -> dict[str, Any]:
        """What asyncpg is given; ``timeout`` is of connecting, unless the string asks for less.

        Raises ``BadConnectionString`` for a file that it names and that cannot be read.
        """
        options = dict(self.url.query)
        known = {name: value for name, value in options.items() if name.lower() in _PASSED_ON}
        seconds = float(options.get("connect_timeout") or 0)
        found: dict[str, Any] = {"timeout": min(timeout, seconds) if seconds > 0 else timeout}
        if known.get("sslrootcert") == "system":  # libpq's word for the certificates of the machine
            del known["sslrootcert"]
            found["ssl"] = ssl.create_default_context()
        elif options.get("sslmode") in ("verify-ca", "verify-full") and not _has_root(known):
            raise BadConnectionString(
                f"asks for sslmode={options['sslmode']} and names no certificate: add sslrootcert=<file> (in "
                "Supabase: Database > Settings > SSL), or sslrootcert=system"
            )
        for name in known.keys() & set(_FILES):
            file = Path(known[name]).expanduser()
            if not file.is_file():
                raise BadConnectionString(f"names a file in {name} that is not there")
            known[name] = str(file)
        if "application_name" not in known and "fallback_application_name" in options:
            known["application_name"] = options["fallback_application_name"]
        url = self.url
        clean = Url("postgresql", url.user, url.password, url.hosts, url.path, tuple(known.items()))
        return {"dsn": clean.written(), **found}


def read(text: str) -> ConnectionString:
    """Read a connection string; raises ``BadConnectionString``, whose message names the parameter."""
    url = split_url(text, unreadable=UNREADABLE)
    scheme = url.scheme.partition("+")[0]  # SQLAlchemy's: postgresql+asyncpg
    if scheme not in ("postgres", "postgresql") or url.scheme == "prisma+postgres":
        raise BadConnectionString(_of_another_scheme(url.scheme))
    if not all(_is_port(port) for port in _ports(url)):
        raise BadConnectionString(UNREADABLE)
    query = tuple(_checked(name, value) for name, value in url.query)
    notes = tuple(
        "channel_binding=require is left out, which this driver does not know; sslmode=verify-full "
        "protects as well"
        for name, value in query
        if (name.lower(), value) == ("channel_binding", "require")
    )
    return ConnectionString(Url(scheme, url.user, url.password, url.hosts, url.path, query), notes)


def is_transaction_pool(dsn: str) -> bool:
    """Whether it leads to a pooler in transaction mode. What cannot be read is for others to refuse."""
    try:
        return read(dsn).is_transaction_pool
    except BadConnectionString:
        return False


def named_nearest(name: str, known: Iterable[str]) -> str:
    """A question that helps whoever has mistyped a name, or nothing."""
    nearest = difflib.get_close_matches(name.lower(), sorted(known), n=1)
    return f" Did you mean {nearest[0]}?" if nearest else ""


def _of_another_scheme(scheme: str) -> str:
    if scheme in ("http", "https"):
        return (
            "is a web address: a project's belongs into UVIAN_SUPABASE_URL; its connection string is "
            "under Connect in the dashboard"
        )
    if scheme.startswith("prisma"):
        return "leads to a service of Prisma's: give the connection string of the database itself"
    return UNREADABLE


def _checked(name: str, value: str) -> tuple[str, str]:
    """A parameter as asyncpg spells it."""
    plain = name.lower()
    if not _PARAMETER.fullmatch(name):
        raise BadConnectionString(UNREADABLE)
    if plain == "ssl" and value in (*_MODES["sslmode"], "no-verify", "false"):
        plain, name, value = "sslmode", "sslmode", "disable" if value == "false" else value
    if plain in _INSTEAD:
        raise BadConnectionString(f"has the parameter {name}: {_INSTEAD[plain]}")
    if _UNSUPPORTED.get(plain, ("",))[0] == value.lower() != "":
        raise BadConnectionString(f"asks for {name}={value}: {_UNSUPPORTED[plain][1]}")
    if plain not in _PASSED_ON | _LEFT_OUT and "." not in name:
        raise BadConnectionString(
            f"has the parameter {name}, which is not known here: leave it out, or write a setting of "
            f"the server as options=-c%20{name}%3Dvalue.{named_nearest(name, _PASSED_ON)}"
        )
    value = _OTHERS_SPELLING.get(value, value) if plain == "sslmode" else value
    if value not in _MODES.get(plain, (value,)):
        raise BadConnectionString(f"has a {name} that is none of {', '.join(_MODES[plain])}")
    if plain == "connect_timeout" and not re.fullmatch(r"\d{0,6}(\.\d+)?", value):
        raise BadConnectionString("has a connect_timeout that is no number of seconds")
    return (plain if plain in _PASSED_ON | _LEFT_OUT else name), value


def _is_host(text: str) -> bool:
    """Whether a host, with its port, is written as one: ``h:5432``, ``[::1]:5432``, or nothing."""
    if not text.startswith("["):
        return not re.search(r"[\[\]<>{}$@\s]", text) and text.count(":") <= 1
    address, bracket, port = text[1:].partition("]")
    try:
        ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return False
    return bool(bracket) and (not port or port.startswith(":"))


def _has_root(known: Mapping[str, str]) -> bool:
    standard = os.environ.get("PGSSLROOTCERT") or Path("~/.postgresql/root.crt").expanduser()
    return "sslrootcert" in known or Path(standard).is_file()


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdecimal() and int(text) < 65536)


def _ports(url: Url) -> Iterator[str]:
    """Every port that is named, as asyncpg and libpq read them: several hosts, or in the query."""
    query = dict(url.query)
    more = query.get("host", "").split(",")
    hosts = [*unquote(url.hosts).split(","), *(host for host in more if not host.startswith("/"))]
    for host in hosts:
        yield host.rpartition("]")[2].partition(":")[2]  # an IPv6 address has colons of its own
    yield from query.get("port", "").split(",")
