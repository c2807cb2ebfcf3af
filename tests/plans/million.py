"""A database with a million jobs, made in seconds, and connections whose plans are heard."""

from __future__ import annotations

__all__ = ["JOBS", "Explained", "add_backlog", "fill"]

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson

from repositories.postgres import PostgresDatabase

JOBS = 1_000_000
JIT_ABOVE_COST = 100_000  #: Postgres's default

#: Tables that grow with history. The others hold what runs or is configured, and are small for ever:
#: job_leases has a row per running job, workers one per process, sweeps one.
GROWING = frozenset(
    {
        "jobs",
        "job_state",
        "job_runs",
        "credit_accounts",
        "credit_entries",
        "concepts",
        "concept_variations",
        "conversations",
        "conversation_members",
        "messages",
    }
)

_FILL = f"""
set session_replication_role = replica;  -- neither triggers nor foreign keys: the rows are consistent
set synchronous_commit = off;
insert into auth.users (id) select gen_random_uuid() from generate_series(1, 1000);
insert into uvian.job_types (type) values ('noop'), ('other');
insert into uvian.job_prices values ('other', 1), ('chat', 1);
insert into uvian.workers (name, types, release, started_at)
  values ('w1', '{{generation}}', '1', now() - interval '1 day');

create temp table users as select id, row_number() over () - 1 as n from auth.users;
-- Ten conversations of each user; a sixth of the jobs are chats in them, of which one has the turn.
create temp table talks as
  select gen_random_uuid() as id, u.id as user_id, u.n, k from users u, generate_series(0, 9) k;
insert into uvian.conversations (id, user_id, last_position) select id, user_id, {JOBS} from talks;
insert into uvian.conversation_members (conversation_id, user_id, role)
  select id, user_id, 'owner' from talks;
create temp table numbered as
  select gen_random_uuid() as id, c.n, c.at, c.status, t.id as conversation_id, c.n % 6 = 4 as chat
  from (select n, now() - interval '30 days' + n * interval '2.5 s' as at,
               case when n % 100 = 0 and n > {JOBS} * 0.8 then 'queued' when n % 997 = 1 then 'processing'
                    when n % 50 = 7 then 'failed' else 'completed' end as status
        from generate_series(1, {JOBS}) n) c
  join talks t on t.n = c.n % 1000 and t.k = c.n / 1000 % 10;
create temp table line as
  select id, row_number() over (partition by conversation_id order by status = 'processing' desc, n) as turn
  from numbered where chat and status in ('queued', 'processing');
-- A quarter of a million messages, a tenth of them in one conversation.
insert into uvian.messages (id, conversation_id, position, user_id, role, content, job_id)
  select case when m.chat then uvian._answer_id(m.id) else gen_random_uuid() end,
         case when m.n % 40 = 0 then (select id from talks where n = 0 and k = 0) else m.conversation_id end,
         m.n,
         case when not m.chat then c.user_id end, case when m.chat then 'assistant' else 'user' end,
         'What was said.', case when m.chat then m.id end
  from numbered m join talks c on c.id = m.conversation_id where m.n % 4 = 0 order by 2, 3;

insert into uvian.jobs (id, user_id, type, status, input, run, admitted, run_at, created_at, finished_at,
                        idempotency_key, conversation_id, turn, its_turn)
  select m.id, u.id, case when m.chat then 'chat' when m.n % 3 = 0 then 'other' else 'noop' end, m.status,
         case when m.chat then jsonb_build_object('conversation_id', m.conversation_id) else '{{}}' end, 1,
         m.n % 400 <> 0 and coalesce(l.turn = 1, true),
         case when m.n % 700 = 0 then now() + interval '1 day' else m.at end, m.at,
         case when m.status in ('completed', 'failed') then m.at end,
         case when m.n % 2 = 0 then m.n::text end,
         case when m.chat then m.conversation_id end, l.turn, not m.chat or coalesce(l.turn = 1, false)
  from numbered m join users u on u.n = m.n % 1000 left join line l on l.id = m.id;
insert into uvian.job_state (job_id, redispatch_at, announce_at)
  select id, case when status = 'queued' and n % 400 <> 0 and coalesce(turn = 1, true) then soon end,
         case when status = 'completed' and n > {JOBS} - 2000 then soon end
  from (select m.*, l.turn, now() + (n % 20 - 10) * interval '1 min' as soon
        from numbered m left join line l on l.id = m.id) m;
insert into uvian.job_runs (job_id, run, worker, outcome, status, attempt, cost)
  select id, 1, 'w', status, status, 0, 0 from numbered where status in ('completed', 'failed');
insert into uvian.job_leases (job_id, run, worker, expires_at)
  select id, 1, 'w' || n % 10, now() + (n % 20 - 10) * interval '1 min'
  from numbered where status = 'processing';
insert into uvian.credit_accounts (user_id, balance) select id, 1000 from auth.users;
insert into uvian.credit_entries (user_id, job_id, reservation, kind, amount)
  select u.id, m.id, 1, 'reserve', 1 from numbered m join users u on u.n = m.n % 1000 where m.n % 5 = 0;
insert into uvian.concepts (id, user_id, job_id, run, logo_description, theme_description, image_path,
                            width, height)
  select gen_random_uuid(), u.id, m.id, 1, 'a', 'b', 'c', 1, 1
  from numbered m join users u on u.n = m.n % 1000 where m.n % 7 = 0;
update uvian.sweeps set last_at = now(), hold_until = now() - interval '1 s';
drop table line, numbered, talks, users;
"""


async def fill(superuser_dsn: str) -> None:
    """A million jobs of a thousand users: most ended, some queued, some running, some to announce."""
    hand = await asyncpg.connect(superuser_dsn)
    try:
        # Filled first and indexed after: a third of the time.
        indexes = await hand.fetch(
            "select i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as definition "
            "from pg_index i join pg_class c on c.oid = i.indrelid "
            "left join pg_constraint k on k.conindid = i.indexrelid "
            "where c.relnamespace = 'uvian'::regnamespace and k.oid is null"
        )
        for table in GROWING:
            await hand.execute(f"alter table uvian.{table} set (autovacuum_enabled = false)")
        for index in indexes:
            await hand.execute(f"drop index {index['name']}")
        await hand.execute("set maintenance_work_mem = '256MB'; set work_mem = '128MB'")
        await hand.execute(_FILL)
        for index in indexes:
            await hand.execute(index["definition"])
    finally:
        await hand.close()


_BACKLOG = """
with made as (
  insert into uvian.jobs (user_id, type, priority)
    select $1, 'noop', n % 50 from generate_series(1, $2) n returning id
) insert into uvian.job_state (job_id, redispatch_at) select id, now() from made
"""

_LINE = """
with made as (
  insert into uvian.jobs (user_id, type, input, conversation_id, turn, its_turn, admitted)
    select user_id, 'chat', jsonb_build_object('conversation_id', id), id, n, false, false
    from uvian.conversations, generate_series(100, 100 + $2::integer) n where id = $1 returning id
) insert into uvian.job_state (job_id) select id from made
"""


async def add_backlog(superuser_dsn: str, user: str, conversation: str, number: int) -> None:
    """So many queued jobs, and so many chats that wait in a conversation; no statistics know of them."""
    hand = await asyncpg.connect(superuser_dsn)
    try:
        await hand.execute("set session_replication_role = replica")
        await hand.execute(_BACKLOG, user, number)
        await hand.execute(_LINE, conversation, number)
    finally:
        await hand.close()


class Explained:
    """One connection on which every plan is told, those inside functions included."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self.connection = connection
        self.told: list[dict[str, Any]] = []
        connection.add_log_listener(self._hear)

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, superuser_dsn: str) -> AsyncIterator[Explained]:
        """As a superuser, who alone may load auto_explain."""
        connection = await asyncpg.connect(superuser_dsn, statement_cache_size=0)
        try:
            await connection.execute(
                """
                load 'auto_explain';
                set auto_explain.log_min_duration = 0;
                set auto_explain.log_nested_statements = on;
                set auto_explain.log_triggers = on;
                set auto_explain.log_analyze = on;
                set auto_explain.log_timing = off;
                set auto_explain.log_settings = on;
                set auto_explain.log_format = json;
                set auto_explain.log_level = notice;
                """
            )
            yield cls(connection)
        finally:
            await connection.close()

    async def forget(self) -> None:
        """What was told so far was not the point."""
        await self.catch_up()
        self.told.clear()

    async def catch_up(self) -> None:
        """The plan of a statement comes after its rows: with the next, a turn of the loop later."""
        await self.connection.execute("select 1")
        await asyncio.sleep(0)

    def _hear(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        _, found, plan = str(message.message).partition("plan:\n")
        if found:
            self.told.append(orjson.loads(plan))

    @property
    def port(self) -> PostgresDatabase:
        """The adapter on this connection, so that its own statements are explained."""
        pool: Any = _OnePool(self.connection)
        return PostgresDatabase(pool, pool, listener=None, timeout=30)

    def compiled(self) -> list[str]:
        """Statements that a server with LLVM compiles before it runs them, if only for their costs."""
        return [
            plan["Query Text"]
            for plan in self.told
            if "JIT" in plan
            or (
                plan["Plan"]["Total Cost"] > JIT_ABOVE_COST
                and plan.get("Settings", {}).get("jit") != "off"
            )
        ]

    def scans(self) -> list[tuple[str, str, int, str]]:
        """(relation, how it is scanned, rows looked at, statement) of all scans of growing tables."""
        return [(*scan, plan["Query Text"]) for plan in self.told for scan in _scans(plan["Plan"])]


class _OnePool:
    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    @contextlib.asynccontextmanager
    async def acquire(self, timeout: float) -> AsyncIterator[asyncpg.Connection[Any]]:
        yield self._connection


def _scans(node: dict[str, Any]) -> list[tuple[str, str, int]]:
    found = []
    if node.get("Relation Name") in GROWING and "Scan" in node["Node Type"]:
        each = node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)
        each += node.get("Rows Removed by Index Recheck", 0)
        how = f"{node['Node Type']} {node.get('Index Name', '')}".strip()
        found.append((node["Relation Name"], how, round(each * node.get("Actual Loops", 1))))
    for child in node.get("Plans", ()):
        found += _scans(child)
    return found
