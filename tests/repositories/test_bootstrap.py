"""The bootstrap makes a plain Postgres as strict, and as foreign, as a Supabase project."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import pytest

from repositories.errors import Misconfigured, NotGranted
from tests.servers import CleanDatabase
from uvian_worker.schema.migrate import bootstrap

pytestmark = pytest.mark.database

Connection: TypeAlias = "asyncpg.Connection[Any]"


@pytest.fixture
async def plain(blank_database: CleanDatabase) -> CleanDatabase:
    """A bootstrapped database."""
    await bootstrap(blank_database.superuser_dsn)
    return blank_database


@pytest.fixture
async def superuser(plain: CleanDatabase) -> AsyncIterator[Connection]:
    """Connected as the superuser."""
    connection = await asyncpg.connect(plain.superuser_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def migrator(plain: CleanDatabase) -> AsyncIterator[Connection]:
    """Connected as the role that runs the migrations."""
    connection = await asyncpg.connect(plain.dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def authenticator(plain: CleanDatabase) -> AsyncIterator[Connection]:
    """Connected as PostgREST does."""
    connection = await asyncpg.connect(plain.authenticator_dsn)
    yield connection
    await connection.close()


async def privileges(connection: Connection, role: str) -> set[str]:
    """What ``role`` may do with a table and a function that the migrator just made."""
    await connection.execute(
        "create schema probe; create table probe.t (id int);"
        "create function probe.f() returns int language sql as 'select 1'"
    )
    found = await connection.fetch(
        """
        select privilege from unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p
          (privilege) where has_table_privilege($1, 'probe.t', privilege)
        union all
        select 'USAGE' where has_schema_privilege($1, 'probe', 'USAGE')
        """,
        role,
    )
    await connection.execute("drop schema probe cascade")
    return {row["privilege"] for row in found}


async def test_twice_is_fine(plain: CleanDatabase) -> None:
    """It runs before every migration, without a question asked."""
    await bootstrap(plain.superuser_dsn)
    await bootstrap(plain.superuser_dsn)


async def test_a_second_database_of_the_server_is_fine(
    plain: CleanDatabase, database: CleanDatabase
) -> None:
    """Roles belong to the server and may be there already; schemas are made in each database."""
    for each in (plain, database):
        connection = await asyncpg.connect(each.superuser_dsn)
        assert await connection.fetchval("select to_regclass('auth.users') is not null")
        await connection.close()


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
async def test_nothing_is_granted_automatically(migrator: Connection, role: str) -> None:
    """As on projects since 30 October 2026: what a migration forgets to grant, nobody has."""
    assert await privileges(migrator, role) == set()


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
async def test_old_defaults_grant_everything_to_everybody(
    plain: CleanDatabase, migrator: Connection, role: str
) -> None:
    """As on older projects: what a migration forgets to revoke, everybody has; and back again."""
    await bootstrap(plain.superuser_dsn, old_defaults=True)
    everything = {"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "USAGE"}
    assert await privileges(migrator, role) == everything
    await bootstrap(plain.superuser_dsn)
    assert await privileges(migrator, role) == set()


@pytest.mark.parametrize(
    "statement",
    [
        "alter table storage.objects add column mine text",
        "create policy mine on storage.objects for select using (true)",
        "alter table auth.users add column mine text",
        "create table auth.mine (id int)",
        "create table storage.mine (id int)",
        "insert into auth.users (email) values ('a@b.c')",
        "create or replace function auth.uid() returns uuid language sql as 'select null::uuid'",
        "create role mine",
        "alter role authenticated superuser",
        "set role supabase_storage_admin",
        "select pg_read_file('/etc/hostname')",
    ],
)
async def test_the_migrator_meets_the_errors_of_a_customer(
    plain: CleanDatabase, migrator: Connection, statement: str
) -> None:
    """What fails on some platform fails here; a superuser would hide every one of these."""
    await bootstrap(plain.superuser_dsn, storage_policies=False)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await migrator.execute(statement)


async def test_the_migrator_can_do_what_migrations_need(migrator: Connection) -> None:
    """Schemas, references to users, policies for the platform's roles, and the publication."""
    await migrator.execute(
        """
        create schema uvian;
        create table uvian.jobs (id int primary key, user_id uuid references auth.users (id));
        alter table uvian.jobs enable row level security;
        create policy own on uvian.jobs to authenticated using (user_id = (select auth.uid()));
        grant usage on schema uvian to authenticated;
        grant select on uvian.jobs to authenticated;
        alter publication supabase_realtime add table uvian.jobs;
        """
    )


async def test_buckets_and_policies_are_the_migrators_as_on_supabase(
    plain: CleanDatabase, migrator: Connection
) -> None:
    """By default; without the setting both are refused, as where the platform lacks that grant."""
    bucket = "insert into storage.buckets (id, name) values ('mine', 'mine')"
    policy = "create policy mine on storage.objects for select using (true)"
    await bootstrap(plain.superuser_dsn, storage_policies=False)
    for statement in (bucket, policy):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await migrator.execute(statement)
    await bootstrap(plain.superuser_dsn)
    for statement in (bucket, policy):
        await migrator.execute(statement)


async def test_a_signed_in_user_is_who_the_token_says(authenticator: Connection) -> None:
    """`auth.uid()`, `auth.role()`, `auth.email()` and `auth.jwt()` read what PostgREST sets."""
    user = uuid4()
    claims = {"sub": str(user), "role": "authenticated", "email": "a@b.c", "is_anonymous": True}
    async with authenticator.transaction():
        await authenticator.execute("set local role authenticated")
        await authenticator.execute(
            "select set_config('request.jwt.claims', $1, true)", json.dumps(claims)
        )
        row = await authenticator.fetchrow(
            "select auth.uid() uid, auth.role() role, auth.email() email, auth.jwt() jwt"
        )
    assert row is not None
    assert (row["uid"], row["role"], row["email"]) == (user, "authenticated", "a@b.c")
    assert json.loads(row["jwt"]) == claims


async def test_claims_one_by_one_are_understood(authenticator: Connection) -> None:
    """Old PostgREST versions set `request.jwt.claim.sub`."""
    async with authenticator.transaction():
        await authenticator.execute("set local role authenticated")
        await authenticator.execute(f"set local request.jwt.claim.sub = '{UUID(int=7)}'")
        assert await authenticator.fetchval("select auth.uid()") == UUID(int=7)


async def test_nobody_signed_in_is_nobody(authenticator: Connection) -> None:
    """Without claims, and after a transaction that had some, there is no user."""
    async with authenticator.transaction():
        await authenticator.execute("set local role authenticated")
        await authenticator.execute("select set_config('request.jwt.claims', '{}', true)")
        assert await authenticator.fetchval("select auth.uid()") is None
    async with authenticator.transaction():
        await authenticator.execute("set local role anon")
        assert await authenticator.fetchval("select auth.uid()") is None
        assert await authenticator.fetchval("select auth.jwt()") is None


async def test_postgrest_itself_may_nothing(authenticator: Connection) -> None:
    """The login role has what it may become only after `set role`."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await authenticator.fetch("select * from storage.objects")


async def test_the_service_passes_row_level_security(superuser: Connection) -> None:
    """service_role has `bypassrls`; anon, authenticated and the migrator have not."""
    bypassing = await superuser.fetch("select rolname from pg_roles where rolbypassrls")
    ours = {"anon", "authenticated", "service_role", "authenticator", "uvian_migrator"}
    assert {row["rolname"] for row in bypassing} & ours == {"service_role"}


async def test_users_have_the_timeouts_of_the_platform(superuser: Connection) -> None:
    """A call that is too slow for Supabase is too slow here."""
    settings = await superuser.fetch(
        "select setrole::regrole::text role, setconfig from pg_db_role_setting where setdatabase = 0"
    )
    assert {row["role"]: row["setconfig"] for row in settings} == {
        "anon": ["statement_timeout=3s"],
        "authenticated": ["statement_timeout=8s"],
        "authenticator": ["statement_timeout=8s"],
    }


@pytest.mark.parametrize(
    ("name", "folder", "file", "extension"),
    [
        ("user/ab/c.png", ["user", "ab"], "c.png", "png"),
        ("user/c.tar.gz", ["user"], "c.tar.gz", "gz"),
        ("c.png", [], "c.png", "png"),
    ],
)
async def test_names_of_objects_are_taken_apart(
    superuser: Connection, name: str, folder: list[str], file: str, extension: str
) -> None:
    """The functions that storage policies are written with."""
    row = await superuser.fetchrow(
        "select storage.foldername($1), storage.filename($1), storage.extension($1)", name
    )
    assert row is not None
    assert tuple(row) == (folder, file, extension)


async def test_objects_are_closed_to_users(authenticator: Connection) -> None:
    """Row level security is on and there is no policy: a user sees nothing."""
    async with authenticator.transaction():
        await authenticator.execute("set local role authenticated")
        assert await authenticator.fetch("select * from storage.objects") == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await authenticator.execute("insert into storage.buckets (id, name) values ('b', 'b')")


async def test_without_a_superuser_it_says_so(plain: CleanDatabase) -> None:
    """The migrator cannot bootstrap."""
    with pytest.raises(NotGranted, match="superuser"):
        await bootstrap(plain.dsn)


async def test_a_supabase_project_is_left_alone(
    blank_database: CleanDatabase, postgres_superuser: Connection
) -> None:
    """There everything is there already, and belongs to the platform."""
    await postgres_superuser.execute("create role supabase_admin")
    try:
        with pytest.raises(Misconfigured, match=r"This is a Supabase project.*Run `uvian migrate`"):
            await bootstrap(blank_database.superuser_dsn)
    finally:
        await postgres_superuser.execute("drop role supabase_admin")


@pytest.fixture
async def postgres_superuser(blank_database: CleanDatabase) -> AsyncIterator[Connection]:
    """Connected to a database that was not bootstrapped."""
    connection = await asyncpg.connect(blank_database.superuser_dsn)
    yield connection
    await connection.close()
