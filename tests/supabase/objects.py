"""The rows of Storage (``storage.buckets``, ``storage.objects``), read and written as the caller."""

from __future__ import annotations

__all__ = ["Bucket", "Objects", "StoredObject"]

import contextlib
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tests.supabase.keys import Caller
from tests.supabase.pool import Pool
from tests.supabase.wire import Row, Step

#: What Storage itself looks things up as.
SUPERUSER: Final = Caller.of({"role": "service_role"})
_COLUMNS: Final = "to_json(o)::text"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket and its limits."""

    id: str
    file_size_limit: int | None
    allowed_mime_types: Sequence[str] | None
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A row of ``storage.objects``; ``version`` is the name of its bytes."""

    id: str
    name: str
    version: str
    metadata: dict[str, Any]
    row: dict[str, Any]


_AS_CALLER: Final = (
    "select set_config('role', $1, true), set_config('request.jwt.claims', $2, true), "
    "set_config('search_path', 'storage, public', true)"
)


class _Undone(Exception):
    """A write that was only tried."""


class Objects:
    """Every method runs in one transaction as ``caller``, so that policies decide."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def bucket(self, bucket: str, caller: Caller = SUPERUSER) -> Bucket | None:
        """One bucket."""
        rows = await self._run(
            caller, "select to_json(b)::text from storage.buckets b where id = $1", [bucket]
        )
        return _bucket(orjson.loads(rows[0][0] or b"")) if rows else None

    async def create_bucket(self, wanted: dict[str, Any], caller: Caller) -> None:
        """Insert a bucket."""
        await self._run(
            caller,
            "insert into storage.buckets "
            "(id, name, public, file_size_limit, allowed_mime_types, owner, owner_id) "
            "values ($1, $2, $3, $4, $5, $6::uuid, $7) returning 1",
            [
                wanted["id"],
                wanted.get("name") or wanted["id"],
                bool(wanted.get("public")),
                wanted.get("file_size_limit"),
                wanted.get("allowed_mime_types"),
                caller.user_id,
                caller.user_id,
            ],
        )

    async def find(
        self, bucket: str, names: Sequence[str], caller: Caller
    ) -> dict[str, StoredObject]:
        """Those of ``names`` that exist and that the caller may see, by name."""
        rows = await self._run(
            caller,
            f"select {_COLUMNS} from storage.objects o where bucket_id = $1 and name = any ($2)",
            [bucket, list(names)],
        )
        found = [_object(orjson.loads(row[0] or b"")) for row in rows]
        return {one.name: one for one in found}

    async def below(self, bucket: str, prefix: str, caller: Caller) -> list[StoredObject]:
        """Those whose names begin so."""
        rows = await self._run(
            caller,
            f"select {_COLUMNS} from storage.objects o where bucket_id = $1 and starts_with(name, $2)",
            [bucket, prefix],
        )
        return [_object(orjson.loads(row[0] or b"")) for row in rows]

    async def may_write(self, bucket: str, name: str, caller: Caller) -> None:
        """Raise what the write would, before any byte is kept; nothing is written."""

        def undo(_: list[Row]) -> None:
            raise _Undone

        with contextlib.suppress(_Undone):
            await self._write(bucket, name, "", {}, caller, check=undo)

    async def write(
        self,
        bucket: str,
        name: str,
        version: str,
        metadata: dict[str, Any],
        caller: Caller,
    ) -> str:
        """Insert the row; answers its id."""
        return await self._write(bucket, name, version, metadata, caller)

    async def delete(self, bucket: str, names: Sequence[str], caller: Caller) -> list[StoredObject]:
        """Delete those that the caller may; answers them."""
        rows = await self._run(
            caller,
            f"delete from storage.objects o where bucket_id = $1 and name = any ($2) returning {_COLUMNS}",
            [bucket, list(names)],
        )
        return [_object(orjson.loads(row[0] or b"")) for row in rows]

    async def _write(
        self,
        bucket: str,
        name: str,
        version: str,
        metadata: dict[str, Any],
        caller: Caller,
        *,
        check: Callable[[list[Row]], None] | None = None,
    ) -> str:
        # An insert needs no policy for SELECT, so it returns nothing.
        id_ = str(uuid.uuid4())
        await self._run(
            caller,
            "insert into storage.objects (id, bucket_id, name, version, metadata, owner, owner_id) "
            "values ($1::uuid, $2, $3, $4, $5::jsonb, $6::uuid, $7)",
            [id_, bucket, name, version, json.dumps(metadata), caller.user_id, caller.user_id],
            check=check,
        )
        return id_

    async def _run(
        self,
        caller: Caller,
        statement: str,
        values: list[Any],
        *,
        check: Callable[[list[Row]], None] | None = None,
    ) -> list[Row]:
        prelude = Step(_AS_CALLER, [caller.role, caller.claims_json])
        return await self._pool.transact(prelude, Step(statement, values), check=check)


def _bucket(row: dict[str, Any]) -> Bucket:
    row = {**row, "owner": row["owner"] or ""}
    return Bucket(row["id"], row["file_size_limit"], row["allowed_mime_types"], row)


def _object(row: dict[str, Any]) -> StoredObject:
    return StoredObject(row["id"], row["name"], row["version"] or "", row["metadata"] or {}, row)
