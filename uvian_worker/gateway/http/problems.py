"""Every error is a problem document (RFC 9457) with a stable ``code``, for programs and for people."""

from __future__ import annotations

__all__ = ["PROBLEMS", "Kind", "Problem", "answers_of", "problem_of"]

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from redis.exceptions import RedisError

from repositories.errors import (
    DataError,
    Misconfigured,
    NotFound,
    Refused,
    StatementTooSlow,
    Transient,
)
from uvian_common.scrubbing import scrubbed
from uvian_worker.client.calls import DatabaseAway, JobRefused
from uvian_worker.gateway.http.auth import InvalidToken, KeysAway


class Kind(NamedTuple):
    """One code: its HTTP status, and what it means whatever the request was."""

    status: int
    title: str


#: All codes. ``docs/contracts/rest.md`` and the OpenAPI document are generated from here.
PROBLEMS: Final[Mapping[str, Kind]] = {
    "bad_request": Kind(400, "The request cannot be read."),
    "unauthorized": Kind(401, "Sign in first."),
    "invalid_token": Kind(401, "The access token is not valid."),
    "token_expired": Kind(401, "The access token has expired."),
    "insufficient_credits": Kind(402, "There are not enough credits."),
    "forbidden": Kind(403, "This is not allowed."),
    "type_not_open": Kind(403, "This type of job is not open to you."),
    "owner_only": Kind(403, "Only the owner of the conversation may do this."),
    "not_found": Kind(404, "There is no such thing."),
    "method_not_allowed": Kind(405, "There is no such method here."),
    "conflict": Kind(409, "It is not in the state that this needs."),
    "idempotency_conflict": Kind(409, "The idempotency key was used for another request."),
    "not_retryable": Kind(409, "Only a job that failed or was cancelled runs again."),
    "conversation_busy": Kind(409, "An answer is being written in this conversation."),
    "owner_stays": Kind(409, "The owner of a conversation cannot leave it."),
    "input_too_large": Kind(413, "The request is too large."),
    "message_too_large": Kind(413, "The message is too large."),
    "unsupported_media_type": Kind(415, "The body must be JSON."),
    "expectation_failed": Kind(417, "The header Expect may say 100-continue alone."),
    "invalid_input": Kind(422, "The input is not valid."),
    "invalid_conversation": Kind(422, "Title or metadata are not valid."),
    "invalid_message": Kind(422, "The message is not valid."),
    "not_allowed": Kind(422, "The operator does not allow this."),
    "too_many_members": Kind(422, "There are too many members."),
    "unknown_user": Kind(422, "There is no such user."),
    "unknown_type": Kind(422, "There is no such type of job."),
    "type_disabled": Kind(422, "This type of job is switched off."),
    "unknown_parent": Kind(422, "There is no such parent job."),
    "cost_exceeds_max": Kind(422, "The job costs more than was allowed."),
    "headers_too_large": Kind(431, "The address or the headers are too large."),
    "rate_limited": Kind(429, "Too many requests."),
    "too_many_conversations": Kind(429, "Too many conversations have no message yet."),
    "too_many_queued": Kind(429, "Too many jobs are waiting already."),
    "too_many_sockets": Kind(429, "Too many sockets and streams are open."),
    "internal_error": Kind(500, "Something went wrong here."),
    "unavailable": Kind(503, "The service is not available at the moment."),
}

#: Seconds after which a request that was too early may come again, where nobody knows better.
_LATER: Final = {429: 5, 503: 2}
_MOST_FIELDS: Final = 50  #: fields in one answer
_NOT_STORED: Final = "It holds something that cannot be stored."


class Problem(Exception):
    """The answer is an error. ``members`` are further fields of the document."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        self.code = code
        self.kind = PROBLEMS[code]
        self.detail = detail
        self.members = members
        self.headers = dict(headers or {})
        if self.kind.status in _LATER:
            self.headers.setdefault("Retry-After", str(_LATER[self.kind.status]))
        if self.kind.status == 401:
            self.headers.setdefault("WWW-Authenticate", f'Bearer error="{code}"')
        super().__init__(f"{code}: {detail or self.kind.title}")

    def document(self, request_id: str) -> dict[str, Any]:
        """The body, as ``application/problem+json``."""
        return {
            "type": f"urn:uvian:problem:{self.code}",
            "title": self.kind.title,
            "status": self.kind.status,
            "code": self.code,
            **({"detail": scrubbed(self.detail)} if self.detail else {}),
            "instance": f"urn:uvian:request:{request_id}",
            **self.members,
        }


def answers_of(codes: Iterable[str]) -> dict[str, Any]:
    """The answers that these are, by status, in OpenAPI's words."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    return {
        str(status): {
            "description": " ".join(f"`{code}`: {PROBLEMS[code].title}" for code in names),
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
        for status, names in sorted(by_status.items())
    }


def problem_of(error: Exception) -> Problem:  # noqa: PLR0911 - a table
    """What any error is to a client. What is nobody's business becomes ``internal_error``."""
    match error:
        case Problem():
            return error
        case InvalidToken():
            return Problem(error.code, str(error))
        case KeysAway():
            return Problem("unavailable", str(error))
        case JobRefused() | Refused():
            return _refused(error)
        case ValidationError():
            return Problem("invalid_input", errors=_fields(error))
        case NotFound():
            return Problem("not_found")
        case DataError():
            return Problem("invalid_input", _NOT_STORED)
        case Transient() | StatementTooSlow() | DatabaseAway() | OSError() | TimeoutError():
            return Problem("unavailable")
        case RedisError() | Misconfigured():  # the operator reads why in the log
            return Problem("unavailable")
        case _:
            return Problem("internal_error")


def _refused(error: JobRefused | Refused) -> Problem:
    details = error.details if isinstance(error, JobRefused) else {}
    if details.get("errors"):  # the client has looked at it, by a schema that is newer than ours
        return Problem("invalid_input", errors=details["errors"][:_MOST_FIELDS])
    if error.code == "invalid_input":  # what Postgres says of it is not for its author
        return Problem("invalid_input", _NOT_STORED)
    if error.code == "unknown_user":
        return Problem("invalid_token", "The user of this token does not exist any more.")
    if error.code not in PROBLEMS:
        return Problem("internal_error")
    detail = details.get("message")
    members = ("cost", "balance", "limit", "field")
    numbers = {name: details[name] for name in members if name in details}
    return Problem(error.code, detail if isinstance(detail, str) else "", **numbers)


def _fields(error: ValidationError) -> list[dict[str, str]]:
    """Field by field, the first few; what was sent is not sent back."""
    return [
        {
            "field": ".".join(str(part) for part in each["loc"]),
            "code": each["type"],
            "message": each["msg"],
        }
        for each in islice(
            error.errors(include_url=False, include_context=False, include_input=False),
            _MOST_FIELDS,
        )
    ]
