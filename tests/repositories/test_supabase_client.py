"""What is refused before the first call, what every foreign error becomes, and that no key is ever told."""

from __future__ import annotations

import base64
import contextlib
import inspect
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import httpx
import orjson
import postgrest.exceptions
import pytest
import storage3.exceptions
import storage3.utils
from aiohttp import web
from postgrest import APIError
from storage3.exceptions import StorageApiError

from repositories import errors
from repositories.supabase import SupabaseDatabase
from repositories.supabase_client import connect_supabase, translated
from repositories.supabase_images import SupabaseImages
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


# ─── errors ──────────────────────────────────────────────────────────────────────────────────────


def rest_error(code: str | None, message: str | None = "said", details: Any = None) -> APIError:
    """What postgrest raises for an answer."""
    return APIError({"code": code, "message": message, "details": details, "hint": None})


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (("PGRST000", "PGRST001", "PGRST002", "PGRST003"), errors.Unavailable),
        (("57P01", "57P02", "57P03", "08006", "53300", "40P01", "40001"), errors.Unavailable),
        (
            ("500", "502", "503", "504", "520", "522", "540", "408", "425", "429"),
            errors.Unavailable,
        ),
        ((None, ""), errors.Unavailable),
        (("55P03",), errors.TimedOut),
        (("57014",), errors.StatementTooSlow),
        (("PGRST106", "PGRST202", "PGRST204", "PGRST205"), errors.SchemaMissing),
        (("42P01", "42883", "42703", "3F000"), errors.SchemaMissing),
        (("42501", "28000", "28P01", "PGRST301", "PGRST302", "PGRST303"), errors.NotGranted),
        (("401", "403"), errors.NotGranted),
        (("404", "405", "301", "308", "PGRST125"), errors.Misconfigured),
        (("PT404", "PT402", "PT418", "P0001"), errors.Refused),
        (("23505",), errors.Conflict),
        (("22P02", "22021", "23502", "23503", "23514", "413", "414"), errors.DataError),
        (("PGRST100", "PGRST102"), errors.DataError),
        (("PGRST116",), errors.NotFound),
        (("XX000", "21000", "PGRST117", "PGRST999"), errors.Permanent),
    ],
)
def test_a_code_has_one_meaning(codes: tuple[str | None, ...], expected: type[Exception]) -> None:
    """Postgres's and PostgREST's codes, and statuses of whoever stands in between, exactly."""
    for code in codes:
        assert type(translated(rest_error(code))) is expected, code


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Invalid API key", errors.NotGranted),
        ("No API key found in request", errors.NotGranted),
        ("Unregistered API key", errors.NotGranted),
        ("Legacy API keys are disabled", errors.NotGranted),
        ("Unauthorized", errors.NotGranted),
        ("no Route matched with those values", errors.Misconfigured),
        ("API rate limit exceeded", errors.Unavailable),
        ("An invalid response was received from the upstream server", errors.Unavailable),
        ("", errors.Unavailable),
    ],
)
def test_the_gateway_has_words_and_no_codes(message: str, expected: type[Exception]) -> None:
    """Those that no repetition helps against, and the others."""
    assert type(translated(rest_error(None, message))) is expected


@pytest.mark.parametrize(
    ("status", "code", "message", "expected"),
    [
        ("409", "Duplicate", "The resource already exists", errors.Conflict),
        ("404", "not_found", "Object not found", errors.NotFound),
        ("404", "Bucket not found", "Bucket not found", errors.Misconfigured),
        ("404", "InvalidRequest", "The related resource does not exist", errors.Misconfigured),
        (404, "InternalError", "Unable to parse error message: <html>", errors.Misconfigured),
        ("401", "Unauthorized", "Invalid JWT", errors.NotGranted),
        ("403", "Unauthorized", "Invalid Compact JWS", errors.NotGranted),
        (401, "InternalError", "Unable to parse error message: {}", errors.NotGranted),
        ("413", "Payload too large", "The object exceeded the maximum", errors.DataError),
        ("415", "invalid_mime_type", "mime type text/html is not supported", errors.DataError),
        ("423", "ResourceLocked", "locked", errors.Unavailable),
        ("429", "too_many_connections", "slow down", errors.Unavailable),
        ("500", "Internal", "Internal Server Error", errors.Unavailable),
        ("544", "DatabaseTimeout", "timed out", errors.Unavailable),
        (502, "InternalError", "Unable to parse error message: <html>", errors.Unavailable),
        ("400", "InvalidKey", "Invalid key", errors.Permanent),
        ("none", "none", "no status at all", errors.Unavailable),
    ],
)
def test_storage_tells_the_true_status_in_its_body(
    status: str | int, code: str, message: str, expected: type[Exception]
) -> None:
    """Whatever HTTP said; and a page of a proxy is not quoted."""
    error = translated(StorageApiError(message, code, status))
    assert type(error) is expected
    assert "<html>" not in str(error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectTimeout("t"), errors.Unavailable),
        (httpx.PoolTimeout("t"), errors.Unavailable),
        (httpx.ReadTimeout("t"), errors.TimedOut),
        (httpx.WriteTimeout("t"), errors.TimedOut),
        (TimeoutError(), errors.TimedOut),
        (httpx.ConnectError("[Errno -2] Name or service not known"), errors.Unavailable),
        (httpx.RemoteProtocolError("Server disconnected"), errors.Unavailable),
        (httpx.ReadError(""), errors.Unavailable),
        (httpx.DecodingError("gzip"), errors.Unavailable),
        (OSError("reset"), errors.Unavailable),
        (json.JSONDecodeError("Expecting value", "<html>", 0), errors.Unavailable),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), errors.Unavailable),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "bad"), errors.DataError),
        (httpx.InvalidURL("URL too long"), errors.DataError),
        (errors.Conflict("ours"), errors.Conflict),
        (ValueError("a bug"), errors.Permanent),
    ],
)
def test_what_is_no_answer_has_its_meaning_too(error: Exception, expected: type[Exception]) -> None:
    """Connections, deadlines, pages in the place of documents, and bugs, which are not repeated."""
    assert type(translated(error)) is expected


def foreign_errors() -> Iterator[type[Exception]]:
    """Every error that the libraries define, of those that are asked here."""
    for module in (httpx, postgrest.exceptions, storage3.exceptions, storage3.utils):
        for kind in vars(module).values():
            own = str(getattr(kind, "__module__", "")).startswith(
                ("httpx", "postgrest", "storage3")
            )
            if own and inspect.isclass(kind) and issubclass(kind, Exception):
                yield kind


def an_error(kind: type[Any]) -> Exception:
    """One of this kind, with as many words as it takes."""
    answer = httpx.Response(500, request=httpx.Request("GET", URL))
    examples: dict[type[Exception], Callable[[], Exception]] = {
        APIError: lambda: kind({"message": "said"}),
        StorageApiError: lambda: kind("said", "code", "400"),
        httpx.HTTPStatusError: lambda: kind("said", request=answer.request, response=answer),
    }
    for example in (examples.get(kind), lambda: kind("said"), kind):
        with contextlib.suppress(TypeError):
            return example()  # type: ignore[misc]
    raise AssertionError(kind)


def test_every_error_of_the_libraries_is_one_of_ours() -> None:
    """Whatever they raise, the repositories raise only their own."""
    kinds = set(foreign_errors())
    assert len(kinds) > 30
    for kind in kinds:
        assert isinstance(translated(an_error(kind)), errors.RepositoryError), kind


def test_messages_tell_the_operator_the_next_move() -> None:
    """Which setting, which command."""
    said = {
        "PGRST106": "Project Settings > Data API > Exposed schemas",
        "PGRST202": "uvian migrate",
        "PGRST205": "uvian migrate",
        "42501": "UVIAN_SUPABASE_KEY",
        "PGRST301": "UVIAN_SUPABASE_KEY",
        "401": "UVIAN_SUPABASE_KEY",
        "404": "UVIAN_SUPABASE_URL",
    }
    for code, words in said.items():
        assert words in str(translated(rest_error(code))), code
    refused = translated(rest_error("PT402", "insufficient_credits", "It costs 5."))
    assert isinstance(refused, errors.Refused)
    assert (refused.code, str(refused)) == ("insufficient_credits", "It costs 5.")


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
