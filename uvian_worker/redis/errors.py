"""What the errors of Redis mean: the one classification, for every place that uses Redis.

A Redis that does not answer at all is the simple case. A Redis that was demoted, is full, cannot save,
loads its data, is busy with a script or has no connection left does answer, but it carries out nothing.
A proxy before it accepts connections and closes them. All of these are ``RedisAway``: wait, then repeat.

There is no list of the states in which Redis is away. There is a list of the errors that blame the
command; every other error is a state of the server, also one whose name is not known here.
"""

from __future__ import annotations

__all__ = [
    "EXPECTS_TLS",
    "FAULTS",
    "RedisAway",
    "RedisDenied",
    "RedisRefuses",
    "RedisState",
    "RedisUnusable",
    "away_of_error",
    "away_of_failure",
    "away_of_reply",
]

import logging
import math
import os
import re
import ssl
import time
from collections.abc import Mapping
from typing import Final

from redis import exceptions

log = logging.getLogger("uvian.redis")

#: All that a call to Redis may raise, for code that continues without Redis.
FAULTS: Final[tuple[type[Exception], ...]] = (exceptions.RedisError, OSError)

#: Codes of replies that blame the command, or the key that it names.
_OF_THE_COMMAND: Final = frozenset(
    {
        "BUSYGROUP",
        "BUSYKEY",
        "CROSSSLOT",
        "ERR",
        "EXECABORT",
        "INVALIDOBJ",
        "NOGROUP",
        "NOPROTO",
        "NOSCRIPT",
        "NOTBUSY",
        "SYNTAX",
        "WRONGTYPE",
    }
)
_NO_PASSWORD: Final = "NOPASSWORD"  # noqa: S105 - our name for a state without a code
_MAX_CLIENTS: Final = "MAXCLIENTS"
_GONE: Final = "GONE"
_UPSTREAM: Final = "UPSTREAM"
_TLS: Final = "TLS"

#: The words of a state in the log and in ``/health/ready``; they follow "Redis at <host>:<port>".
_WORDS: Final[Mapping[str, str]] = {
    "ASK": "is a Redis Cluster, which is not supported (ASK)",
    "BUSY": "is busy with a script (BUSY)",
    "CLUSTERDOWN": "is a cluster that is down (CLUSTERDOWN)",
    "LOADING": "is loading its data (LOADING)",
    "MASTERDOWN": "is a replica whose master is gone (MASTERDOWN)",
    "MISCONF": "cannot save its data and takes no writes (MISCONF)",
    "MOVED": "is a Redis Cluster, which is not supported (MOVED)",
    "NOAUTH": "wants a password (NOAUTH)",
    "NOREPLICAS": "has too few replicas and takes no writes (NOREPLICAS)",
    "OOM": "is full and takes no writes (OOM, maxmemory is reached)",
    "READONLY": "is a read-only replica (READONLY)",
    "TRYAGAIN": "is being resharded (TRYAGAIN)",
    "UNKILLABLE": "is busy with a script (BUSY)",
    "WRONGPASS": "refuses this user or password (WRONGPASS)",
    _MAX_CLIENTS: "has no connection left (maxclients is reached)",
    _NO_PASSWORD: "has no password, and the URL gives one",
    _UPSTREAM: "is behind a proxy that does not reach it",
}
#: Another name of the same state. UNBLOCKED ends a blocking read when the server becomes a replica.
_SAME: Final = {"UNBLOCKED": "READONLY", "UNKILLABLE": "BUSY", "ASK": "MOVED"}
#: Only a change of settings ends these states, so a process that starts does not wait for them.
_SETTINGS: Final = frozenset(
    {"MOVED", "NOAUTH", "NOPERM", "REFUSED", "WRONGPASS", _NO_PASSWORD, _TLS}
)

#: Words and code of a server that expects TLS where the URL does not.
EXPECTS_TLS: Final = ("expects TLS: write rediss:// instead of redis:// in its URL", _TLS)

_CODE: Final = re.compile(r"-?([A-Z][A-Z0-9_]+)(?=[ :,.]|$)")
#: Where the error of a command begins inside the error of a script (6.2, then 7) or of a transaction.
_ENCLOSED: Final = re.compile(r"(?:@?user_script: ?\d+: |because of: )+")
#: The words of an ACL inside a script of Redis 6.2, without a code.
_NO_PERMISSION: Final = re.compile(
    r"The user executing the script can't|ACL failure in script|this user has no permissions|"
    r"No permissions to access|has no permissions to run",
    re.IGNORECASE,
)
#: Errors of Redis and of proxies before it (twemproxy, Envoy, predixy) that have no code.
_UNCODED: Final = (
    (
        re.compile(r"max number of clients|max(imum)? (concurrent )?connections", re.IGNORECASE),
        _MAX_CLIENTS,
    ),
    (re.compile(r"AUTH.*(without any password|no password is set)", re.IGNORECASE), _NO_PASSWORD),
    (re.compile(r"invalid (username-)?password|invalid username", re.IGNORECASE), "WRONGPASS"),
    (
        re.compile(
            r"connection (refused|timed out|reset|closed)|host is down|no server connection|"
            r"no (healthy )?upstream|upstream (failure|protocol error)|broken pipe|no route to host",
            re.IGNORECASE,
        ),
        _UPSTREAM,
    ),
)


#: The codes that redis-py removes from errors for which it has classes.
_CODE_OF_CLASS: Final[Mapping[type[Exception], str]] = {
    exceptions.ExecAbortError: "EXECABORT",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
}


class RedisAway(Exception):
    """Redis does not serve this process at the moment. Whether it carried out the call is not known.

    ``code`` names the state; ``words`` follow "Redis at <host>:<port>" in a sentence.
    """

    def __init__(self, words: str, code: str = _GONE) -> None:
        super().__init__(words)
        self.code = code
        self.words = words

    @property
    def passes(self) -> bool:
        """Whether the state may end by itself; if not, only a change of settings ends it."""
        return self.code not in _SETTINGS

    @property
    def is_gone(self) -> bool:
        """Whether there was no answer, or none in the protocol of Redis."""
        return self.code == _GONE


class RedisUnusable(RedisAway, exceptions.ConnectionError):
    """Redis is away, and the connection cannot be used any more. redis-py sees a broken connection."""


class RedisDenied(RedisAway, exceptions.NoPermissionError):
    """Redis serves other users, and does not allow this user a command, key or channel."""


class RedisRefuses(RedisAway, exceptions.ResponseError):
    """Redis blames the command of a caller that can only wait, as arq's loop: a key has a wrong type."""


def away_of_reply(text: str) -> RedisAway | None:
    """The state of the server that an error reply means; None if the reply blames the command."""
    if _NO_PERMISSION.search(text):
        return RedisDenied(f"does not allow it: {_end_of(text)}", "NOPERM")
    code = _code_of(text)
    if code == "NOPERM":
        return RedisDenied(f"does not allow it: {_end_of(text)}", code)
    if code in _OF_THE_COMMAND:
        code = next((found for pattern, found in _UNCODED if pattern.search(text)), "")
    if not code:
        return None
    code = _SAME.get(code, code)
    return RedisUnusable(_WORDS.get(code, f"cannot serve: {text[:120]}"), code)


def away_of_failure(error: BaseException, *, has_answered: bool) -> RedisAway:
    """What it means that a connection broke, timed out or could not be opened.

    ``has_answered``: Redis has answered on this connection before.
    """
    if isinstance(error, RedisAway):
        return error
    code = _TLS if _is_about_tls(error) else _GONE
    return RedisUnusable(_words_of_failure(error, has_answered=has_answered), code)


def away_of_error(error: BaseException) -> RedisAway | None:
    """What an error means that a client of another maker raised, untranslated; None for a refusal."""
    match error:
        case RedisAway():
            return error
        case exceptions.ResponseError():
            code = _CODE_OF_CLASS.get(type(error))
            return away_of_reply(f"{code} {error}" if code else str(error))
        case exceptions.DataError():
            return None
        case exceptions.RedisError() | OSError() | RuntimeError():
            return away_of_failure(error, has_answered=True)
        case _:
            return None


class RedisState:
    """Whether Redis serves this process; a change is logged once.

    Reads may work while writes are refused: so only a write that was carried out ends an outage.
    """

    _REPEAT_SECONDS = 60.0  # until the same refusal is logged again
    _MOMENT = 0.25  # seconds of an outage that are not worth a line in the log

    def __init__(self, *, logs: bool = True) -> None:
        self._logs = logs
        self._away: RedisAway | None = None
        self._since = 0.0
        self._served_since = -math.inf
        self._logged: set[str] = set()  #: codes, in this outage
        self._refused: dict[str, float] = {}
        self._denied: tuple[RedisAway, float] | None = None

    @property
    def away(self) -> RedisAway | None:
        """Why Redis does not serve this process, as far as is known; None while it does."""
        return self._away

    @property
    def serves_for(self) -> float:
        """Seconds since the last outage; infinite if there was none, 0 during one."""
        return 0.0 if self._away is not None else time.monotonic() - self._served_since

    @property
    def denied(self) -> RedisAway | None:
        """What Redis has denied or refused in the last minute, though it serves this process."""
        if self._denied is None or time.monotonic() - self._denied[1] > self._REPEAT_SECONDS:
            return None
        return self._denied[0]

    def note(self, error: RedisAway, where: str) -> None:
        """Record that Redis did not serve a call; log it when the state is new."""
        if isinstance(error, RedisDenied | RedisRefuses):
            self._denied = error, time.monotonic()
            self.refused(error, where)
            return
        now = time.monotonic()
        if self._away is None:
            self._since = now
        self._away = error
        if error.is_gone and now - self._since < self._MOMENT:
            return  # a connection that broke, and was opened again at once
        if error.code not in self._logged:
            self._logged.add(error.code)
            if self._logs:
                log.warning("Redis at %s %s; jobs and events wait until it is back", where, error)

    def works(self) -> None:
        """Record that Redis has carried out a write: an outage is over."""
        if self._away is not None:
            if self._logs and self._logged:
                log.info("Redis is back after %.1f s", time.monotonic() - self._since)
            self._away = None
            self._served_since = time.monotonic()
            self._logged.clear()

    def refused(self, error: BaseException, where: str) -> None:
        """Log that Redis blames a command: a permission is missing, or a key has a wrong type."""
        now, text = time.monotonic(), str(error)
        if now - self._refused.get(text, -math.inf) >= self._REPEAT_SECONDS:
            self._refused = {text: now} | dict(list(self._refused.items())[:20])
            if self._logs:
                log.error("Redis at %s %s", where, text)


def _code_of(text: str) -> str:
    """The code of an error reply; of the enclosed error if it is that of a script or a transaction."""
    head = _CODE.match(text)
    code = head[1] if head else "ERR"
    if code not in ("ERR", "EXECABORT") and not text.startswith("user_script"):
        return code
    last = None
    for last in _ENCLOSED.finditer(text):  # noqa: B007 - the innermost is the last
        pass
    inner = _CODE.match(text, last.end()) if last else None
    return inner[1] if inner else "ERR"


def _end_of(text: str) -> str:
    """The sentence about permissions, without the position in the script."""
    found = _NO_PERMISSION.search(text)
    start = max(text.rfind(": ", 0, found.start()) + 2, 0) if found else 0
    sentence = text[start if start > 1 else 0 :]
    return sentence.removeprefix("NOPERM ").removeprefix("-NOPERM ").strip()[:160]


def _is_about_tls(error: BaseException) -> bool:
    """Whether only one side expects TLS, or a certificate is not accepted.

    A handshake that breaks off does not tell: the server may be restarting.
    """
    match error:
        case exceptions.InvalidResponse():
            return "\\x15" in str(error) or "\x15" in str(error)
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return False
        case _:
            return isinstance(error, ssl.SSLError)


def _words_of_failure(error: BaseException, *, has_answered: bool) -> str:  # noqa: PLR0911 - a table
    match error:
        case exceptions.InvalidResponse() if _is_about_tls(error):
            return EXPECTS_TLS[0]
        case exceptions.InvalidResponse():
            return "does not speak Redis' protocol"
        case ssl.SSLCertVerificationError():
            return f"has a certificate that is not accepted: {error.verify_message}"
        case ssl.SSLError():
            return f"does not accept our TLS ({error.reason}); without TLS its URL begins with redis://"
        case exceptions.TimeoutError() | TimeoutError():
            return "does not answer"
        case OSError():
            # The text of asyncio has the address, which the caller's sentence has already.
            number = error.errno or 0
            return f"is not reachable ({os.strerror(number) if number > 0 else error.strerror or error})"
        case exceptions.ConnectionError() if not has_answered:
            return (
                "closes connections without an answer; "
                "if it expects TLS, its URL begins with rediss://"
            )
        case exceptions.ConnectionError():
            return "has closed the connection"
        case _:
            return f"is not reachable: the connection broke ({type(error).__name__})"
