"""A refinement on the real database: its parent, its palettes, and a parent that goes away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from executors.events import Event
from repositories.concepts import Concept, UserConcepts
from repositories.images import UserImages
from tests.executors.site import Site

pytestmark = pytest.mark.database


async def refined(site: Site, user: str, original: Concept, **changed: Any) -> Concept:
    """The concept that a refinement of another has made."""
    asked = {"concept_id": original.id, "refinement_prompt": "rounded corners, warmer", **changed}
    row = await site.run(user, "refinement", **asked)
    assert row["status"] == "completed", row["error_message"]
    assert row["result_id"] == row["output"]["concept_id"]
    return await UserConcepts(site.database, user).get(row["result_id"])


async def test_a_line_of_concepts(site: Site) -> None:
    """Each is the child of the one before; descriptions and palettes come down all the way."""
    user = await site.user()
    first = await site.concept(user)
    second = await refined(site, user, first)
    third = await refined(site, user, second, num_palettes=2)
    assert (second.parent_id, third.parent_id) == (first.id, second.id)
    assert second.variations == []
    assert [v.palette for v in third.variations] == [v.palette for v in first.variations]
    assert [v.name for v in third.variations] == [v.name for v in first.variations]
    for child in (second, third):
        assert child.logo_description == first.logo_description
        assert child.theme_description == first.theme_description
        assert child.details["refinement"] == {
            "prompt": "rounded corners, warmer",
            "strength": None,
            "provider": "local",
            "model": "refining-1",
            "operations": ["warmer 70 %", "rounded corners"],
        }
    paths = {first.image_path, second.image_path, third.image_path}
    assert len(paths) == 3
    for path in paths:
        assert await UserImages(site.images, user).get(path)


async def test_a_parent_that_is_deleted_meanwhile(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is not lost with it: the child is stored without a parent, and says so."""
    user = await site.user()
    original = await site.concept(user)
    deleting: list[asyncio.Task[None]] = []

    def delete(event: Event) -> None:
        if event.type == "stage.finished" and getattr(event, "stage", "") == "image_refinement":
            statement = f"delete from uvian.concepts where id = '{original.id}'"
            deleting.append(asyncio.ensure_future(site.sql(statement)))

    put = site.images.put

    async def put_after_that(*args: Any) -> Any:
        await asyncio.gather(*deleting)
        return await put(*args)

    monkeypatch.setattr(site.images, "put", put_after_that)
    site.on_event = delete
    row = await site.run(user, "refinement", concept_id=original.id, refinement_prompt="neon")
    assert row["status"] == "completed", row["error_message"]
    assert [warning["code"] for warning in row["output"]["warnings"]] == ["parent_missing"]
    assert row["output"]["parent_id"] is None
    child = await UserConcepts(site.database, user).get(row["result_id"])
    assert (child.parent_id, child.logo_description) == (None, original.logo_description)


async def test_a_parent_that_is_deleted_later(site: Site) -> None:
    """Its child stays."""
    user = await site.user()
    original = await site.concept(user)
    child = await refined(site, user, original)
    await site.sql(f"delete from uvian.concepts where id = '{original.id}'")
    assert (await UserConcepts(site.database, user).get(child.id)).parent_id is None
