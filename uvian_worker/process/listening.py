"""Ports that a process listens on."""

from __future__ import annotations

__all__ = ["listeners"]

import errno
import logging
import socket
from typing import Final

log = logging.getLogger("uvian.listening")

_BACKLOG: Final = 1024  #: connections that wait to be accepted
_NO_IPV6: Final = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


def listeners(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at ``host``, all on one port; 0 picks a free one. Raises ``OSError``.

    ``::`` is every address of IPv6 and IPv4, whatever the default of the system is.
    """
    if host == "::":
        try:
            return [_listener(socket.AF_INET6, (host, port))]
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
            log.warning("This system has no IPv6: %s stands for 0.0.0.0", host)
            host = "0.0.0.0"  # noqa: S104 - what was asked for
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    opened: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((info[0], info[4]) for info in found):
            chosen = opened[0].getsockname()[1] if opened else port
            try:
                opened.append(_listener(family, (address[0], chosen, *address[2:])))
            except OSError as error:  # `localhost` is ::1 as well, also where there is no IPv6
                if error.errno not in _NO_IPV6 or family != socket.AF_INET6 or len(found) == 1:
                    raise
    except BaseException:
        for each in opened:
            each.close()
        raise
    return opened


def _listener(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
