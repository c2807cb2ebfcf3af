"""Database and image store, as the settings choose them: no other place chooses."""

from __future__ import annotations

__all__ = ["Stores", "calls_over", "database_address", "require_schema", "schema_status"]

import asyncio
import logging
from contextlib import AsyncExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from repositories.database import Database, Function
from repositories.errors import DataError, Refused, StatementTooSlow, Transient, Unavailable
from repositories.images import ImageStore
from repositories.local import LocalImages
from repositories.postgres import PostgresDatabase
from uvian_worker.client import calls
from uvian_worker.client.calls import Call, DatabaseAway, JobRefused, bad_value
from uvian_worker.config import Config
from uvian_worker.schema.history import COLUMNS, Applied, SchemaStatus, compare, load

# supabase-py takes a fifth of the time that a worker needs to start: it is loaded only where needed.
if TYPE_CHECKING:
    from repositories.supabase import Supabase, SupabaseImages


log = logging.getLogger("uvian.images")

_BUCKET_SECONDS = 5.0  #: that a start waits for the check of the bucket


class Stores:
    """Opens what the settings name, when it is requested; ``stack`` closes it.

    Database and images of a Supabase project share one client. Raises ``ConfigError`` and
    ``RepositoryError`` with the next step in their message.
    """

    def __init__(self, config: Config, stack: AsyncExitStack) -> None:
        self._config = config
        self._stack = stack
        self._client: Supabase | None = None

    async def database(self) -> Database:
        """The database, checked: it answers, and this release can work on its schema."""
        database = await self.untried_database()
        await self.try_database(database)
        return database

    async def try_database(self, database: Database) -> None:
        """Raise unless it answers and this release can work on its schema."""
        try:
            if isinstance(database, PostgresDatabase):
                await database.require_answer()
            await require_schema(database)
        except Transient as error:
            if self._config.database == "supabase":
                raise
            where = database_address(self._config.require_database_url())
            raise Unavailable(
                f"Postgres does not answer at {where} (UVIAN_DATABASE_URL): {error}"
            ) from error

    async def untried_database(self) -> Database:
        """The database, unchecked: no call was made yet."""
        database = await self._database()
        self._stack.push_async_callback(database.close)
        return database

    async def bucket(self) -> SupabaseImages:
        """The bucket of the pictures, whether it exists or not."""
        from repositories.supabase import SupabaseImages  # noqa: PLC0415

        bucket = SupabaseImages(self._supabase(), max_bytes=self._config.image_max_bytes)
        self._stack.push_async_callback(bucket.close)
        return bucket

    async def images(self) -> ImageStore:
        """The image store, ready to be used."""
        config = self._config
        if config.images == "supabase":
            bucket = await self.bucket()
            try:
                async with asyncio.timeout(_BUCKET_SECONDS):
                    await bucket.require_bucket()
            except (Transient, TimeoutError) as error:
                # Chats need no pictures; other jobs wait for Storage, as they do later.
                reason = str(error) or "Storage does not answer"
                log.warning("the image store is away at the start, jobs wait for it: %s", reason)
            return bucket
        folder = LocalImages(
            config.images_dir,
            base_url=config.images_url,
            secret=config.images_secret.get_secret_value(),
            max_bytes=config.image_max_bytes,
        )
        self._stack.push_async_callback(folder.close)
        return folder

    async def _database(self) -> Database:
        config = self._config
        if config.database == "supabase":
            from repositories.supabase import SupabaseDatabase  # noqa: PLC0415

            return SupabaseDatabase.untried(
                self._supabase(), listen_dsn=config.listen_url(), timeout=config.call_timeout
            )
        return await PostgresDatabase.untried(
            config.require_database_url(),
            connections=config.database_connections,
            listen_dsn=config.listen_url(),
            timeout=config.call_timeout,
        )

    def _supabase(self) -> Supabase:
        if self._client is None:
            from repositories.supabase import connect_supabase  # noqa: PLC0415

            self._client = connect_supabase(*self._config.require_supabase())
            self._stack.push_async_callback(self._client.close)
        return self._client


async def require_schema(database: Database) -> None:
    """Raise ``SchemaMissing`` or ``Misconfigured`` unless this release can work on the schema."""
    (await schema_status(database)).require_usable()


async def schema_status(database: Database) -> SchemaStatus:
    """The migration history, over either adapter, compared with the files of this release."""
    rows = await database.select("schema_migrations", columns=COLUMNS)
    history = [
        Applied(**{**row, "applied_at": datetime.fromisoformat(row["applied_at"])}) for row in rows
    ]
    return compare(history, load())


def calls_over(database: Database) -> Call:
    """The functions of an open database, with the errors of the client."""

    async def call(function: str, arguments: dict[str, Any]) -> Any:
        try:
            return await database.call(cast("Function", function), **arguments)
        except Transient as error:
            raise DatabaseAway(str(error)) from error
        except StatementTooSlow as error:
            raise calls.StatementTooSlow(str(error)) from error
        except Refused as error:
            raise JobRefused(error.code, calls.details_of(str(error))) from error
        except DataError as error:
            raise bad_value(function, str(error)) from error

    return call


def database_address(url: str) -> str:
    """Host, port and database of a URL: never user or password."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:  # a port that is no number
        host, port = "an address that cannot be read", None
    sockets = parse_qs(parts.query).get("host")
    host = host or (unquote(sockets[0]) if sockets else "localhost")
    return f"{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
