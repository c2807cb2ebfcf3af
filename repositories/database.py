"""The Database port: what the repositories and the runner need of Postgres, over any transport.

Two adapters keep it: ``repositories.postgres`` (asyncpg) and ``repositories.supabase`` (PostgREST).
Both pass ``tests/contracts/database.py``. It is as small as PostgREST is: functions of the schema
``uvian`` with named arguments, and reads and writes of one table with filters joined by *and*.
Values go in and come out as JSON knows them: uuids and timestamps as text (ISO 8601), jsonb as
Python values, numbers as int or float; an exact numeric is requested as text
(``columns=("balance::text",)``).
"""

from __future__ import annotations

__all__ = [
    "KEYS",
    "SIGNATURES",
    "Database",
    "Filter",
    "Function",
    "Json",
    "Order",
    "Row",
    "Table",
    "as_json",
    "column_and_cast",
    "is_id",
    "may_repeat",
    "require_filters",
    "require_name",
    "require_rows",
]

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol
from uuid import UUID

import orjson

from repositories.errors import DataError

Json = Any
Row = dict[str, Any]

Function = Literal[
    "add_members",
    "answer_invitation",
    "calculate_cost",
    "cancel_job",
    "choose_unnamed_files",
    "claim_jobs",
    "claim_next_jobs",
    "configure_types",
    "create_conversation",
    "create_jobs",
    "delete_conversation",
    "forget_files",
    "grant_credits",
    "invite_members",
    "list_conversations",
    "list_invitations",
    "list_types",
    "mark_jobs",
    "platform_state",
    "post_message",
    "register_worker",
    "remove_member",
    "renew_leases",
    "retire_worker",
    "retry_job",
    "save_checkpoints",
    "served_files",
    "settle_jobs",
    "stop_answer",
    "store_concept",
    "submit_job",
    "sweep_jobs",
    "terminal_events_of",
    "type_schemas",
    "update_conversation",
]

Table = Literal[
    "concept_variations",
    "concepts",
    "conversation_invitations",
    "conversation_members",
    "conversations",
    "credit_accounts",
    "credit_entries",
    "files",
    "job_leases",
    "job_prices",
    "job_runs",
    "job_state",
    "job_types",
    "jobs",
    "messages",
    "schema_migrations",
    "sweeps",
    "workers",
]

_REQUEST: Final = {"request": "jsonb"}

#: Arguments and their types in SQL, as in the catalog (a test compares them).
SIGNATURES: Final[Mapping[Function, Mapping[str, str]]] = {
    "add_members": {"conversation_id": "uuid", "members": "jsonb"},
    "answer_invitation": {"conversation_id": "uuid", "accept": "boolean", "user_id": "uuid"},
    "calculate_cost": {"type": "text", "input": "jsonb"},
    "cancel_job": {"job_id": "uuid", "user_id": "uuid"},
    "choose_unnamed_files": _REQUEST,
    "claim_jobs": _REQUEST,
    "claim_next_jobs": _REQUEST,
    "configure_types": _REQUEST,
    "create_conversation": {
        "title": "text",
        "metadata": "jsonb",
        "conversation_id": "uuid",
        "user_id": "uuid",
        "door": "text",
    },
    "create_jobs": _REQUEST,
    "delete_conversation": {"conversation_id": "uuid", "user_id": "uuid"},
    "forget_files": _REQUEST,
    "grant_credits": {"user_id": "uuid", "amount": "numeric", "reference": "text"},
    "invite_members": {
        "conversation_id": "uuid",
        "members": "jsonb",
        "user_id": "uuid",
        "door": "text",
    },
    "list_conversations": _REQUEST,
    "list_invitations": _REQUEST,
    "list_types": _REQUEST,
    "mark_jobs": _REQUEST,
    "platform_state": _REQUEST,
    "post_message": {
        "conversation_id": "uuid",
        "content": "text",
        "on_busy": "text",
        "options": "jsonb",
        "idempotency_key": "text",
        "max_cost": "numeric",
        "user_id": "uuid",
        "door": "text",
    },
    "register_worker": _REQUEST,
    "remove_member": {"conversation_id": "uuid", "member": "uuid", "user_id": "uuid"},
    "renew_leases": _REQUEST,
    "retire_worker": _REQUEST,
    "retry_job": {"job_id": "uuid", "expected_run": "bigint", "user_id": "uuid", "door": "text"},
    "save_checkpoints": _REQUEST,
    "served_files": _REQUEST,
    "settle_jobs": _REQUEST,
    "stop_answer": {"conversation_id": "uuid", "user_id": "uuid", "job_id": "uuid"},
    "store_concept": _REQUEST,
    "submit_job": {
        "type": "text",
        "input": "jsonb",
        "idempotency_key": "text",
        "max_cost": "numeric",
    },
    "sweep_jobs": _REQUEST,
    "terminal_events_of": _REQUEST,
    "type_schemas": _REQUEST,
    "update_conversation": {
        "conversation_id": "uuid",
        "title": "text",
        "metadata": "jsonb",
        "user_id": "uuid",
    },
}


#: Primary keys, as in the catalog (a test compares them).
KEYS: Final[Mapping[Table, tuple[str, ...]]] = {
    "concept_variations": ("id",),
    "concepts": ("id",),
    "conversation_invitations": ("conversation_id", "user_id"),
    "conversation_members": ("conversation_id", "user_id"),
    "conversations": ("id",),
    "credit_accounts": ("user_id",),
    "credit_entries": ("id",),
    "files": ("path", "job_id"),
    "job_leases": ("job_id",),
    "job_prices": ("type",),
    "job_runs": ("job_id", "run"),
    "job_state": ("job_id",),
    "job_types": ("type",),
    "jobs": ("id",),
    "messages": ("id",),
    "schema_migrations": ("name",),
    "sweeps": ("one",),
    "workers": ("name",),
}


def may_repeat(function: str, arguments: Mapping[str, Json]) -> bool:
    """Whether an adapter may repeat a call whose reply was lost, without its caller."""
    return function != "stop_answer" or arguments.get("job_id") is not None


def is_id(text: str) -> bool:
    """Whether this is a uuid as the database writes them."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


class Filter(NamedTuple):
    """One condition on one column; ``value`` is a sequence for ``in``, ignored for ``is_null``.

    Nothing equals None, or differs from it, as in SQL.
    """

    column: str
    op: Literal["eq", "ne", "lt", "lte", "gt", "gte", "in", "is_null"]
    value: Json = None


class Order(NamedTuple):
    """One column to sort by."""

    column: str
    descending: bool = False


class Database(Protocol):
    """Functions and tables of the schema ``uvian``, as the service.

    Every method raises only errors of ``repositories.errors``. After one that derives from
    ``Transient`` the work may have been done all the same (the reply was lost), and the call may be
    repeated. What the repeated call answers:

    - ``call``, ``select``: what the first would have; the functions of the schema are idempotent,
      except that ``stop_answer`` without a ``job_id`` stops whichever has the turn by then, and that
      what is deleted is ``not_found``.
    - ``insert``: ``Conflict`` where the first has been carried out. With ids of the caller's making
      the rows are then the caller's own; with ``on_conflict`` they are left out as existing ones.
    - ``update``, ``delete``: the state is the same; rows that the filter no longer finds are left out.
    """

    async def call(self, function: Function, /, **arguments: Json) -> Json:
        """Call ``uvian.<function>``; answers its jsonb or scalar."""
        ...

    async def select(
        self,
        table: Table,
        *,
        where: Sequence[Filter] = (),
        columns: Sequence[str] = (),
        order: Sequence[Order] = (),
        limit: int | None = None,
    ) -> list[Row]:
        """Rows of one table, all that match; ``columns`` empty means all, ``"name::text"`` casts one."""
        ...

    async def insert(
        self, table: Table, rows: Sequence[Row], *, on_conflict: Sequence[str] | None = None
    ) -> list[Row]:
        """Insert rows of the same keys and answer them; those that exist by ``on_conflict`` stay."""
        ...

    async def update(self, table: Table, values: Row, *, where: Sequence[Filter]) -> list[Row]:
        """Update the rows that match (at least one filter) and answer them."""
        ...

    async def delete(self, table: Table, *, where: Sequence[Filter]) -> list[Row]:
        """Delete the rows that match (at least one filter) and answer them."""
        ...

    async def listen(self, channel: str, callback: Callable[[str], None]) -> bool:
        """Call back with the payload of every NOTIFY until closed, and with an empty one at first and
        after every gap: any may have been missed. False where the transport has no LISTEN."""
        ...

    async def close(self) -> None:
        """Close every connection; closing twice is fine."""
        ...


_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


def require_name(identifier: str) -> str:
    """The name of a table or column, as it is; raises ``DataError`` for what cannot be one."""
    if _NAME.fullmatch(identifier) is None:
        raise DataError(f"{identifier!r} is not the name of a table or column")
    return identifier


def column_and_cast(column: str) -> tuple[str, bool]:
    """The column and whether it is requested as text; raises ``DataError``."""
    name, _, cast = column.partition("::")
    if cast not in ("", "text"):
        raise DataError(f"{column!r}: only ::text is a cast here")
    return require_name(name), bool(cast)


def require_filters(where: Sequence[Filter]) -> None:
    """Raise ``DataError`` unless there is one: a filter lost on the way must not empty a table."""
    if not where:
        raise DataError("an update or delete without a filter is refused")


def require_rows(rows: Sequence[Row]) -> None:
    """Raise ``DataError`` unless all rows of an insert have the same keys."""
    if any(row.keys() != rows[0].keys() for row in rows):
        raise DataError("rows of one insert have the same keys")


def as_json(value: Json) -> bytes:
    """The value as JSON; raises ``DataError`` for what is none (lone surrogates included)."""
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"not JSON: {error}") from error
