"""What is refused before the first call and said after it, and that no key is ever told."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import orjson
import pytest
from aiohttp import web

from repositories import errors
from repositories.supabase import SupabaseDatabase, SupabaseImages, connect_supabase
from tests.supabase.faults import html_502, status
from tests.supabase.platform import Platform

URL = "https://abcdefghijklmnopqrst.supabase.co"
SECRET = "sb_secret_0123456789abcdefghijkl_0badcafe"


def legacy(**claims: Any) -> str:
    """A legacy key; nobody looks at its signature here."""
    parts = ({"alg": "HS256", "typ": "JWT"}, {"iss": "supabase", **claims})
    encoded = (base64.urlsafe_b64encode(orjson.dumps(part)).rstrip(b"=").decode() for part in parts)
    return ".".join([*encoded, "c2lnbmF0dXJl"])


# ─── settings ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "key",
    [
        SECRET,
        f"  {SECRET}\n",
        legacy(role="service_role", ref="abcdefghijklmnopqrst"),
        legacy(role="service_role"),
    ],
)
async def test_keys_of_both_kinds_are_taken(key: str) -> None:
    """The new secret key, and the legacy one; blanks from a file do not count."""
    await connect_supabase(URL, key).close()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("sb_publishable_0123456789abcdefghijkl_0badcafe", "is a publishable key"),
        (legacy(role="anon", ref="abcdefghijklmnopqrst"), "is a key of the role 'anon'"),
        (legacy(role="authenticated", sub="a user"), "is a key of the role 'authenticated'"),
        (legacy(), "is no key of Supabase"),
        (
            legacy(role="service_role", ref="zzzzzzzzzzzzzzzzzzzz"),
            "of the project zzzzzzzzzzzzzzzzzzzz",
        ),
        ("", "is no key of Supabase"),
        ("sb_secret_01…23", "is no key of Supabase"),
        ("sb_secret_a\nb", "is no key of Supabase"),
        ("sbp_0123456789abcdef", "is no key of Supabase"),
        ("a.b.c", "is no key of Supabase"),
        ("a.IjEi.c", "is no key of Supabase"),
        ("postgresql://u:p@h/x", "is no key of Supabase"),
    ],
)
def test_a_key_that_is_not_the_services_is_refused(key: str, said: str) -> None:
    """Before it is sent, by its form or by the role it names; it is not repeated in the message."""
    with pytest.raises(errors.Misconfigured, match=said) as refused:
        connect_supabase(URL, key)
    assert "UVIAN_SUPABASE_KEY" in str(refused.value)
    assert not key or key not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        URL,
        f"{URL}/",
        "http://127.0.0.1:54321",
        "http://kong:8000",
        "https://api.example.com",
        "https://example.com/supabase",
        f" {URL}\n",
    ],
)
async def test_urls_of_projects_are_taken(url: str) -> None:
    """The platform's, those of the local stack and of self-hosted ones, and own domains."""
    await connect_supabase(url, SECRET).close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "abcdefghijklmnopqrst",
        "abcdefghijklmnopqrst.supabase.co",
        "postgresql://postgres:secret@db.abcdefghijklmnopqrst.supabase.co:5432/postgres",
        f"{URL}/rest/v1",
        f"{URL}/storage/v1/",
        f"{URL}?apikey=x",
        "https://supabase.com/dashboard/project/abcdefghijklmnopqrst",
        "https://user:secret@example.com",
        "https://[::1",
        "ftp://example.com",
    ],
)
def test_a_url_that_is_not_a_projects_is_refused(url: str) -> None:
    """What people copy instead of it, in one sentence that shows the right form."""
    with pytest.raises(errors.Misconfigured, match=r"https://<ref>\.supabase\.co") as refused:
        connect_supabase(url, SECRET)
    assert "UVIAN_SUPABASE_URL" in str(refused.value)
    assert "secret@" not in str(refused.value)


def test_the_key_is_not_sent_in_the_clear() -> None:
    """The platform would answer http with a redirect, after it has seen the key."""
    with pytest.raises(errors.Misconfigured, match="in the clear"):
        connect_supabase(URL.replace("https", "http"), SECRET)


# ─── what is said of a project that is not set up ────────────────────────────────────────────────


async def connected(url: str, key: str) -> SupabaseDatabase:
    """The database, connected as a worker does."""
    supabase = connect_supabase(url, key)
    try:
        return await SupabaseDatabase.connect(supabase)
    finally:
        await supabase.close()


@pytest.mark.database
async def test_another_projects_key_says_so(platform: Platform) -> None:
    """The gateway does not know it: which setting, and where the right one is."""
    for key in (SECRET, legacy(role="service_role")):
        with pytest.raises(errors.NotGranted, match="UVIAN_SUPABASE_KEY") as refused:
            await connected(platform.url, key)
        assert key not in str(refused.value)


@pytest.mark.database
async def test_a_publishable_key_never_gets_that_far(platform: Platform) -> None:
    """Both of the public keys are recognised, and nothing is sent."""
    for key in (platform.publishable_key, platform.anon_key):
        with pytest.raises(errors.Misconfigured, match="UVIAN_SUPABASE_KEY"):
            await connected(platform.url, key)
    assert platform.asked() == []


async def test_a_name_that_dns_does_not_know_says_so() -> None:
    """It may be a typing error, and it may be DNS: transient, and it names the setting."""
    with pytest.raises(errors.Unavailable, match="UVIAN_SUPABASE_URL"):
        await connected("https://nowhere.invalid", SECRET)


async def test_nobody_there_says_so(unused_tcp_port: int) -> None:
    """A refused connection, after it was tried again."""
    with pytest.raises(errors.Unavailable, match="UVIAN_SUPABASE_URL"):
        await connected(f"http://127.0.0.1:{unused_tcp_port}", SECRET)


@pytest.fixture
async def page() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """The URL of a server that answers everything with the same page."""
    runners: list[web.ServerRunner] = []

    async def serve(status: int, body: str, content_type: str = "text/html", **headers: str) -> str:
        async def answer(_: web.BaseRequest) -> web.Response:
            return web.Response(
                status=status, text=body, content_type=content_type, headers=headers
            )

        runner = web.ServerRunner(web.Server(answer))
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield serve
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (200, "<html>Welcome</html>", {}, errors.Unavailable),
        (200, "", {}, errors.Unavailable),
        (200, '"text"', {"content_type": "application/json"}, errors.Unavailable),
        (404, "<html>Not found</html>", {}, errors.Misconfigured),
        (301, "", {"Location": "https://elsewhere.invalid"}, errors.Misconfigured),
        (502, "<html>Bad gateway</html>", {}, errors.Unavailable),
        (540, "<html>Project paused</html>", {}, errors.Unavailable),
    ],
)
async def test_another_server_is_not_taken_for_the_api(
    page: Any, status: int, body: str, headers: dict[str, str], expected: type[Exception]
) -> None:
    """A web page, a proxy, a redirect: for reads and for functions, and what is said is one line."""
    supabase = connect_supabase(await page(status, body, **headers), SECRET)
    database = SupabaseDatabase(supabase)
    for call in (
        partial(database.select, "jobs"),
        partial(database.call, "sweep_jobs", request={}),
    ):
        with pytest.raises(expected) as said:
            await call()
        assert type(said.value) is expected
        assert "html" not in str(said.value)
        assert "\n" not in str(said.value)
    await supabase.close()


# ─── secrets ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.database
async def test_no_key_is_ever_told(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    """Not by an error with its causes, not by a repr, not in a log with everything switched on."""
    caplog.set_level(logging.DEBUG)
    for key in (platform.secret_key, platform.service_key):
        supabase = connect_supabase(platform.url, key)
        database, images = SupabaseDatabase(supabase), SupabaseImages(supabase)
        told = [repr(each) for each in (supabase, database, images, vars(database), vars(images))]
        await database.select("schema_migrations")
        for fault in (
            html_502,
            status(401, '{"message": "Invalid API key"}'),
            status(500, key[:0]),
        ):
            platform.faults.add(fault)
            for call in (
                partial(database.select, "jobs"),
                partial(images.get, f"u/{'0' * 64}.png"),
            ):
                with pytest.raises(errors.RepositoryError) as failed:
                    await call()
                told += _told(failed.value)
            platform.faults.clear()
        platform.stop()
        with pytest.raises(errors.RepositoryError) as failed:
            await database.select("jobs")
        told += _told(failed.value)
        platform.start()
        await images.close()
        await supabase.close()
        assert len(told) > 20
        assert not [text for text in (*told, caplog.text) if key in text or key[12:40] in text]


def _told(error: BaseException | None) -> list[str]:
    """What an error and its causes say."""
    told: list[str] = []
    while error is not None:
        told += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    return told


async def test_it_closes_twice_and_is_closed_then() -> None:
    """Nothing is sent any more, and nobody waits."""
    supabase = connect_supabase(URL, SECRET)
    await supabase.close()
    await supabase.close()
    with pytest.raises(errors.Unavailable, match="closed"):
        await SupabaseDatabase(supabase).select("jobs")
