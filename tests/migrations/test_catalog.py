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

#: What is meant to differ, and why: an object that was added, removed or changed.
_HISTORY = "the history knows repeatable files by their names, and which release applied a file"
CHANGED: dict[str, str] = {
    "column uvian schema_migrations applied_at": _HISTORY,
    "column uvian schema_migrations min_code": _HISTORY,
    "column uvian schema_migrations name": _HISTORY,
    "column uvian schema_migrations release": _HISTORY,
    "column uvian schema_migrations version": _HISTORY,
    "column uvian schema_migrations_pkey name": _HISTORY,
    "column uvian schema_migrations_pkey version": _HISTORY,
    "column uvian schema_migrations_version_key version": _HISTORY,
    "constraint uvian.schema_migrations schema_migrations_check": _HISTORY,
    "constraint uvian.schema_migrations schema_migrations_pkey": _HISTORY,
    "constraint uvian.schema_migrations schema_migrations_version_key": _HISTORY,
    "index uvian schema_migrations_pkey": _HISTORY,
    "index uvian schema_migrations_version_key": _HISTORY,
}


def without_comments(objects: dict[str, str]) -> dict[str, str]:
    """A comment in a body may be written better."""
    return {name: re.sub(r"\s*--[^\n]*", "", text) for name, text in objects.items()}


async def test_a_fresh_database_has_what_it_had_before(plain: CleanDatabase) -> None:
    """Tables, columns in their order, functions to the letter, triggers, policies, grants, first rows."""
    await migrate(plain.dsn)
    now = without_comments(described(await ours(plain.superuser_dsn, published=True)))
    before = without_comments(read_description(BEFORE.read_text(encoding="utf-8")))
    differ = {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)}
    assert differ == set(CHANGED), "name what was changed on purpose in CHANGED"
