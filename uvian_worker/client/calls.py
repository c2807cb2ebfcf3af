"""How a client calls the functions of the schema ``uvian``: straight to Postgres, or through the API."""

from __future__ import annotations

__all__ = [
    "Call",
    "DatabaseAway",
    "JobRefused",
    "NotSetUp",
    "StatementTooSlow",
    "bad_value",
    "details_of",
    "over_postgres",
    "over_supabase",
]

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import asyncpg
import orjson

from uvian_common.asyncpg_errors import NO_CONNECTION, WRONG_CONNECTION_STRING, fault_of_postgres
from uvian_common.database_errors import Fault, fault_of_answer

#: Runs a function of the schema as the service; raises what is below, or what nobody foresaw.
Call = Callable[[str, dict[str, Any]], Awaitable[Any]]


class JobRefused(Exception):
    """The database refused the call; ``docs/database.md`` lists the codes. ``details`` has numbers."""

    def __init__(self, code: str, details: Mapping[str, Any] | None = None) -> None:
        self.code = code
        self.details = dict(details or {})
        super().__init__(code)


class NotSetUp(Exception):
    """The project is not ready for calls, and repeating them does not help: the message names what does."""


class DatabaseAway(Exception):
    """The database did not answer, or not at the moment: the call may be repeated, whatever it is."""


class StatementTooSlow(DatabaseAway):
    """The call ran into the server's statement timeout: repeated at once it would again."""


def over_postgres(pool: asyncpg.Pool) -> Call:
    """Calls over a pool of connections."""

    async def call(function: str, arguments: dict[str, Any]) -> Any:
        names = ", ".join(
            f"{name} => ${n}::text::{_TYPES[name]}" for n, name in enumerate(arguments, 1)
        )
        values = [_text(value) for value in arguments.values()]
        try:
            answer = await pool.fetchval(f"select uvian.{function}({names})::text", *values)
        except asyncpg.PostgresError as error:
            raise _of_postgres(error, function) from error
        except WRONG_CONNECTION_STRING as error:
            raise NotSetUp(f"The connection string cannot be used: {error}") from error
        except NO_CONNECTION as error:
            raise DatabaseAway(str(error) or "no answer in time") from error
        except UnicodeEncodeError as error:
            raise bad_value(function, "a value that is no text") from error
        return orjson.loads(answer)

    return call


def over_supabase(supabase: Any) -> Call:
    """Calls through a ``supabase.AsyncClient`` with a secret key, few at a time: more would be slower."""
    from httpx import RequestError  # noqa: PLC0415 - whoever has such a client has imported it
    from postgrest import APIError  # noqa: PLC0415

    slots = asyncio.Semaphore(_IN_FLIGHT)

    async def call(function: str, arguments: dict[str, Any]) -> Any:
        body = orjson.loads(_as_json(arguments))
        try:
            async with asyncio.timeout(_SECONDS), slots:
                answer = await supabase.schema("uvian").rpc(function, body).execute()
        except (OSError, RequestError) as error:
            raise DatabaseAway(str(error) or "no answer in time") from error
        except APIError as error:
            code, message = error.code or "", error.message or ""
            fault = fault_of_answer(code, message, body=bool(error.details))
            raise _meaning(fault, message or code, error.details, function) or error from error
        except ValueError as error:
            raise DatabaseAway(_NOT_POSTGREST) from error
        if not isinstance(answer.data, dict):
            raise DatabaseAway(_NOT_POSTGREST)
        return answer.data

    return call


def bad_value(function: str, message: str) -> JobRefused:
    """The refusal of what Postgres cannot hold (U+0000, a number out of range), or of an id that is none."""
    code = "not_found" if function in _BY_ID else "invalid_input"
    return JobRefused(code, {"message": message})


_NOT_POSTGREST: Final = "What answers is not PostgREST: a proxy's page, or nothing."
_IN_FLIGHT: Final = 4
_SECONDS: Final = 10.0  #: for one call; a client of supabase-py's own making would wait for 120
_TYPES: Final = {
    "accept": "boolean",
    "content": "text",
    "conversation_id": "uuid",
    "door": "text",
    "expected_run": "bigint",
    "idempotency_key": "text",
    "job_id": "uuid",
    "max_cost": "numeric",
    "member": "uuid",
    "members": "jsonb",
    "metadata": "jsonb",
    "on_busy": "text",
    "options": "jsonb",
    "request": "jsonb",
    "title": "text",
    "user_id": "uuid",
}
#: Functions whose only values that could be wrong are ids.
_BY_ID: Final = frozenset(
    {
        "answer_invitation",
        "cancel_job",
        "delete_conversation",
        "remove_member",
        "retry_job",
        "stop_answer",
    }
)


def _text(value: Any) -> str | None:
    if isinstance(value, dict | list):
        return _as_json(value).decode()
    return None if value is None else str(value)


def _as_json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise JobRefused("invalid_input", {"message": f"not JSON: {error}"}) from error


def _of_postgres(error: asyncpg.PostgresError, function: str) -> Exception:
    fault, _, message = fault_of_postgres(error)
    return _meaning(fault, message, error.detail, function) or error


def _meaning(  # noqa: PLR0911 - a table
    fault: Fault, message: str, detail: str | None, function: str
) -> Exception | None:
    match fault:
        case Fault.AWAY | Fault.LOCKED:
            return DatabaseAway(message or "an empty answer")
        case Fault.SLOW:
            return StatementTooSlow(message)
        case Fault.SCHEMA:
            return NotSetUp(
                f"The schema uvian is missing or too old ({message}). Run: uvian migrate"
            )
        case Fault.NOT_EXPOSED:
            return NotSetUp("Add uvian under Project Settings > Data API > Exposed schemas.")
        case Fault.NOT_GRANTED:
            return NotSetUp(
                f"{message}: connect as the service (secret or service_role key, or the schema's owner)."
            )
        case Fault.KEY:
            return NotSetUp(
                f"The client needs the project's secret or service_role key ({message})."
            )
        case Fault.ADDRESS:
            return NotSetUp(
                f"What answers is not the project or database that is meant ({message}). "
                "Check the URL: host, user, database."
            )
        case Fault.REFUSED:
            return JobRefused(message, details_of(detail))
        case Fault.CONFLICT | Fault.DATA | Fault.NOT_FOUND:
            return bad_value(function, message)
        case _:
            return None


def details_of(detail: str | None) -> dict[str, Any]:
    """What goes with a code: its members where the database sent them as JSON, else a sentence."""
    if detail is not None and detail.startswith("{"):
        try:
            return dict(orjson.loads(detail))
        except orjson.JSONDecodeError:
            pass
    return {"message": detail}
