"""Concepts and their pictures over HTTP: made by a real runner, fetched by signed addresses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from repositories.local import LocalImages
from tests.adapters import over_postgres_only
from tests.gateway.site import Caller, Site
from uvian_worker.worker.services import Services, open_services

pytestmark = pytest.mark.database

_SMALL = {"logo_description": "A fox", "theme_description": "woods", "size": 256, "num_palettes": 2}


@pytest.fixture
async def services(site: Site) -> AsyncIterator[Services]:
    """What a worker has, on the settings of the gateway."""
    async with open_services(site.config) as services:
        yield services


async def generated(site: Site, services: Services, user: Caller) -> dict[str, Any]:
    """A job that has run to its end."""
    job = await site.made(user, "generation", input=_SMALL)
    await services.runner.run(job["id"], 1)
    shown = (await user.get(f"/v1/jobs/{job['id']}")).body
    assert shown["status"] == "completed", shown
    return dict(shown)


async def picture(user: Caller, url: str) -> Image.Image:
    """What a browser gets for an address: it sends no token."""
    async with user.session.get(url) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "image/png"
        return Image.open(BytesIO(await response.read()))


async def test_a_concept_comes_with_all_its_pictures(site: Site, services: Services) -> None:
    """One call shows it; each address works without a token."""
    user = await site.user()
    job = await generated(site, services, user)
    concept = (await user.get(f"/v1/concepts/{job['result_id']}")).body
    assert concept["job_id"] == job["id"]
    assert [variation["position"] for variation in concept["variations"]] == [0, 1]
    for each in (concept, *concept["variations"]):
        found = await picture(user, each["image_url"])
        assert found.size == (each["width"], each["height"]) == (256, 256)
    (listed,) = (await user.get("/v1/concepts")).body["items"]
    assert listed["id"] == concept["id"]
    await picture(user, listed["image_url"])


async def test_only_ones_own_pictures_are_signed(site: Site, services: Services) -> None:
    """What is another's, missing or no path at all is left out; what is asked twice is answered once."""
    user, stranger = await site.user(), await site.user()
    path = (await generated(site, services, user))["output"]["image_path"]
    gone = path.replace(path[-8:-4], "0000")
    asked = [path, path, gone, f"../{path}", path.replace(user.user_id, stranger.user_id), ""]
    signed = (await user.post("/v1/files/sign", {"paths": asked, "expires_in": 60})).body
    assert list(signed["urls"]) == [path]
    assert (await user.post("/v1/files/sign", {"paths": [path, "\0"]})).status == 422
    await picture(user, signed["urls"][path])
    theirs = (await stranger.post("/v1/files/sign", {"paths": asked})).body
    assert theirs["urls"] == {}


@over_postgres_only
async def test_an_address_of_the_folder_is_of_one_picture_for_a_while(
    site: Site, services: Services
) -> None:
    """Another path, time or signature is refused; nothing is cached for longer than it holds."""
    user = await site.user()
    path = (await generated(site, services, user))["output"]["image_path"]
    urls = (await user.post("/v1/files/sign", {"paths": [path]})).body["urls"]
    parts = urlsplit(urls[path])
    query = {name: value for name, (value,) in parse_qs(parts.query).items()}
    at = f"{parts.scheme}://{parts.netloc}{parts.path}"

    async def status(at: str = at, **changes: str) -> int:
        words = "&".join(f"{name}={value}" for name, value in {**query, **changes}.items())
        return (await site.nobody.get(f"{at}?{words}")).status

    assert await status() == 200
    cached = (await site.nobody.get(urls[path])).headers["Cache-Control"]
    assert 0 < int(cached.split("max-age=")[1].split(",")[0]) <= 600
    assert await status(expires=str(int(query["expires"]) + 1)) == 403
    assert await status(expires="never") == 403
    assert await status(expires="") == 403
    assert await status(signature="0" * 64) == 403
    assert await status(signature="%FF") == 403
    assert await status(at.replace(".png", ".jpg")) == 403
    assert await status(at.replace("/v1/files/", "/v1/files/..%2f")) == 403
    assert (await site.nobody.get(at)).status == 403
    (site.config.images_dir / path).unlink()
    assert await status() == 404


@over_postgres_only
async def test_a_picture_that_was_deleted_leaves_its_concept_readable(
    site: Site, services: Services
) -> None:
    """Its address is null, the others are there."""
    user = await site.user()
    job = await generated(site, services, user)
    (site.config.images_dir / job["output"]["image_path"]).unlink()
    concept = (await user.get(f"/v1/concepts/{job['result_id']}")).body
    assert concept["image_url"] is None
    assert all(each["image_url"] for each in concept["variations"])


async def test_a_file_that_belongs_to_no_row_is_not_served(site: Site, services: Services) -> None:
    """What a job has stored and nobody was charged for: not signed, although it is the user's."""
    user = await site.user()
    job = await generated(site, services, user)
    mine = (await user.get(f"/v1/concepts/{job['result_id']}")).body["image_path"]
    images = LocalImages(site.config.images_dir)
    left = (await images.put(user.user_id, b"left over", "image/png")).path
    await images.close()
    answer = await user.post("/v1/files/sign", {"paths": [mine, left]})
    assert list(answer.body["urls"]) == [mine]
