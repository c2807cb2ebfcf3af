"""A concept that is stopped or incomplete: what its user was told of is kept and paid for, no more."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from executors.events import Event, ImageReady
from executors.stages import palette_variations
from repositories.concepts import UserConcepts
from repositories.database import Filter, Row
from repositories.errors import PictureRefused
from repositories.files import FileRepository
from tests.executors.site import Site

pytestmark = pytest.mark.database

ASKED = {
    "logo_description": "a fox",
    "theme_description": "autumn",
    "size": 256,
    "num_palettes": 2,
    "seed": 3,
}
PRICE = 3  #: a credit a picture


async def rich(site: Site) -> str:
    """A user with credits; both kinds of concepts have a price."""
    user = await site.user()
    for type_ in ("generation", "refinement"):
        await site.sql(
            "insert into uvian.job_prices values ($1, $2) on conflict do nothing", type_, PRICE
        )
    await site.database.call("grant_credits", user_id=user, amount="1000", reference="first")
    return user


async def run(site: Site, user: str, type_: str, stop_at: int | None, **input_: Any) -> Row:
    """Run a job that is cancelled at that event; its row, with the pictures that were announced."""
    job = {"user_id": user, "type": type_, "input": input_}
    answer = await site.database.call("create_jobs", request={"jobs": [job]})
    job_id = str(answer["jobs"][0]["job"]["id"])
    return await go(site, job_id, 1, stop_at)


async def go(site: Site, job_id: str, run_: int, stop_at: int | None) -> Row:
    """One run of a job."""
    told: list[str] = []
    seen = 0

    def hear(event: Event) -> None:
        nonlocal seen
        if isinstance(event, ImageReady):
            told.append(event.path)
        if seen == stop_at:
            site.runner.cancel(job_id)
        seen += 1

    site.on_event = hear
    await site.runner.run(job_id, run_)
    site.on_event = lambda _: None
    (row,) = await site.database.select("jobs", where=[Filter("id", "eq", job_id)])
    return {**row, "told": told}


async def swept(site: Site) -> set[str]:
    """The files that are left when everything that nothing names has been removed."""
    files = FileRepository(site.database)
    while await files.remove_unnamed(site.images):
        pass
    root = site.images._root
    return {str(path.relative_to(root)) for path in root.rglob("*.*")}


async def named(site: Site, row: Row) -> set[str]:
    """The files of a job's concept."""
    if row["result_id"] is None:
        return set()
    concept = await UserConcepts(site.database, row["user_id"]).get(row["result_id"])
    return {concept.image_path, *(v.image_path for v in concept.variations)}


async def test_a_generation_that_is_stopped_at_any_moment(site: Site) -> None:
    """Told, kept, charged and on the disk are the same pictures, whenever it was."""
    user = await rich(site)
    costs = set()
    for position in range(60):
        row = await run(site, user, "generation", position, **{**ASKED, "seed": 100 + position})
        assert Decimal(str(row["cost"])) == len(row["told"]), position
        assert await named(site, row) == set(row["told"])
        assert await swept(site) == set(row["told"])
        costs.add(row["cost"])
        if row["status"] == "completed":
            break
        assert row["status"] == "cancelled"
        await site.sql("delete from uvian.concepts")
        assert await swept(site) == set()
    assert {0, 1, PRICE} <= costs


async def test_a_refinement_that_is_stopped(site: Site) -> None:
    """Its new pictures, and not its original, which is another concept's."""
    user = await rich(site)
    original = await run(site, user, "generation", None, **ASKED)
    for position in (4, 9, 12, 16):
        row = await run(
            site,
            user,
            "refinement",
            position,
            concept_id=original["result_id"],
            refinement_prompt="bluer",
            num_palettes=2,
            seed=position,
        )
        assert Decimal(str(row["cost"])) == len(row["told"])
        assert await named(site, row) == set(row["told"])
        assert await swept(site) >= set(original["told"])


async def test_a_retry_after_a_stop_pays_for_the_rest(site: Site) -> None:
    """The provider is not asked again, the paid pictures stay the same, the sum is the price."""
    user = await rich(site)
    position = 0
    while True:
        row = await run(site, user, "generation", position, **{**ASKED, "seed": 500 + position})
        if 0 < len(row["told"]) < PRICE:
            break
        position += 1
    kept = set(row["told"])
    await site.database.call("retry_job", job_id=row["id"], expected_run=1)
    again = await go(site, row["id"], 2, None)
    assert again["status"] == "completed"
    assert Decimal(str(again["cost"])) == PRICE - len(kept)
    assert kept <= await named(site, again) == await swept(site) - set()


@pytest.mark.parametrize("failing", [1, 2])
async def test_a_concept_without_some_of_its_pictures_costs_less(
    site: Site, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Its warnings say what is missing, and why, in words for its user."""
    user = await rich(site)
    drawn = palette_variations._drawn
    left = [failing - 1]

    def draw(*arguments: Any) -> Any:
        if left[0] >= 0:
            left[0] -= 1
            raise PictureRefused("x") if failing == 1 else MemoryError
        return drawn(*arguments)

    monkeypatch.setattr(palette_variations, "_drawn", draw)
    row = await run(site, user, "generation", None, **{**ASKED, "num_palettes": 2})
    if failing == 2:
        assert row["status"] == "queued"  # none of them: that is no concept, and it is tried again
        return
    assert row["status"] == "completed"
    assert Decimal(str(row["cost"])) == PRICE - failing
    (warning,) = row["output"]["warnings"]
    assert "is missing and not charged: the storage does not take" in warning["message"]
    assert "internal error" not in str(row["output"])


async def test_two_jobs_with_the_same_picture(site: Site, tmp_path: Path) -> None:
    """One is cancelled while the other runs: what they share stays, whoever ends first."""
    user = await rich(site)
    first = asyncio.ensure_future(run(site, user, "generation", None, **ASKED))
    second = asyncio.ensure_future(run(site, user, "generation", None, **ASKED))
    while not first.done() or not second.done():
        await swept(site)
        await asyncio.sleep(0.01)
    assert await swept(site) == await named(site, first.result())
    await site.sql(
        "delete from uvian.concepts where id = $1::text::uuid", first.result()["result_id"]
    )
    assert await swept(site) == await named(site, second.result())
