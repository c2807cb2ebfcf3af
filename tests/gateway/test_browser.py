"""What browsers are told: who may call from where, what the page may do, what may be cached."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.adapters import over_postgres_only
from tests.gateway.site import Site, config_of, opened
from tests.lifecycle.world import World

pytestmark = [pytest.mark.database, over_postgres_only]

_MINE = "https://app.example"
_THEIRS = "https://evil.example"


async def test_named_origins_may_call_and_others_may_not(
    world: World, redis_url: str, tmp_path: Path
) -> None:
    """Preflights, answers, errors and streams say so; the token stays the only key."""
    config = config_of(world.adapter, redis_url, tmp_path, gateway_origins=f"{_MINE}, http://x:1")
    async with opened(world, config) as site:
        await site.open()
        user = await site.user()
        job = await site.made(user)
        events = f"/v1/jobs/{job['id']}/events"
        await user.post(f"/v1/jobs/{job['id']}/cancel")
        for origin, allowed in (
            (_MINE, True),
            ("http://x:1", True),
            (_THEIRS, False),
            ("null", False),
        ):
            preflight = {"Origin": origin, "Access-Control-Request-Method": "PATCH"}
            asked = await site.nobody("OPTIONS", "/v1/jobs", headers=preflight)
            assert asked.status == 204
            for reply in (
                asked,
                await user.get("/v1/jobs", headers={"Origin": origin}),
                await user.get("/v1/nothing", headers={"Origin": origin}),
                await site.nobody.get("/v1/jobs", headers={"Origin": origin}),
                await user.get(events, headers={"Origin": origin}),
            ):
                said = reply.headers.get("Access-Control-Allow-Origin")
                assert said == (origin if allowed else None)
                assert "Access-Control-Allow-Credentials" not in reply.headers
                assert "Origin" in reply.headers["Vary"]
            methods = asked.headers.get("Access-Control-Allow-Methods", "")
            assert ("DELETE" in methods) == allowed


async def test_without_a_setting_only_its_own_page_calls(site: Site) -> None:
    """Nobody else may read an answer."""
    user = await site.user()
    reply = await user.get("/v1/jobs", headers={"Origin": _MINE})
    assert "Access-Control-Allow-Origin" not in reply.headers


async def test_a_star_is_everybody(world: World, redis_url: str, tmp_path: Path) -> None:
    """For an API that has no page of its own; credentials are never sent along."""
    config = config_of(world.adapter, redis_url, tmp_path, gateway_origins="*")
    async with opened(world, config) as site:
        reply = await site.nobody.get("/health/live", headers={"Origin": _THEIRS})
        assert reply.headers["Access-Control-Allow-Origin"] == _THEIRS
        assert "Access-Control-Allow-Credentials" not in reply.headers


async def test_nothing_personal_is_kept_by_a_cache(site: Site) -> None:
    """Answers and errors say no-store."""
    user = await site.user()
    for path in ("/v1/jobs", "/v1/credits", "/v1/executors", "/v1/nothing"):
        assert (await user.get(path)).headers["Cache-Control"] == "no-store"


async def test_nothing_but_the_page_may_be_shown_as_one(site: Site) -> None:
    """JSON that is opened in a tab runs and loads nothing."""
    for path in ("/v1/jobs", "/openapi.json", "/health/ready", "/nothing"):
        policy = (await site.nobody.get(path)).headers["Content-Security-Policy"]
        assert policy == "default-src 'none'; frame-ancestors 'none'"


# ─── the page ────────────────────────────────────────────────────────────────────────────────────


async def test_the_page_runs_its_own_files_and_nothing_else(site: Site) -> None:
    """A strict policy without exceptions, kept by the page itself: nothing in it is inline."""
    page = await site.nobody.get("/")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = dict(
        part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["connect-src"] == "'self'"  # the live socket's origin too (CSP 3)
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert page.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    html = page.raw.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son[a-z]+=|\sstyle=|<style|javascript:", html)
    for name in re.findall(r'(?:src|href)="([^"#]+)"', html):
        asset = await site.nobody.get(name if name.startswith("/") else f"/{name}")
        assert asset.status == 200, name
        assert asset.headers["X-Content-Type-Options"] == "nosniff"


async def test_what_has_not_changed_is_not_sent_again(site: Site) -> None:
    """A 304 with the same headers; what has changed is seen at once."""
    first = await site.nobody.get("/")
    assert first.headers["Cache-Control"] == "no-cache"
    tag = first.headers["ETag"]
    again = await site.nobody.get("/", headers={"If-None-Match": tag})
    assert (again.status, again.raw, again.headers["ETag"]) == (304, b"", tag)
    assert again.headers["Content-Security-Policy"] == first.headers["Content-Security-Policy"]
    assert (await site.nobody.get("/", headers={"If-None-Match": '"other"'})).status == 200
    head = await site.nobody("HEAD", "/")
    assert (head.status, head.raw) == (200, b"")


async def test_nothing_of_the_disk_is_served_but_the_page(site: Site) -> None:
    """Neither the package around it nor its folders, however they are spelled."""
    for path in (
        "/page.py",
        "/../page.py",
        "/..%2fpage.py",
        "/web/index.html",
        "/css",
        "/css/",
        "/%00",
    ):
        assert (await site.nobody.get(path)).status == 404, path


async def test_pictures_may_be_shown_from_where_they_are(site: Site) -> None:
    """The policy names where signed addresses lead, and no other place."""
    policy = (await site.nobody.get("/")).headers["Content-Security-Policy"]
    (images,) = re.findall(r"img-src ([^;]+)", policy)
    assert images == f"'self' blob: data: {site.url}"
