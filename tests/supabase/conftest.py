"""Clients of a platform: supabase-py and storage3, with any key or token, closed after the test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from supabase import AsyncClient, AsyncClientOptions

from tests.servers import CleanDatabase
from tests.supabase.asking import BUCKET
from tests.supabase.platform import Platform

Connect = Callable[..., AsyncClient]

#: Of all that a project may have: what the schema `uvian` needs no example of.
_SANDBOX = """
create table public.notes (
  id int primary key, title text not null check (title <> ''), parent int references public.notes,
  made timestamptz not null default now()
);
create table public.secrets (id int primary key);
create table public.own (id int primary key, owner uuid not null);
alter table public.own enable row level security;
create policy own on public.own for all to authenticated using (owner = (select auth.uid()));
grant all on public.notes to service_role;
grant select on public.notes to anon;
grant all on public.own to anon, authenticated, service_role;

create function public.add(a int, b int default 10) returns int language sql immutable as 'select a + b';
create function public.echo(document jsonb) returns jsonb language sql immutable as 'select $1';
create function public.nothing() returns void language sql as '';
create function public.setting(name text) returns text language sql stable
  as $$ select current_setting(name, true) $$;
create function public.doze(seconds double precision) returns text language plpgsql volatile
  as $$ begin perform pg_sleep(seconds); return 'awake'; end $$;
create function public.refuse(state text, message text) returns void language plpgsql
  as $$ begin raise using errcode = state, message = message,
        detail = 'a detail', hint = 'a hint'; end $$;
create function public.twice(a int) returns int language sql as 'select a';
create function public.twice(a text) returns text language sql as 'select a';
create function public.closed() returns int language sql as 'select 1';
revoke execute on function public.closed() from public;
"""


@pytest_asyncio.fixture
async def connect(platform: Platform) -> AsyncIterator[Connect]:
    """A supabase-py client by key, and for a user by token; its schema is ``public``."""
    async with AsyncExitStack() as stack:

        def connect(
            key: str | None = None,
            *,
            token: str | None = None,
            schema: str = "public",
            retry: bool = False,
        ) -> AsyncClient:
            http = httpx.AsyncClient(timeout=30)
            stack.push_async_callback(http.aclose)
            options = AsyncClientOptions(
                schema=schema, httpx_client=http, postgrest_client_retry=retry
            )
            if token is not None:
                options.headers["Authorization"] = f"Bearer {token}"
            return AsyncClient(platform.url, key or platform.secret_key, options)

        yield connect


@pytest.fixture
def service(connect: Connect) -> AsyncClient:
    """The client of the service."""
    return connect()


@pytest.fixture
def files(service: AsyncClient) -> Any:
    """The bucket of the pictures, as the service."""
    return service.storage.from_(BUCKET)


@pytest_asyncio.fixture
async def superuser(database: CleanDatabase) -> AsyncIterator[asyncpg.Connection]:
    """Behind the scenes."""
    connection = await asyncpg.connect(database.superuser_dsn)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def sandbox(superuser: asyncpg.Connection) -> asyncpg.Connection:
    """Tables and functions in ``public``, of every kind."""
    await superuser.execute(_SANDBOX)
    return superuser


@pytest_asyncio.fixture
async def user(superuser: asyncpg.Connection) -> str:
    """The id of a row in ``auth.users``."""
    id_ = uuid.uuid4()
    await superuser.execute("insert into auth.users (id) values ($1)", id_)
    return str(id_)
