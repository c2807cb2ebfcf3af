"""The names in the environment and in ``.env``: which are settings, which are unknown, which are others'.

Kubernetes and ``docker --link`` put the address of every service into the environment of every
container. For a Service called ``uvian-gateway`` that is ``UVIAN_GATEWAY_PORT=tcp://10.96.12.7:8787``
and six more variables. They are no settings, and no typing errors.
"""

from __future__ import annotations

__all__ = [
    "PREFIX",
    "UnknownSetting",
    "displaced",
    "is_service_variable",
    "require_known",
    "unquoted",
]

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from dotenv.parser import parse_stream

PREFIX: Final = "UVIAN_"

_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://\S+:\d+", re.IGNORECASE)
_BY_NAME: Final = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$"
)
_LINKED: Final = re.compile(
    r"/[\w.-]+/[\w.-]+"
)  #: what docker --link writes for a name: /web/redis


class UnknownSetting(ValueError):
    """A name that is no setting, or a file that cannot be read; the message has the next step."""


def is_service_variable(name: str, value: str, environ: Mapping[str, str]) -> bool:
    """Whether Kubernetes or ``docker --link`` wrote it, for a service with a name that begins like ours."""
    name = f"_{name.upper()}"
    if _BY_NAME.search(name):
        return True
    if name.endswith("_PORT"):
        return _ADDRESS.fullmatch(value.strip()) is not None
    if name.endswith("_NAME"):
        return _LINKED.fullmatch(value.strip()) is not None
    link, found, _ = name[1:].partition("_ENV_")  # the variables of the container that was linked
    return bool(found and _LINKED.fullmatch(environ.get(f"{link}_NAME", "")))


def displaced(environ: Mapping[str, str], known: Collection[str]) -> list[str]:
    """Settings whose names the variables of a service have: for these the environment does not count."""
    names = (name for name in environ if name.upper() in known)
    return sorted(name for name in names if is_service_variable(name, environ[name], environ))


def require_known(
    environ: Mapping[str, str], files: Sequence[Path], known: Collection[str]
) -> None:
    """Raise ``UnknownSetting`` for a name with our prefix that is not in ``known``.

    pydantic-settings ignores what it does not know, so a typing error would pass in silence.
    """
    for name, value in environ.items():
        if not is_service_variable(name, value, environ):
            _require(name, known)
    for file in files:
        for name, line in _names_in(file):
            _require(name, known, f" ({file}, line {line})")


def unquoted(value: str) -> str:
    """A value without the spaces, the line's end and the pair of quotes around it."""
    value = value.strip()
    quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value


def _require(name: str, known: Collection[str], where: str = "") -> None:
    if not name.upper().startswith(PREFIX) or name.upper() in known:
        return
    nearest = difflib.get_close_matches(name.upper(), known, n=1)
    hint = f" Did you mean {nearest[0]}?" if nearest else " See .env.example for all of them."
    raise UnknownSetting(f"There is no setting {name}{where}.{hint}")


def _names_in(file: Path) -> list[tuple[str, int]]:
    """The names that a file sets, each with its line."""
    if not file.is_file():
        return []
    try:
        with file.open(encoding="utf-8-sig") as lines:
            found = list(parse_stream(lines))
    except UnicodeDecodeError as error:
        raise UnknownSetting(
            f"{file} is not UTF-8 (PowerShell writes UTF-16): save it so."
        ) from error
    except OSError as error:
        raise UnknownSetting(f"{file} cannot be read: {error.strerror}.") from error
    for each in found:
        if each.error:  # never the line itself: it may hold a secret
            raise UnknownSetting(
                f"{file}, line {each.original.line}, cannot be read: a line is NAME=value, with a quote "
                "at both ends or at none."
            )
    return [(each.key, each.original.line) for each in found if each.key]
