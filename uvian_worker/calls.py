"""How a client calls the functions of the schema ``uvian``: straight to Postgres, or through the API."""

from __future__ import annotations

__all__ = [
    "Call",
    "DatabaseAway",
    "JobRefused",
    "NotSetUp",
    "bad_value",
    "over_postgres",
    "over_supabase",
]

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import asyncpg
import orjson

#: Runs a function of the schema as the service; raises what is below, or what nobody foresaw.
Call = Callable[[str, dict[str, Any]], Awaitable[Any]]


class JobRefused(Exception):
    """The database said no. ``code`` is one of those in ``docs/database.md``; ``details`` has numbers."""

    def __init__(self, code: str, details: Mapping[str, Any] | None = None) -> None:
        self.code = code
        self.details = dict(details or {})
        super().__init__(code)


class NotSetUp(Exception):
    """The project is not ready for calls, and repeating them does not help: the message says what does."""


class DatabaseAway(Exception):
    """The database did not answer, or not at the moment: the call may be repeated, whatever it is."""


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
            meaning = _by_state(str(error.sqlstate), str(error.args[0]), error.detail, function)
            raise meaning or error from error
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise DatabaseAway(str(error) or "no answer in time") from error
        return orjson.loads(answer)

    return call


def over_supabase(supabase: Any) -> Call:
    """Calls through a ``supabase.AsyncClient`` with a secret key, few at a time: more would be slower."""
    from httpx import RequestError  # noqa: PLC0415 - whoever has such a client has imported it
    from postgrest import APIError  # noqa: PLC0415

    places = asyncio.Semaphore(_IN_FLIGHT)

    async def call(function: str, arguments: dict[str, Any]) -> Any:
        body = orjson.loads(_as_json(arguments))
        try:
            async with asyncio.timeout(_SECONDS), places:
                answer = await supabase.schema("uvian").rpc(function, body).execute()
        except (OSError, RequestError) as error:
            raise DatabaseAway(str(error) or "no answer in time") from error
        except APIError as error:
            meaning = _by_code(error.code or "", error.message or "", error.details, function)
            raise meaning or error from error
        if not isinstance(answer.data, dict):
            raise DatabaseAway("What answers is not PostgREST: a proxy's page, or nothing.")
        return answer.data

    return call


def bad_value(function: str, message: str) -> JobRefused:
    """The refusal of what Postgres cannot hold (U+0000, a number out of range), or of an id that is none."""
    code = "not_found" if function in _BY_ID else "invalid_input"
    return JobRefused(code, {"message": message})


_IN_FLIGHT: Final = 4
_SECONDS: Final = 10.0  #: for one call; a client of supabase-py's own making would wait for 120
_TYPES: Final = {
    "content": "text",
    "conversation_id": "uuid",
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
    {"cancel_job", "delete_conversation", "remove_member", "retry_job", "stop_answer"}
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


def _by_code(code: str, message: str, details: str | None, function: str) -> Exception | None:
    """What PostgREST, or the gateway before it, means; None for an error that speaks for itself."""
    if code == "PGRST106":
        return NotSetUp("Add uvian under Project Settings > Data API > Exposed schemas.")
    if code in ("PGRST202", "PGRST203"):
        return NotSetUp(f"The schema uvian is missing or too old ({message}). Run: uvian migrate")
    if code.startswith("PGRST30") or code in ("401", "403") or "API key" in message:
        return NotSetUp(f"The client needs the project's secret or service_role key ({message}).")
    if code.startswith("PGRST00") or not code or (code.isdecimal() and len(code) == 3):
        # An empty code is what a pooled connection answers after a crash of Postgres.
        return DatabaseAway(message or code or "an empty answer")
    return _by_state(code, message, details, function)


def _by_state(state: str, message: str, detail: str | None, function: str) -> Exception | None:
    if state.startswith("PT"):
        return JobRefused(message, {"message": detail})
    if state.startswith("22") or state == "23514":
        return bad_value(function, message)
    if state.startswith(("08", "57P")) or state in ("55P03", "40P01", "40001", "42804", "53300"):
        return DatabaseAway(message)
    if state == "42501":
        return NotSetUp(
            f"{message}: connect as the service (secret or service_role key, or the schema's owner)."
        )
    if state in ("42883", "3F000", "42P01"):
        return NotSetUp(f"The schema uvian is missing or too old ({message}). Run: uvian migrate")
    return None
