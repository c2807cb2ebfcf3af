"""What a Redis says and does that cannot serve us at the moment: one classification, for every seam.

A Redis that is gone is the simple case. One that was demoted, is full, cannot save, loads its data,
is busy with a script or has no connection left answers, and carries out nothing; a proxy before it
accepts connections and closes them. All of that is ``RedisAway``, and waiting is the answer to it.

The rule is the other way round than a list of faults: an error that does not blame the command is
the server's own state, whether we have ever seen its name or not.
"""

from __future__ import annotations

__all__ = [
    "FAULTS",
    "SPEAKS_TLS",
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

#: All that a call to Redis may raise, for whoever goes on without it.
FAULTS: Final[tuple[type[Exception], ...]] = (exceptions.RedisError, OSError)

#: Codes of replies that blame the command, or what it names.
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
_NO_PASSWORD: Final = "NOPASSWORD"  # noqa: S105 - our name for what has no code
_FULL_HOUSE: Final = "MAXCLIENTS"
_GONE: Final = "GONE"
_UPSTREAM: Final = "UPSTREAM"
_TLS: Final = "TLS"

#: What a state is called in a log and by ``/health/ready``; it follows "Redis at <host>:<port>".
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
    _FULL_HOUSE: "has no connection left (maxclients is reached)",
    _NO_PASSWORD: "has no password, and the URL gives one",
    _UPSTREAM: "is behind a proxy that does not reach it",
}
#: Another name of the same state: a blocked read is ended by what the next command meets.
_SAME: Final = {"UNBLOCKED": "READONLY", "UNKILLABLE": "BUSY", "ASK": "MOVED"}
#: Only settings mend these: nobody waits for them who has never seen this Redis work.
_SETTINGS: Final = frozenset(
    {"MOVED", "NOAUTH", "NOPERM", "REFUSED", "WRONGPASS", _NO_PASSWORD, _TLS}
)

#: Words and code of one that expects TLS where we do not speak it.
SPEAKS_TLS: Final = ("speaks TLS: write rediss:// instead of redis:// in its URL", _TLS)

_CODE: Final = re.compile(r"-?([A-Z][A-Z0-9_]+)(?=[ :,.]|$)")
#: Where the error of a command begins that a script (6.2, then 7) or a transaction hands on.
_HANDED_ON: Final = re.compile(r"(?:@?user_script: ?\d+: |because of: )+")
#: What ACLs say inside a script of 6.2, which has no code.
_NO_RIGHTS: Final = re.compile(
    r"The user executing the script can't|ACL failure in script|this user has no permissions|"
    r"No permissions to access|has no permissions to run",
    re.IGNORECASE,
)
#: What Redis and the proxies before it (twemproxy, Envoy, predixy) say without a code of its own.
_UNCODED: Final = (
    (
        re.compile(r"max number of clients|max(imum)? (concurrent )?connections", re.IGNORECASE),
        _FULL_HOUSE,
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


#: redis-py takes the codes off those that it has classes for.
_CODE_OF_CLASS: Final[Mapping[type[Exception], str]] = {
    exceptions.ExecAbortError: "EXECABORT",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
}


class RedisAway(Exception):
    """Redis does not serve us at the moment. Whether it carried out the call is not known.

    ``code`` names the state, ``words`` follow "Redis at <host>:<port>" in a sentence.
    """

    def __init__(self, words: str, code: str = _GONE) -> None:
        super().__init__(words)
        self.code = code
        self.words = words

    @property
    def passes(self) -> bool:
        """Whether it may pass without anybody's doing; else only settings mend it."""
        return self.code not in _SETTINGS

    @property
    def is_gone(self) -> bool:
        """Whether nobody has answered, or nobody who speaks as Redis does."""
        return self.code == _GONE


class RedisUnusable(RedisAway, exceptions.ConnectionError):
    """… and the connection is of no more use. redis-py knows it as a broken connection."""


class RedisDenied(RedisAway, exceptions.NoPermissionError):
    """Redis serves others, and does not allow this user this command, key or channel."""


class RedisRefuses(RedisAway, exceptions.ResponseError):
    """Redis blames the command, and whoever gave it can only wait: somebody has spoiled a key."""


def away_of_reply(text: str) -> RedisAway | None:
    """What an error reply says of the server; None for one that blames the command."""
    if _NO_RIGHTS.search(text):
        return RedisDenied(f"does not allow it: {_end_of(text)}", "NOPERM")
    code = _code_of(text)
    if code == "NOPERM":
        return RedisDenied(f"does not allow it: {_end_of(text)}", code)
    if code in _OF_THE_COMMAND:
        code = next((found for pattern, found in _UNCODED if pattern.search(text)), "")
    if not code:
        return None
    code = _SAME.get(code, code)
    return RedisUnusable(_WORDS.get(code, f"cannot serve us: {text[:120]}"), code)


def away_of_failure(error: BaseException, *, greeted: bool) -> RedisAway:
    """What it means that a connection broke, timed out or could not be made.

    ``greeted``: Redis has answered on this connection before.
    """
    if isinstance(error, RedisAway):
        return error
    code = _TLS if _is_about_tls(error) else _GONE
    return RedisUnusable(_words_of_failure(error, greeted=greeted), code)


def away_of_error(error: BaseException) -> RedisAway | None:
    """The same for an error of a client that others made, which translates nothing; None for a refusal."""
    match error:
        case RedisAway():
            return error
        case exceptions.ResponseError():
            code = _CODE_OF_CLASS.get(type(error))
            return away_of_reply(f"{code} {error}" if code else str(error))
        case exceptions.DataError():
            return None
        case exceptions.RedisError() | OSError() | RuntimeError():
            return away_of_failure(error, greeted=True)
        case _:
            return None


class RedisState:
    """What a process knows of its Redis, and says: one line when it changes.

    Reads may work while writes are refused: only a write that was carried out ends a state.
    """

    _SELDOM = 60.0
    _MOMENT = 0.25

    def __init__(self, *, speaks: bool = True) -> None:
        self._speaks = speaks
        self._away: RedisAway | None = None
        self._since = 0.0
        self._served_since = -math.inf
        self._said: set[str] = set()
        self._refused: dict[str, float] = {}
        self._denied: tuple[RedisAway, float] | None = None

    @property
    def away(self) -> RedisAway | None:
        """Why Redis does not serve us, as far as we know; None while it does."""
        return self._away

    @property
    def serves_for(self) -> float:
        """Seconds for which it has served us without a break; infinite when there was none."""
        return 0.0 if self._away is not None else time.monotonic() - self._served_since

    @property
    def denied(self) -> RedisAway | None:
        """What it has not allowed us or has refused of late, though it serves us otherwise."""
        if self._denied is None or time.monotonic() - self._denied[1] > self._SELDOM:
            return None
        return self._denied[0]

    def note(self, error: RedisAway, where: str) -> None:
        """Redis did not serve us."""
        if isinstance(error, RedisDenied | RedisRefuses):
            self._denied = error, time.monotonic()
            self.refused(error, where)
            return
        now = time.monotonic()
        if self._away is None:
            self._since = now
        self._away = error
        if error.is_gone and now - self._since < self._MOMENT:
            return  # a connection that broke, and is made anew at once
        if error.code not in self._said:
            self._said.add(error.code)
            if self._speaks:
                log.warning("Redis at %s %s; jobs and events wait until it serves us", where, error)

    def works(self) -> None:
        """Redis has carried out a write."""
        if self._away is not None:
            if self._speaks and self._said:
                log.info("Redis serves us again, after %.1f s", time.monotonic() - self._since)
            self._away = None
            self._served_since = time.monotonic()
            self._said.clear()

    def refused(self, error: BaseException, where: str) -> None:
        """Redis blames the command: a right is missing, or somebody spoiled a key. Seldom said."""
        now, text = time.monotonic(), str(error)
        if now - self._refused.get(text, -math.inf) >= self._SELDOM:
            self._refused = {text: now} | dict(list(self._refused.items())[:20])
            if self._speaks:
                log.error("Redis at %s %s", where, text)


def _code_of(text: str) -> str:
    """The code of an error reply, and of the error that a script or a transaction hands on."""
    head = _CODE.match(text)
    code = head[1] if head else "ERR"
    if code not in ("ERR", "EXECABORT") and not text.startswith("user_script"):
        return code
    last = None
    for last in _HANDED_ON.finditer(text):  # noqa: B007 - the innermost is the last
        pass
    inner = _CODE.match(text, last.end()) if last else None
    return inner[1] if inner else "ERR"


def _end_of(text: str) -> str:
    """The sentence about rights, without the script's coordinates."""
    found = _NO_RIGHTS.search(text)
    start = max(text.rfind(": ", 0, found.start()) + 2, 0) if found else 0
    sentence = text[start if start > 1 else 0 :]
    return sentence.removeprefix("NOPERM ").removeprefix("-NOPERM ").strip()[:160]


def _is_about_tls(error: BaseException) -> bool:
    """Whether one side speaks TLS and the other does not, or a certificate is not accepted.

    A handshake that is cut short says nothing of settings.
    """
    match error:
        case exceptions.InvalidResponse():
            return "\\x15" in str(error) or "\x15" in str(error)
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return False
        case _:
            return isinstance(error, ssl.SSLError)


def _words_of_failure(error: BaseException, *, greeted: bool) -> str:  # noqa: PLR0911 - a table
    match error:
        case exceptions.InvalidResponse() if _is_about_tls(error):
            return SPEAKS_TLS[0]
        case exceptions.InvalidResponse():
            return "does not speak Redis' protocol"
        case ssl.SSLCertVerificationError():
            return f"has a certificate that is not accepted: {error.verify_message}"
        case ssl.SSLError():
            return f"does not speak TLS as we do ({error.reason}); without TLS its URL begins with redis://"
        case exceptions.TimeoutError() | TimeoutError():
            return "does not answer"
        case OSError():
            # asyncio's own text has the address, which stands before this.
            number = error.errno or 0
            return f"is not reachable ({os.strerror(number) if number > 0 else error.strerror or error})"
        case exceptions.ConnectionError() if not greeted:
            return (
                "closes connections before it has said a word; "
                "if it is one that speaks TLS, its URL begins with rediss://"
            )
        case exceptions.ConnectionError():
            return "has closed the connection"
        case _:
            return f"is not reachable: the connection broke ({type(error).__name__})"
