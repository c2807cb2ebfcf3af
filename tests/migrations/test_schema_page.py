"""docs/schema.md says what the catalog says."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tests.servers import CleanDatabase
from uvian_worker.schema.migrate import migrate

ROOT = Path(__file__).parents[2]


@pytest.mark.database
async def test_the_page_is_that_of_a_fresh_database(
    plain: CleanDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables, columns, rights, functions and who calls them: otherwise run `make docs`."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    generator = importlib.import_module("generate_schema")
    await migrate(plain.dsn)
    page = generator.page(await generator.catalog(plain.superuser_dsn))
    assert (ROOT / "docs" / "schema.md").read_text(encoding="utf-8") == page
    sys.modules.pop("generate_schema")


@pytest.mark.database
async def test_every_function_has_a_purpose_and_a_caller(
    plain: CleanDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that nobody calls is dead; what serves the operator, or a user's own browser, says so here."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    generator = importlib.import_module("generate_schema")
    await migrate(plain.dsn)
    page = generator.page(await generator.catalog(plain.superuser_dsn))
    rows = [
        line.split(" | ")
        for line in page.splitlines()
        if line.startswith("| `") and "` → `" in line
    ]
    assert len(rows) > 100
    assert [row[0] for row in rows if not row[2].strip()] == []
    unused = {row[0].partition("(")[0].lstrip("| `") for row in rows if row[3].strip(" |") == "-"}
    assert unused == set()
