"""Every table and function × every role, from lists generated out of the catalog."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import asyncpg
import orjson
import pytest

from tests.lifecycle.world import World
from tests.security.caller import Caller, Connection
from tests.security.expectations import (
    AS_THE_CALLER,
    FUNCTIONS,
    OWN_ROWS,
    ROLES,
    SERVICE_WRITES,
    SHARED_ROWS,
    TABLES,
    VERBS,
    WITHIN,
)
from tests.servers import CleanDatabase

pytestmark = pytest.mark.database

_RELATIONS = """
    select relname from pg_class
    where relnamespace = 'uvian'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f')"""
_FUNCTIONS = """
    select p.oid::regprocedure::text as signature, p.proname as name, p.proconfig as settings,
           p.prosecdef as definer, l.lanname as language, p.proacl is null as default_acl
    from pg_proc p join pg_language l on l.oid = p.prolang
    where p.pronamespace = 'uvian'::regnamespace order by 1"""


@pytest.fixture
async def catalog(any_database: CleanDatabase) -> AsyncIterator[Connection]:
    """A superuser's connection."""
    connection = await asyncpg.connect(any_database.superuser_dsn)
    yield connection
    await connection.close()


# ─── what the catalog says ───────────────────────────────────────────────────────────────────────


async def test_every_relation_has_an_expectation(catalog: Connection) -> None:
    """A table, view or materialized view that nobody thought about fails here."""
    assert {row["relname"] for row in await catalog.fetch(_RELATIONS)} == TABLES


async def test_every_function_has_an_expectation(catalog: Connection) -> None:
    """Public names are listed one by one; the schema's own begin with an underscore."""
    names = {row["name"] for row in await catalog.fetch(_FUNCTIONS)}
    assert {name for name in names if not name.startswith(WITHIN)} == set(FUNCTIONS)


@pytest.mark.parametrize("role", [*ROLES, "public"])
async def test_tables_grant_exactly_what_is_expected(catalog: Connection, role: str) -> None:
    """Every table × every verb × every role, TRUNCATE included, which row level security does not stop."""
    for table in sorted(TABLES):
        for verb in VERBS:
            expected = (
                verb == "SELECT"
                and (role == "service_role" or (role == "authenticated" and table in OWN_ROWS))
            ) or (
                verb in ("INSERT", "UPDATE", "DELETE")
                and role == "service_role"
                and table in SERVICE_WRITES
            )
            granted = await catalog.fetchval(
                "select has_table_privilege($1::text, $2::text, $3::text)",
                role,
                f"uvian.{table}",
                verb,
            )
            assert granted == expected, (table, verb)
        columns = await catalog.fetchval(
            "select count(*) from pg_attribute where attrelid = $1::text::regclass and attacl is not null",
            f"uvian.{table}",
        )
        assert columns == 0, f"{table} has grants on single columns"


@pytest.mark.parametrize("role", [*ROLES, "public"])
async def test_functions_grant_exactly_what_is_expected(catalog: Connection, role: str) -> None:
    """Every function × every role; Postgres itself grants a new function to everybody."""
    for function in await catalog.fetch(_FUNCTIONS):
        granted = await catalog.fetchval(
            "select has_function_privilege($1::text, $2::text, 'execute')",
            role,
            function["signature"],
        )
        assert granted == (role in (FUNCTIONS | AS_THE_CALLER).get(function["name"], ())), function[
            "signature"
        ]
        assert not function["default_acl"], f"{function['signature']} is executable by PUBLIC"


async def test_sequences_and_types_belong_to_nobody_else(catalog: Connection) -> None:
    """Nothing to guess the number of a user's entries from."""
    for role in ("anon", "authenticated"):
        sequences = await catalog.fetch(
            "select relname from pg_class where relnamespace = 'uvian'::regnamespace and case relkind "
            "when 'S' then has_sequence_privilege($1::text, oid, 'usage, select, update') end",
            role,
        )
        assert sequences == []
        types = await catalog.fetch(
            "select typname from pg_type where typnamespace = 'uvian'::regnamespace and typtype = 'c' "
            "and typrelid in (select oid from pg_class where relkind = 'c') "
            "and has_type_privilege($1::text, oid, 'usage')",
            role,
        )
        assert types == []


async def test_nobody_creates_in_the_schema(catalog: Connection) -> None:
    """USAGE to reach what is granted, CREATE to none."""
    for role in ROLES:
        assert await catalog.fetchval(
            "select has_schema_privilege($1::text, 'uvian', 'usage')", role
        )
        assert not await catalog.fetchval(
            "select has_schema_privilege($1::text, 'uvian', 'create')", role
        )


async def test_row_level_security_is_on_everywhere(catalog: Connection) -> None:
    """Also on tables nobody is granted: a grant by mistake then shows nothing."""
    off = await catalog.fetch(
        "select relname from pg_class where relnamespace = 'uvian'::regnamespace and relkind = 'r' "
        "and not relrowsecurity"
    )
    assert off == []


async def test_policies_are_the_owners_and_ask_once_per_statement(catalog: Connection) -> None:
    """`(select auth.uid())` is evaluated once; without the select, for every row.

    So is the array of the caller's conversations, in which a row of any of them is looked up.
    """
    policies = await catalog.fetch("select * from pg_policies where schemaname = 'uvian'")
    assert {row["tablename"] for row in policies} == OWN_ROWS
    for policy in policies:
        assert (policy["cmd"], policy["roles"], policy["permissive"]) == (
            "SELECT",
            ["authenticated"],
            "PERMISSIVE",
        )
        once = (
            "ARRAY( SELECT uvian.my_conversations() AS my_conversations)"
            if policy["tablename"] in SHARED_ROWS
            else "( SELECT auth.uid() AS uid)"
        )
        assert once in policy["qual"], policy["policyname"]


async def test_every_function_pins_its_search_path(catalog: Connection) -> None:
    """A schema of the caller's cannot slip another table or operator under a function of ours."""
    for function in await catalog.fetch(_FUNCTIONS):
        assert 'search_path=""' in (function["settings"] or []), function["signature"]


async def test_public_functions_wait_a_second_at_most(catalog: Connection) -> None:
    """A lock that somebody holds does not tie up a connection until the statement times out."""
    # They wait for no lock, or one row.
    exempt = {"calculate_cost", "my_conversations", "platform_state", "retire_worker"}
    for function in await catalog.fetch(_FUNCTIONS):
        if function["name"] in FUNCTIONS and function["name"] not in exempt:
            assert "lock_timeout=1s" in function["settings"], function["signature"]


async def test_only_entry_points_run_as_their_owner(catalog: Connection) -> None:
    """Public functions and triggers do; the schema's own inherit it from them."""
    triggers = {
        row["name"]
        for row in await catalog.fetch(
            "select proname as name from pg_proc where pronamespace = 'uvian'::regnamespace "
            "and prorettype = 'trigger'::regtype"
        )
    }
    for function in await catalog.fetch(_FUNCTIONS):
        if function["name"].startswith(WITHIN) and function["name"] not in triggers:
            assert not function["definer"], function["signature"]
        elif function["name"] in FUNCTIONS:
            as_owner = function["name"] not in AS_THE_CALLER
            assert function["definer"] == as_owner, function["signature"]


async def test_both_default_privileges_end_alike(
    database: CleanDatabase, old_database: CleanDatabase
) -> None:
    """Strict and old projects have the same ACLs on every object, to the letter."""
    lists = []
    for clean in (database, old_database):
        connection = await asyncpg.connect(clean.superuser_dsn)
        rows = await connection.fetch(
            """
            select 'schema' as kind, nspname::text as name, nspacl as acl from pg_namespace
              where nspname = 'uvian'
            union all select 'relation ' || relkind::text, relname, relacl from pg_class
              where relnamespace = 'uvian'::regnamespace and relkind in ('r', 'S', 'v', 'm', 'c')
            union all select 'function', oid::regprocedure::text, proacl from pg_proc
              where pronamespace = 'uvian'::regnamespace
            union all select 'type', typname, typacl from pg_type
              where typnamespace = 'uvian'::regnamespace and typtype = 'c' and typacl is not null"""
        )
        lists.append(
            {(row["kind"], row["name"]): sorted(row["acl"] or ["default"]) for row in rows}
        )
        await connection.close()
    assert lists[0] == lists[1]


# ─── what happens when they try ──────────────────────────────────────────────────────────────────


@pytest.fixture
async def door(any_database: CleanDatabase) -> AsyncIterator[Connection]:
    """The connection of PostgREST's login role."""
    connection = await asyncpg.connect(any_database.authenticator_dsn)
    yield connection
    await connection.close()


async def test_everybody_sees_what_is_theirs_and_nothing_else(
    world: World, owner: str, door: Connection
) -> None:
    """Every table × {anon, another user, the owner, the service}, with rows in every one."""
    stranger = await world.user()
    callers = {
        "anon": Caller(door, "anon", None),
        "nobody": Caller(door, "authenticated", None),
        "stranger": Caller(door, "authenticated", stranger),
        "owner": Caller(door, "authenticated", owner),
        "service": Caller(door, "service_role", None),
    }
    for table in sorted(TABLES):
        there = await world.hand.fetchval(f"select count(*) from uvian.{table}")
        assert there > 0, f"the test has no row in {table}"
        for name, caller in callers.items():
            statement = f"select * from uvian.{table}"
            if name == "anon" or (name != "service" and table not in OWN_ROWS):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await caller.fetch(statement)
            else:
                seen = await caller.fetch(statement)
                assert len(seen) == (there if name in ("owner", "service") else 0), (table, name)


@pytest.mark.parametrize("who", ["anon", "stranger", "owner"])
async def test_nobody_but_the_service_writes(
    world: World, owner: str, door: Connection, who: str
) -> None:
    """Every table × {insert, update, delete, truncate}: refused before a row is looked at."""
    stranger = await world.user()
    user = {"anon": None, "stranger": stranger, "owner": owner}[who]
    caller = Caller(door, "anon" if who == "anon" else "authenticated", user)
    for table in sorted(TABLES):
        column = await world.hand.fetchval(
            "select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0 "
            "and attidentity = '' and attgenerated = '' order by attnum limit 1",
            f"uvian.{table}",
        )
        for statement in (
            f"insert into uvian.{table} default values",
            f"update uvian.{table} set {column} = {column}",
            f"delete from uvian.{table}",
            f"truncate uvian.{table} cascade",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await caller.fetch(statement)


async def test_the_service_writes_only_what_is_its_own_to_write(
    world: World, owner: str, door: Connection
) -> None:
    """Leases, states, runs, books and heartbeats change in functions alone."""
    service = Caller(door, "service_role", None)
    for table in sorted(TABLES - SERVICE_WRITES):
        for statement in (f"delete from uvian.{table}", f"truncate uvian.{table} cascade"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await service.fetch(statement)
    for table in sorted(SERVICE_WRITES):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.fetch(f"truncate uvian.{table} cascade")


async def test_functions_are_refused_to_whom_they_are_not_for(
    world: World, owner: str, door: Connection
) -> None:
    """Every function × {anon, authenticated, service_role}, called for real with nulls."""
    rows = await world.hand.fetch(
        "select p.proname as name, array(select format_type(t, null) from unnest(p.proargtypes) t) as types "
        "from pg_proc p where p.pronamespace = 'uvian'::regnamespace and p.prorettype <> 'trigger'::regtype"
    )
    for row in rows:
        arguments = ", ".join(f"null::{type_}" for type_ in row["types"])
        statement = f"select uvian.{row['name']}({arguments})"
        for role in ROLES:
            caller = Caller(door, role, owner if role == "authenticated" else None)
            if role in (FUNCTIONS | AS_THE_CALLER).get(row["name"], ()):
                try:
                    await caller.fetch(statement)
                except asyncpg.InsufficientPrivilegeError as error:
                    raise AssertionError(f"{role} may not call {row['name']}: {error}") from error
                except asyncpg.PostgresError:
                    pass  # nulls are refused, but by the function itself
            else:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await caller.fetch(statement)


# ─── who is the service ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("login", "role", "expected"),
    [
        ("authenticator", "service_role", True),
        ("authenticator", "authenticated", False),
        ("authenticator", "anon", False),
        ("authenticator", None, False),
        ("uvian_migrator", None, True),
        ("uvian_migrator", "authenticated", False),
        ("uvian_migrator", "anon", False),
        ("postgres", None, True),
        ("postgres", "authenticated", False),
    ],
)
async def test_the_role_decides_who_is_the_service(
    any_database: CleanDatabase, catalog: Connection, login: str, role: str | None, expected: bool
) -> None:
    """Not the claims: a session that became a user and forgot to say which is nobody, not the service."""
    dsns = {
        "authenticator": any_database.authenticator_dsn,
        "uvian_migrator": any_database.dsn,
        "postgres": any_database.superuser_dsn,
    }
    await catalog.execute("grant execute on function uvian._is_service() to public")
    connection = await asyncpg.connect(dsns[login])
    try:
        for claims in ("", "{}", '{"role": "service_role"}', '{"role": "authenticated"}'):
            await connection.execute("select set_config('request.jwt.claims', $1, false)", claims)
            if role is not None:
                await connection.execute(f"set role {role}")
            assert await connection.fetchval("select uvian._is_service()") == expected, claims
    except asyncpg.InsufficientPrivilegeError:
        assert (login, role) == ("authenticator", None)  # it may not even look into the schema
    finally:
        await connection.close()


async def test_set_role_without_claims_does_not_make_the_service(world: World, owner: str) -> None:
    """The hole that a check of the claims alone would leave: a user without claims cancels anybody's job."""
    job = await world.create(owner)
    connection = await asyncpg.connect(world.clean.authenticator_dsn)
    try:
        await connection.execute("set role authenticated")
        for arguments in ("$1", "$1, null"):
            with pytest.raises(asyncpg.PostgresError, match="not_found"):
                await connection.execute(
                    f"select uvian.cancel_job({arguments})", uuid.UUID(job["id"])
                )
    finally:
        await connection.close()
    assert (await world.row(job))["status"] == "queued"


async def test_the_machines_mark_is_no_way_in(world: World, owner: str, door: Connection) -> None:
    """Setting uvian.writer makes nobody a function: the grants stand before the triggers."""
    async with door.transaction():
        await door.execute("set local role authenticated")
        await door.execute("set local uvian.writer = 'function'")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await door.execute("update uvian.jobs set status = 'completed'")


async def test_a_foreign_schema_on_the_path_changes_nothing(world: World, owner: str) -> None:
    """Objects of the same name, first on the caller's search path, are not what our functions find."""
    await world.hand.execute(
        """
        create schema trap;
        create function trap.now() returns timestamptz language sql as 'select ''2000-01-01''::timestamptz';
        create table trap.jobs (id uuid);
        grant usage on schema trap to public;
        """
    )
    connection = await asyncpg.connect(world.clean.dsn)
    try:
        await connection.execute("set search_path = trap, uvian, public, pg_catalog")
        request = orjson.dumps({"jobs": [{"user_id": owner, "type": "noop", "input": {}}]}).decode()
        answer = await connection.fetchval(
            "select uvian.create_jobs($1::text::jsonb)::text", request
        )
        assert orjson.loads(answer)["jobs"][0]["job"]["created_at"] > "2020"
    finally:
        await connection.close()
