"""What ``append.lua`` gets for an event: its topics, how a repetition is recognised, what it changes.

Everybody who appends uses this table: the worker with the classes of ``executors.events``, a client with
plain fields. It imports nothing of the work, because a team's own code may have a package ``executors``.
"""

from __future__ import annotations

__all__ = ["Append", "JobFields", "append_of", "append_of_event", "credits_changed"]

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from uvian_worker.events.envelope import encode
from uvian_worker.redis.keys import conversation_topic, job_topic, user_topic

#: Id, user's id, run, attempt and conversation's id: an ``executors.events.JobRef`` is one.
JobFields = tuple[str, str, int, int, str | None]

#: Returns the value of a field of the event's data.
_Value = Callable[[str], Any]


class Append(NamedTuple):
    """What ``append.lua`` needs to know of one event, in its order."""

    kind: str  #: how a repetition is recognised: n(umbered), end, once, queued, credits
    job_id: str
    run: int
    mark: str | int  #: the number, or what takes its place
    first: str  #: topic
    second: str  #: topic, or empty
    effect: str  #: what it does to the state so far
    field: str  #: on which field of the state, or which message
    offset: str | int  #: where a delta begins
    text: str  #: what a delta adds, or a snapshot sets
    body: bytes  #: the envelope from ``key`` on


class _Rule(NamedTuple):
    """What holds for all events of one type."""

    audience: Literal["job", "user", "conversation"]
    kind: Literal["n", "end", "once", "queued", "credits"]
    effect: str = ""
    field: Callable[[_Value], str] = lambda _: ""


def _status(_: _Value) -> str:
    return "status"


def _stage(value: _Value) -> str:
    return f"stage:{value('stage')}"


def _image(value: _Value) -> str:
    return f"image:{value('kind')}:{value('index')}"


def _message(value: _Value) -> str:
    return str(value("message_id"))


#: Terminal events and what belongs to them are appended by the worker, and again by the sweep of any
#: process. Only numbered events come from one process alone, in order.
_RULES: Final[Mapping[str, _Rule]] = {
    "job.queued": _Rule("job", "queued", "begin", _status),
    "job.requeued": _Rule("job", "queued", "begin", _status),
    "job.started": _Rule("job", "n", "begin", _status),
    "job.progress": _Rule("job", "n", "keep", lambda _: "progress"),
    "job.completed": _Rule("job", "end", "keep", _status),
    "job.failed": _Rule("job", "end", "keep", _status),
    "job.cancelled": _Rule("job", "end", "keep", _status),
    "stage.started": _Rule("job", "n", "keep", _stage),
    "stage.finished": _Rule("job", "n", "keep", _stage),
    "image.ready": _Rule("job", "n", "keep", _image),
    "message.started": _Rule("conversation", "n", "start", _message),
    "message.delta": _Rule("conversation", "n", "delta", _message),
    "message.snapshot": _Rule("conversation", "n", "text", _message),
    "message.reset": _Rule("conversation", "n", "drop", _message),
    "message.completed": _Rule("conversation", "once", "done", _message),
    "credits.changed": _Rule("user", "credits"),
}
#: The reset of a chat without an answer: every process that appends it appends the same.
_FINAL_RESET: Final = _RULES["message.reset"]._replace(kind="once")
_OTHER: Final = _Rule("job", "n")


def append_of(job: JobFields, type_: str, data: Mapping[str, Any], *, number: int = 0) -> Append:
    """The record of an event, from its type and fields. Raises ``TypeError`` for what JSON cannot hold."""
    return _append(job, type_, data, data.__getitem__, number)


def append_of_event(job: JobFields, event: Any, number: int) -> Append:
    """The record of an object of ``executors.events``; ``number`` grows with every event of the process.

    Raises ``TypeError`` for what JSON cannot hold.
    """
    return _append(job, event.type, event, partial(getattr, event), number)


def credits_changed(account: Mapping[str, Any]) -> Append:
    """``credits.changed`` from an account as the database returns it: user_id, balance, …, version."""
    data = {name: account[name] for name in ("balance", "reserved", "version")}
    return append_of(("", account["user_id"], 0, 0, None), "credits.changed", data)


def _append(job: JobFields, type_: str, data: Any, value: _Value, number: int) -> Append:
    job_id, user_id, run, attempt, conversation_id = job
    rule = _RULES.get(type_, _OTHER)
    if type_ == "message.reset" and value("final"):
        rule = _FINAL_RESET
    field = rule.field(value)
    mark, key = _identity(rule.kind, job, field, value, number)
    first, second = _topics(rule.audience, job_id, user_id, conversation_id)
    offset = value("offset") if rule.effect == "delta" else ""
    text = value("text") if rule.effect in ("delta", "text") else ""
    body = encode(key, type_, (job_id, run, attempt), data)
    return Append(
        rule.kind, job_id, run, mark, first, second, rule.effect, field, offset, text, body
    )


def _identity(
    kind: str, job: JobFields, field: str, value: _Value, number: int
) -> tuple[str | int, str]:
    """Mark and key: two events for one fact must be recognised as the same."""
    job_id, user_id, run, _, _ = job
    match kind:
        case "n":
            return number, f"{job_id}:{run}:{number}"
        case "once":
            return field, f"{job_id}:{run}:message:{field}"
        case "credits":
            version = value("version")
            return version, f"{user_id}:credits:{version}"
        case _:
            return "", f"{job_id}:{run}:{kind}"


def _topics(
    audience: str, job_id: str, user_id: str, conversation_id: str | None
) -> tuple[str, str]:
    match audience:
        case "conversation" if conversation_id is not None:
            return conversation_topic(conversation_id), job_topic(job_id)
        case "conversation":
            return job_topic(job_id), ""
        case "job":
            return job_topic(job_id), user_topic(user_id)
        case _:
            return user_topic(user_id), ""
