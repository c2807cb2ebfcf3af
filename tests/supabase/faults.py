"""The script of what goes wrong: rules that are asked for every request, in the order of adding.

faults.add(lose_reply, writes=True, every=3)          # every third write loses its reply
faults.add(delay(2), path="/rpc/renew_leases", times=1)
faults.down("rest")                                    # the proxy answers 502 until up()
"""

from __future__ import annotations

__all__ = [
    "ACTIONS",
    "Action",
    "Faults",
    "Rule",
    "delay",
    "empty_400",
    "hang",
    "html_502",
    "lose_reply",
    "lose_request",
    "named",
    "reset",
    "status",
    "truncate",
]

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Kind = Literal["lose_reply", "lose_request", "reset", "truncate", "hang", "delay", "answer"]
Half = Literal["rest", "storage"]


@dataclass(frozen=True, slots=True)
class Action:
    """What happens to a request instead of an answer, or before or after it."""

    kind: Kind
    seconds: float = 0.0
    status: int = 0
    body: str = ""
    content_type: str = "application/json"


#: Executed and committed; then the connection ends without a word.
lose_reply: Final = Action("lose_reply")
#: The connection ends without a word, and nothing was executed.
lose_request: Final = Action("lose_request")
#: The connection is reset (RST), and nothing was executed.
reset: Final = Action("reset")
#: Executed; half of the body arrives, then the connection ends.
truncate: Final = Action("truncate")
#: No answer for as long as the client waits.
hang: Final = Action("hang")
#: What the proxy in front says while PostgREST is down.
html_502: Final = Action(
    "answer",
    status=502,
    content_type="text/html",
    body="<html>\n<head><title>502 Bad Gateway</title></head>\n<body>\n"
    "<center><h1>502 Bad Gateway</h1></center>\n</body>\n</html>\n",
)
#: What a pooled connection says once after a crash of Postgres.
empty_400: Final = Action(
    "answer", status=400, body='{"code":"","details":null,"hint":null,"message":""}'
)


def delay(seconds: float) -> Action:
    """Executed after a pause."""
    return Action("delay", seconds=seconds)


def status(code: int, body: str = "", content_type: str = "application/json") -> Action:
    """This answer, and nothing was executed."""
    return Action("answer", status=code, body=body, content_type=content_type)


#: Those that need no more words, by name.
_PLAIN: Final = {
    "lose_reply": lose_reply,
    "lose_request": lose_request,
    "reset": reset,
    "truncate": truncate,
    "hang": hang,
    "html_502": html_502,
    "empty_400": empty_400,
}
ACTIONS: Final = (*_PLAIN, "delay", "status")


def named(wanted: Mapping[str, Any]) -> Action:
    """An action from JSON: ``{"action": "delay", "seconds": 2}``."""
    match wanted["action"]:
        case "delay":
            return delay(float(wanted["seconds"]))
        case "status":
            kind = str(wanted.get("content_type", "application/json"))
            return status(int(wanted["status"]), str(wanted.get("body", "")), kind)
        case name:
            return _PLAIN[name]


@dataclass(slots=True)
class Rule:
    """Which requests an action is for, and how often it has happened."""

    action: Action
    path: str = ""  #: a part of it
    method: str | None = None
    writes: bool = False  #: only what may change something
    when: Callable[[str, str], bool] | None = None  #: of method and path
    every: int = 1
    times: int | None = None
    seen: int = 0  #: requests that it is for
    hits: int = 0  #: requests that it happened to

    def applies(self, method: str, path: str) -> bool:
        """Whether a request is one of those it counts."""
        return (
            self.path in path
            and self.method in (None, method)
            and (not self.writes or is_write(method, path))
            and (self.when is None or self.when(method, path))
        )

    def strikes(self) -> bool:
        """Count one request; whether it is this one's turn."""
        self.seen += 1
        if self.seen % self.every or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True


@dataclass(slots=True)
class Faults:
    """The rules of one platform; any thread may change them."""

    _rules: list[Rule] = field(default_factory=list)
    _down: set[Half] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _hits: int = 0

    def add(
        self,
        action: Action,
        *,
        path: str = "",
        method: str | None = None,
        writes: bool = False,
        when: Callable[[str, str], bool] | None = None,
        every: int = 1,
        times: int | None = None,
    ) -> Rule:
        """One more rule; all conditions must hold, and of those the ``every``-th is struck."""
        rule = Rule(action, path, method, writes, when, every, times)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """No rules, and everything is up; ``hits`` stay."""
        with self._lock:
            self._rules.clear()
            self._down.clear()

    def down(self, half: Half | None = None) -> None:
        """A server is down, and the proxy in front says so: 502 with a page of HTML."""
        with self._lock:
            self._down |= {half} if half else {"rest", "storage"}

    def up(self, half: Half | None = None) -> None:
        """It is back."""
        with self._lock:
            self._down -= {half} if half else {"rest", "storage"}

    @property
    def hits(self) -> int:
        """How often anything has happened so far."""
        return self._hits

    @property
    def rules(self) -> list[Rule]:
        """The rules, in their order."""
        with self._lock:
            return list(self._rules)

    def strike(self, method: str, path: str) -> Action | None:
        """What happens to this request: the first rule whose turn it is, or nothing."""
        if not self._rules and not self._down:
            return None
        with self._lock:
            action = self._struck(method, path)
            self._hits += action is not None
        return action

    def _struck(self, method: str, path: str) -> Action | None:
        if any(path.startswith(f"/{half}/") for half in self._down):
            return html_502
        struck = [r for r in self._rules if r.applies(method, path) and r.strikes()]
        return struck[0].action if struck else None


def is_write(method: str, path: str) -> bool:
    """Whether a request may change something: signing is a POST, but does not."""
    if method in ("GET", "HEAD", "OPTIONS"):
        return False
    return not path.startswith("/storage/v1/object/sign/")
