"""What every answer and every foreign error becomes: exactly, and without exception."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import postgrest.exceptions
import pytest
import storage3.exceptions
import storage3.utils
from postgrest import APIError
from storage3.exceptions import StorageApiError

from repositories import errors
from repositories.supabase.errors import translated

URL = "https://abcdefghijklmnopqrst.supabase.co"


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
        *(
            (page, "InternalError", f"Unable to parse error message: {body}", errors.Unavailable)
            for page in (200, 302, 400, 401, 403, 404, 409, 451, 502, 540)
            for body in ("<html>", "", "upstream connect error")
        ),
        (413, "InternalError", "Unable to parse error message: <html>", errors.PictureRefused),
        ("400", "InvalidJWT", "jwt malformed", errors.NotGranted),
        ("401", "Unauthorized", "Invalid JWT", errors.NotGranted),
        ("403", "Unauthorized", "Invalid Compact JWS", errors.NotGranted),
        (401, "InternalError", "Unable to parse error message: {}", errors.NotGranted),
        ("413", "Payload too large", "The object exceeded the maximum", errors.PictureRefused),
        ("415", "invalid_mime_type", "mime type is not supported", errors.PictureRefused),
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
