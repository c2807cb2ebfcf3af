"""docs/database.md says what is there, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import orjson
import pytest

import repositories
from repositories.database import SIGNATURES, Table
from tests.lifecycle.world import World

ROOT = Path(repositories.__file__).parent
PAGE = (ROOT.parent / "docs" / "database.md").read_text(encoding="utf-8")


def test_every_table_function_and_code_is_described() -> None:
    """What is added to the schema is added to the page."""
    described = set(re.findall(r"`([a-z_]+)[`(]", PAGE))
    sql = "".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "sql").rglob("*.sql"))
    )
    raised = set(re.findall(r"message = '([a-z_]+)'", sql))
    create = (ROOT / "sql/functions/create.sql").read_text(encoding="utf-8")
    refused = set(re.findall(r"then '([a-z_]+)'\n", create))
    refused |= set(re.findall(r"when '([a-z_]+)' then jsonb_build_object\('message'", create))
    assert {"not_found", "type_in_use"} <= raised
    assert {"unknown_type", "too_many_queued"} <= refused
    assert described >= set(SIGNATURES) | set(get_args(Table)) | raised | refused


@pytest.mark.database
async def test_the_examples_of_a_worker_run(world: World) -> None:
    """Each call as it is printed, on a job of the id it names."""
    calls = re.findall(r"^rpc ([a-z_]+) '(.+)'$", PAGE, re.MULTILINE)
    assert [name for name, _ in calls] == [
        "register_worker",
        "claim_next_jobs",
        "claim_jobs",
        "renew_leases",
        "settle_jobs",
    ]
    answers = {}
    user = await world.user()
    for name, body in calls:
        if name == "claim_jobs":
            await world.create(user, "generation", id="9b2f6a1e-8c1d-4f0e-9d55-0c8e6c2f1a77")
        answers[name] = await world.service.call(name, **orjson.loads(body))
    assert answers["claim_jobs"]["jobs"][0]["claimed"]
    assert answers["renew_leases"] == {"lost": [], "cancel": []}
    assert answers["settle_jobs"]["jobs"][0]["status"] == "completed"
