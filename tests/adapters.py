"""The two ways to a database of the tests; what runs on one of them has to run on the other."""

from __future__ import annotations

__all__ = ["ADAPTERS", "Adapter", "OverPostgres", "OverSupabase", "over_postgres_only"]

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest
from supabase import AsyncClient, AsyncClientOptions

from repositories.database import Database
from repositories.postgres import PostgresDatabase
from repositories.supabase import SupabaseDatabase, connect_supabase
from tests.servers import CleanDatabase
from tests.supabase.platform import Platform
from uvian_worker.client import Client

ADAPTERS = ("postgres", "supabase")

#: For what takes long and where the way to the database makes no difference.
over_postgres_only = pytest.mark.parametrize("adapter", ["postgres"], indirect=True)


class Adapter(ABC):
    """One way to the database ``clean``: for a test, and for a process that it starts.

    What is opened is closed at the end of its ``async with``. ``listen`` is over a session of its
    own, as ``UVIAN_DATABASE_DIRECT_URL`` gives one.
    """

    def __init__(self, clean: CleanDatabase) -> None:
        self.clean = clean

    @abstractmethod
    def database(self, *, listen: bool = False) -> AbstractAsyncContextManager[Database]:
        """The port, as the service."""

    @abstractmethod
    def client(self, redis_url: str) -> AbstractAsyncContextManager[Client]:
        """What an API has."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, str]:
        """What a process has in its environment."""


class OverPostgres(Adapter):
    """asyncpg, straight to Postgres."""

    @asynccontextmanager
    async def database(self, *, listen: bool = False) -> AsyncIterator[Database]:
        """On a pool of its own."""
        dsn = self.clean.dsn
        database = await PostgresDatabase.connect(dsn, listen_dsn=dsn if listen else None)
        try:
            yield database
        finally:
            await database.close()

    @asynccontextmanager
    async def client(self, redis_url: str) -> AsyncIterator[Client]:
        """On connections of its own."""
        client = await Client.connect(database_url=self.clean.dsn, redis_url=redis_url)
        async with client:
            yield client

    @property
    def settings(self) -> dict[str, str]:
        """A connection string is all."""
        return {"UVIAN_DATABASE": "postgres", "UVIAN_DATABASE_URL": self.clean.dsn}


class OverSupabase(Adapter):
    """supabase-py, through the API of a project on the same database."""

    def __init__(self, clean: CleanDatabase, platform: Platform) -> None:
        super().__init__(clean)
        self.platform = platform

    @asynccontextmanager
    async def database(self, *, listen: bool = False) -> AsyncIterator[Database]:
        """With a client of its own."""
        supabase = connect_supabase(self.platform.url, self.platform.secret_key)
        try:
            database = await SupabaseDatabase.connect(
                supabase, listen_dsn=self.clean.dsn if listen else None
            )
            try:
                yield database
            finally:
                await database.close()
        finally:
            await supabase.close()

    @asynccontextmanager
    async def client(self, redis_url: str) -> AsyncIterator[Client]:
        """Over a supabase client as an API makes one."""
        async with httpx.AsyncClient() as http:
            options = AsyncClientOptions(auto_refresh_token=False, httpx_client=http)
            supabase = AsyncClient(self.platform.url, self.platform.secret_key, options)
            async with Client.over_supabase(supabase, redis_url) as client:
                yield client

    @property
    def settings(self) -> dict[str, str]:
        """Address and key of the project, which has the pictures too."""
        return {
            "UVIAN_DATABASE": "supabase",
            "UVIAN_SUPABASE_URL": self.platform.url,
            "UVIAN_SUPABASE_KEY": self.platform.secret_key,
            "UVIAN_IMAGES": "supabase",
        }
