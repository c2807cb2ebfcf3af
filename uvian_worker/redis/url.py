"""Redis URLs, as platforms hand them out. No error message repeats a URL."""

from __future__ import annotations

__all__ = ["BadConnectionString", "readable"]

import re
from typing import Final

from uvian_common.dsn import BadConnectionString, Url, named_nearest, split_url

_UNREADABLE: Final = (
    "is no Redis URL: it reads redis://[user:password@]host:port/db, or rediss://… for TLS, with : / @ "
    "? and # of a password written as %3A %2F %40 %3F and %23"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Parameters in the query of a URL that redis-py reads, and that change nothing that this package needs.
_KNOWN: Final = _words(
    """client_name db health_check_interval max_connections password protocol socket_connect_timeout
    socket_keepalive socket_timeout username
    ssl_ca_certs ssl_ca_data ssl_cert_reqs ssl_certfile ssl_check_hostname ssl_ciphers ssl_keyfile"""
)
_NUMBERS: Final = _words(
    "db health_check_interval max_connections protocol socket_connect_timeout socket_timeout"
)
_LEFT_OUT: Final = frozenset(
    {"family", "retry_on_timeout"}
)  #: ioredis's; ours repeats commands itself
_REQUIREMENTS: Final = {"none", "optional", "required"}


def readable(text: str) -> str:
    """The URL as redis-py reads it, escaped where it has to be.

    Raises ``BadConnectionString``, whose message holds nothing of a password.
    """
    url = split_url(text, unreadable=_UNREADABLE)
    if url.scheme in ("http", "https"):
        raise BadConnectionString(
            "is a web address (of a REST API?): a Redis URL reads redis://[user:password@]host:port/db, "
            "or rediss://… for TLS"
        )
    if url.scheme not in ("redis", "rediss", "unix"):
        raise BadConnectionString(_UNREADABLE)
    if url.scheme != "unix" and not re.fullmatch(r"\d*/?", url.path):
        raise BadConnectionString("has a database that is no number: it reads redis://host:port/0")
    if url.scheme != "unix" and not _has_one_port(url.hosts):
        raise BadConnectionString(_UNREADABLE)
    query = [
        _checked(url.scheme, name, value) for name, value in url.query if name not in _LEFT_OUT
    ]
    return Url(url.scheme, url.user, url.password, url.hosts, url.path, tuple(query)).written()


def _has_one_port(hosts: str) -> bool:
    port = hosts.rpartition("]")[2].partition(":")[2]
    return "," not in hosts and (not port or (port.isdecimal() and int(port) < 65536))


def _checked(scheme: str, name: str, value: str) -> tuple[str, str]:
    if not re.fullmatch(r"[A-Za-z]\w{0,40}", name):
        raise BadConnectionString(_UNREADABLE)
    if name not in _KNOWN:
        raise BadConnectionString(
            f"has the parameter {name}, which is not known here: leave it out.{named_nearest(name, _KNOWN)}"
        )
    if name.startswith("ssl_") and scheme != "rediss":
        raise BadConnectionString(f"has {name}, which needs TLS: begin it with rediss://")
    if name in _NUMBERS and not re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        raise BadConnectionString(f"has a {name} that is no number")
    if name == "ssl_cert_reqs":
        value = value.lower().removeprefix("cert_")  # Celery's and Django's: CERT_NONE
        if value not in _REQUIREMENTS:
            raise BadConnectionString(
                "has an ssl_cert_reqs that is none of none, optional, required"
            )
    return name, value
