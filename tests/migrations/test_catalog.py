"""The one schema is the schema that it was: every object, compared with a dump made before.

``catalog_before.txt`` is what the 31 migrations left that came before ``repositories/sql`` (at
e233ef1, of PostgreSQL 18). What was changed on purpose since is named here, object by object. Once a
release is kept in ``releases/``, its upgrade says the same of everything that follows.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.migrations.catalog import described, ours, read_description
from tests.servers import CleanDatabase
from uvian_worker.schema.migrate import migrate

pytestmark = pytest.mark.database

BEFORE = Path(__file__).with_name("catalog_before.txt")

#: Objects that have another name now, and no other meaning.
RENAMED = {
    r"\b_bury\b": "_reap",
    r"\b_books_are_append_only\b": "_credit_ledger_is_append_only",
    r"\b_place\b": "_slot",
    r"\b_(lock|hold)_places\b": r"_\1_slots",
    r"\b_places_free\b": "_slots_free",
    r"\b_(before|after)_hand\b": r"_\1_manual_edit",
    r"\bby_hand(_after)?\b": r"manual_edit\1",
    r"\b_ending\b": "_terminal_event",
    r"\bendings_of\b": "terminal_events_of",
    r"'ending(s?)'": r"'terminal_event\1'",
    r"'uvian place '": "'uvian slot '",
}

#: What is meant to differ, and why: an object that was added, removed or changed.
_FILES = "the history knows repeatable files by their names, and which release applied a file"
_RUNS = "the history: how each run waited, ran and ended"
_WORDS = "a variable, a column or a sentence has a plainer name"
CHANGED: dict[str, str] = {
    "column uvian jobs queued_at": "when the latest run began to wait",
    **{
        f"column uvian job_runs {column}": _RUNS
        for column in (
            "queued_at",
            "run_at",
            "claimed_at",
            "reported",
            "error",
            "stages",
            "retried_at",
        )
    },
    "published in supabase_realtime uvian jobs": "queued_at",
    "function uvian._reason(uvian.jobs)": "why a job waits for another run",
    "function uvian._dispatch(uvian.jobs)": "… which dispatch is told",
    "function uvian._error(text,text,integer)": "its caller says whether the job may work later:",
    "function uvian._error(text,text,integer,boolean)": "… an argument more",
    "function uvian._give_up(uuid[])": "… an argument more",
    "function uvian.settle_jobs(jsonb)": "answers with the next run as dispatch needs it",
    "function uvian._end(uvian._verdict[])": _RUNS,
    "function uvian._requeue(uvian._verdict[])": _RUNS,
    "function uvian._reap(uuid[])": "a lost run keeps its error, also when the job runs again",
    "function uvian.retry_job(uuid,bigint,uuid,text)": "a retried run stays what it ended as",
    "function uvian._restart(uvian.jobs,boolean,timestamp with time zone,interval)": "queued_at",
    "column uvian schema_migrations min_code": _FILES,
    "column uvian schema_migrations release": _FILES,
    "column uvian schema_migrations version": _FILES,
    "column uvian schema_migrations_pkey name": _FILES,
    "column uvian schema_migrations_pkey version": _FILES,
    "column uvian schema_migrations_version_key version": _FILES,
    "constraint uvian.schema_migrations schema_migrations_check": _FILES,
    "constraint uvian.schema_migrations schema_migrations_pkey": _FILES,
    "constraint uvian.schema_migrations schema_migrations_version_key": _FILES,
    "column uvian sweeps asked": _WORDS,
    "column uvian sweeps request_id": _WORDS,
    "function uvian._claimed(uuid[],text)": _WORDS,
    "function uvian._hold_slots(uuid[],uuid[],text[])": _WORDS,
    "function uvian._judge(jsonb)": _WORDS,
    "function uvian._let_in(uuid[],interval)": _WORDS,
    "function uvian._lock_files(uuid[])": _WORDS,
    "function uvian._show_progress(jsonb,uuid[])": _WORDS,
    "function uvian._store_answers(uvian._verdict[])": _WORDS,
    "function uvian._verdicts(jsonb,text)": _WORDS,
    "function uvian.claim_jobs(jsonb)": _WORDS,
    "function uvian.claim_next_jobs(jsonb)": _WORDS,
    "function uvian.mark_jobs(jsonb)": _WORDS,
    "function uvian.platform_state(jsonb)": _WORDS,
    "function uvian.sweep_jobs(jsonb)": _WORDS,
    "function uvian.terminal_events_of(jsonb)": _WORDS,
    "row of job_types chat": _WORDS,
    "index uvian schema_migrations_pkey": _FILES,
    "index uvian schema_migrations_version_key": _FILES,
}


def comparable(objects: dict[str, str]) -> dict[str, str]:
    """Comments in a body may be written better, and a new column may stand between others."""
    texts = {name: re.sub(r"\s*--[^\n]*", "", text) for name, text in objects.items()}
    return {
        name: re.sub(r"^\d+: ", "", text) if name.startswith("column ") else text
        for name, text in texts.items()
    }


async def test_a_fresh_database_has_what_it_had_before(plain: CleanDatabase) -> None:
    """Tables, columns, functions to the letter, triggers, policies, grants, first rows."""
    await migrate(plain.dsn)
    now = comparable(described(await ours(plain.superuser_dsn, published=True)))
    text = BEFORE.read_text(encoding="utf-8")
    for old, new in RENAMED.items():
        text = re.sub(old, new, text)
    before = comparable(read_description(text))
    differ = {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)}
    assert differ == set(CHANGED), "name what was changed on purpose in CHANGED"
