"""The Storage half, through storage3: each answer that the measured facts tell apart."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import asyncpg
import httpx
import jwt
import pytest
from storage3.exceptions import StorageApiError
from storage3.types import FileOptions
from supabase import AsyncClient

from tests.supabase.asking import response
from tests.supabase.conftest import Connect
from tests.supabase.platform import Platform

pytestmark = pytest.mark.database

BUCKET = "uvian-images"
PNG: FileOptions = {"content-type": "image/png"}


async def refused(call: Awaitable[Any]) -> tuple[int, str, str]:
    """The status in the body, the error and the message."""
    with pytest.raises(StorageApiError) as caught:
        await call
    return int(caught.value.status), caught.value.code, caught.value.message


@pytest.fixture
def files(service: AsyncClient) -> Any:
    """The bucket of the pictures, as the service."""
    return service.storage.from_(BUCKET)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where the platform keeps its bytes."""
    return tmp_path / "storage"


# ─── upload and download ─────────────────────────────────────────────────────────────────────────


async def test_what_goes_in_comes_out(files: Any, superuser: asyncpg.Connection) -> None:
    """Bytes in a folder, a row in ``storage.objects``."""
    content = bytes(range(256)) * 100
    made = await files.upload("a folder/what? no, b.png", content, PNG)
    assert made.full_path == f"{BUCKET}/a folder/what? no, b.png"
    assert await files.download(made.path) == content
    row = await superuser.fetchrow("select name, metadata::text from storage.objects")
    assert row["name"] == made.path
    assert '"mimetype": "image/png"' in row["metadata"]
    info = await files.info(made.path)
    assert (info["size"], info["content_type"]) == (len(content), "image/png")
    assert await files.exists(made.path)
    assert not await files.exists("a folder/another.png")


async def test_a_body_that_is_no_form_is_a_file_too(platform: Platform, files: Any) -> None:
    """Raw bytes with a Content-Type, as other clients send them."""
    answer = await response(
        platform,
        "POST",
        f"/storage/v1/object/{BUCKET}/raw.webp",
        headers={"Content-Type": "image/webp", "Cache-Control": "max-age=60"},
        content=b"RIFF",
    )
    assert (answer.status_code, answer.json()["Key"]) == (200, f"{BUCKET}/raw.webp")
    assert await files.download("raw.webp") == b"RIFF"
    answer = await response(platform, "GET", f"/storage/v1/object/authenticated/{BUCKET}/raw.webp")
    assert answer.headers["Content-Type"] == "image/webp"
    assert answer.headers["Cache-Control"] == "max-age=60"


async def test_what_exists_is_409_duplicate(files: Any, platform: Platform) -> None:
    """HTTP says 400; the true status is a string in the body."""
    await files.upload("a.png", b"1", PNG)
    assert await refused(files.upload("a.png", b"2", PNG)) == (
        409,
        "Duplicate",
        "The resource already exists",
    )
    assert await files.download("a.png") == b"1"
    answer = await response(
        platform,
        "POST",
        f"/storage/v1/object/{BUCKET}/a.png",
        headers={"Content-Type": "image/png"},
        content=b"3",
    )
    assert (answer.status_code, answer.json()["statusCode"]) == (400, "409")


async def test_x_upsert_replaces(files: Any, kept: Path) -> None:
    """And nothing is left of what was there before."""
    await files.upload("a.png", b"1", PNG)
    await files.upload("a.png", b"2", {**PNG, "upsert": "true"})
    assert await files.download("a.png") == b"2"
    await files.update("a.png", b"3", PNG)
    assert await files.download("a.png") == b"3"
    assert len(list(kept.iterdir())) == 1


async def test_an_update_needs_an_object(files: Any) -> None:
    """PUT creates nothing."""
    assert await refused(files.update("a.png", b"3", PNG)) == (404, "not_found", "Object not found")


async def test_an_object_that_is_not_there_is_404(files: Any, platform: Platform) -> None:
    """``not_found`` in the body, 400 on the wire."""
    assert await refused(files.download("nobody.png")) == (404, "not_found", "Object not found")
    answer = await response(platform, "GET", f"/storage/v1/object/{BUCKET}/nobody.png")
    assert (answer.status_code, answer.json()["statusCode"]) == (400, "404")


async def test_a_bucket_that_is_not_there_is_404(service: AsyncClient) -> None:
    """For reading and for writing."""
    files = service.storage.from_("nobody")
    not_found = (404, "Bucket not found", "Bucket not found")
    assert await refused(files.download("a.png")) == not_found
    assert await refused(files.upload("a.png", b"1", PNG)) == not_found
    assert await refused(service.storage.get_bucket("nobody")) == not_found


async def test_the_limits_of_the_bucket(service: AsyncClient) -> None:
    """Too large is 413, of a type that it does not take 415; neither leaves a row or bytes."""
    options: Any = {"file_size_limit": 10, "allowed_mime_types": ["image/*"], "public": False}
    await service.storage.create_bucket("small", options=options)
    files = service.storage.from_("small")
    assert await refused(files.upload("a.png", b"x" * 11, PNG)) == (
        413,
        "Payload too large",
        "The object exceeded the maximum allowed size",
    )
    assert await refused(files.upload("a.txt", b"x", {"content-type": "text/plain"})) == (
        415,
        "invalid_mime_type",
        "mime type text/plain is not supported",
    )
    await files.upload("a.png", b"x" * 10, PNG)
    assert [entry["name"] for entry in await files.list()] == ["a.png"]


def put_by_hand(platform: Platform, name: str) -> dict[str, Any]:
    """Upload under a name that every decent client would tidy up."""
    connection = HTTPConnection("127.0.0.1", platform.port, timeout=30)
    headers = {"Authorization": f"Bearer {platform.service_key}", "Content-Type": "image/png"}
    connection.request("POST", f"/storage/v1/object/{BUCKET}/{name}", b"1", headers)
    with connection.getresponse() as answer:
        document: dict[str, Any] = json.loads(answer.read())
    connection.close()
    return document


def test_names_lead_nowhere(platform: Platform, kept: Path) -> None:
    """A name is a name: dots and slashes reach no file outside of the folder."""
    for name in ("../1", "%2e%2e/2", "..%2f3", "/etc/4", "%2fetc%2f5", "a/../../../6", "."):
        assert put_by_hand(platform, name)["Key"] == f"{BUCKET}/{unquote(name)}"
    assert {path.parent for path in kept.parent.rglob("*") if path.is_file()} == {kept}
    for name in ("%C3%BC.png", "a%00b.png", "a%5Cb.png", "a%23b", "a%7Cb", "%FF"):
        assert put_by_hand(platform, name)["error"] == "InvalidKey"


async def test_rows_deleted_by_sql_orphan_their_files(
    files: Any, kept: Path, superuser: asyncpg.Connection
) -> None:
    """Files are deleted through the Storage API only."""
    await files.upload("a.png", b"1", PNG)
    await superuser.execute("delete from storage.objects")
    assert len(list(kept.iterdir())) == 1
    assert (await refused(files.download("a.png")))[0] == 404


# ─── signed URLs ─────────────────────────────────────────────────────────────────────────────────


async def test_many_are_signed_in_one_call(files: Any, platform: Platform) -> None:
    """Relative URLs on the wire, absolute from storage3, and an error for each that is not there."""
    for name in ("u/a.png", "u/b c.png"):
        await files.upload(name, name.encode(), PNG)
    signed = await files.create_signed_urls(["u/a.png", "u/nobody.png", "u/b c.png"], 60)
    assert [one["path"] for one in signed] == ["u/a.png", "u/nobody.png", "u/b c.png"]
    assert signed[1]["signedURL"] is None
    assert signed[1]["error"] == "Either the object does not exist or you do not have access to it"
    assert len(platform.asked("/object/sign/")) == 1
    async with httpx.AsyncClient() as http:
        for one in (signed[0], signed[2]):
            answer = await http.get(one["signedURL"])
            assert answer.content == one["path"].encode()
            assert answer.headers["Content-Type"] == "image/png"
    raw = await response(
        platform,
        "POST",
        f"/storage/v1/object/sign/{BUCKET}",
        json={"expiresIn": 60, "paths": ["u/a.png"]},
    )
    assert raw.json()[0]["signedURL"].startswith(f"/object/sign/{BUCKET}/u/a.png?token=")


async def test_one_is_signed_or_not_found(files: Any) -> None:
    """Alone, an object that is not there is an error of the call."""
    await files.upload("a.png", b"1", PNG)
    signed = await files.create_signed_url("a.png", 60, {"download": "picture.png"})
    async with httpx.AsyncClient() as http:
        answer = await http.get(signed["signedURL"])
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''picture.png"
    assert (await refused(files.create_signed_url("nobody.png", 60)))[:2] == (404, "not_found")


async def test_a_signature_is_for_one_object_and_a_time(files: Any, platform: Platform) -> None:
    """Expired, garbled, or of another object: 400."""
    await files.upload("a.png", b"1", PNG)
    await files.upload("b.png", b"2", PNG)
    good = (await files.create_signed_url("a.png", 60))["signedURL"]
    claims = {"url": f"{BUCKET}/a.png", "exp": int(time.time()) - 1}
    expired = jwt.encode(claims, platform.jwt_secret, algorithm="HS256")
    path = f"{platform.url}/storage/v1/object/sign/{BUCKET}/a.png"
    async with httpx.AsyncClient() as http:
        for url, error, message in (
            (f"{path}?token={expired}", "InvalidJWT", '"exp" claim timestamp check failed'),
            (f"{path}?token=garbage", "InvalidJWT", "Invalid Compact JWS"),
            (f"{good[:-3]}AAA", "InvalidJWT", "signature verification failed"),
            (
                good.replace("a.png", "b.png"),
                "InvalidSignature",
                "The url do not match the signature",
            ),
            (path, "Error", "querystring must have required property 'token'"),
        ):
            answer = await http.get(url)
            assert answer.status_code == 400
            assert answer.json() == {"statusCode": "400", "error": error, "message": message}


# ─── lists and deletions ─────────────────────────────────────────────────────────────────────────


async def test_a_list_shows_folders_and_files(files: Any) -> None:
    """One level at a time; a folder has a name and no id."""
    for name in ("u/a.png", "u/b.png", "u/deep/c.png", "v/d.png"):
        await files.upload(name, b"1", PNG)
    assert [(entry["name"], entry["id"]) for entry in await files.list()] == [
        ("u", None),
        ("v", None),
    ]
    assert [entry["name"] for entry in await files.list("u")] == ["a.png", "b.png", "deep"]
    page = await files.list("u", {"limit": 1, "offset": 1})
    assert [entry["name"] for entry in page] == ["b.png"]
    down = await files.list("u", {"sortBy": {"column": "name", "order": "desc"}, "search": ".png"})
    assert [entry["name"] for entry in down] == ["b.png", "a.png"]


async def test_deletion_answers_what_it_deleted(files: Any, kept: Path) -> None:
    """``{"prefixes": […]}``; what was not there is left out of the answer."""
    for name in ("a.png", "b.png", "c.png"):
        await files.upload(name, b"1", PNG)
    gone = await files.remove(["a.png", "nobody.png", "b.png"])
    assert sorted(row["name"] for row in gone) == ["a.png", "b.png"]
    assert await files.remove(["a.png"]) == []
    assert len(list(kept.iterdir())) == 1
    assert (await refused(files.remove([])))[0] == 400


async def test_buckets_come_and_go(service: AsyncClient) -> None:
    """Created, listed, emptied, deleted; one that is not empty stays."""
    storage = service.storage
    await storage.create_bucket("new", options={"public": True})
    assert (await refused(storage.create_bucket("new")))[:2] == (409, "Duplicate")
    assert {bucket.name for bucket in await storage.list_buckets()} == {BUCKET, "new"}
    await storage.from_("new").upload("a.txt", b"1")
    assert (await refused(storage.delete_bucket("new")))[0] == 409
    public = await storage.from_("new").get_public_url("a.txt")
    async with httpx.AsyncClient() as http:
        assert (await http.get(public)).content == b"1"
    await storage.empty_bucket("new")
    await storage.delete_bucket("new")
    assert {bucket.name for bucket in await storage.list_buckets()} == {BUCKET}


# ─── who may ─────────────────────────────────────────────────────────────────────────────────────


async def test_policies_decide_for_a_user(
    platform: Platform, connect: Connect, files: Any, user: str
) -> None:
    """A user reads their own folder, as the policy says, and writes nothing: 403."""
    await files.upload(f"{user}/a.png", b"mine", PNG)
    await files.upload("somebody/b.png", b"theirs", PNG)
    mine = connect(platform.publishable_key, token=platform.user_token(user)).storage.from_(BUCKET)
    assert await mine.download(f"{user}/a.png") == b"mine"
    assert (await refused(mine.download("somebody/b.png")))[:2] == (404, "not_found")
    signed = await mine.create_signed_urls([f"{user}/a.png", "somebody/b.png"], 60)
    assert [one["signedURL"] is None for one in signed] == [False, True]
    assert [entry["name"] for entry in await mine.list()] == [user]
    assert await refused(mine.upload(f"{user}/c.png", b"1", PNG)) == (
        403,
        "Unauthorized",
        "new row violates row-level security policy",
    )
    assert await mine.remove([f"{user}/a.png"]) == []
    assert await files.download(f"{user}/a.png") == b"mine"


async def test_whoever_may_not_ask_learns_nothing(
    platform: Platform, files: Any, user: str
) -> None:
    """A missing or garbage token on a private object is 404 "Bucket not found"."""
    await files.upload("a.png", b"1", PNG)
    url = f"{platform.url}/storage/v1/object/{BUCKET}/a.png"
    expired = platform.user_token(user, exp=1)
    async with httpx.AsyncClient() as http:
        for headers in (
            {},
            {"Authorization": "Bearer garbage"},
            {"Authorization": f"Bearer {expired}"},
        ):
            answer = await http.get(url, headers=headers)
            assert (answer.status_code, answer.json()["statusCode"]) == (400, "404")
            assert answer.json()["message"] == "Bucket not found"
        anon = await http.get(url, headers={"Authorization": f"Bearer {platform.anon_key}"})
        assert anon.json()["message"] == "Object not found"
        written = await http.post(url, headers={"Authorization": "Bearer garbage"}, content=b"1")
        assert (written.status_code, written.json()["statusCode"]) == (400, "403")
