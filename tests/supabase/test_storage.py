"""The Storage half, through storage3: each answer that the measured facts tell apart."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import asyncpg
import pytest
from supabase import AsyncClient

from tests.supabase.asking import BUCKET, PNG, response, storage_refused
from tests.supabase.platform import Platform

pytestmark = pytest.mark.database


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
    answer = await response(platform, "GET", f"/storage/v1/object/{BUCKET}/raw.webp")
    assert answer.headers["Content-Type"] == "image/webp"
    assert answer.headers["Cache-Control"] == "max-age=60"


async def test_what_exists_is_409_duplicate(files: Any, platform: Platform) -> None:
    """HTTP says 400; the true status is a string in the body."""
    await files.upload("a.png", b"1", PNG)
    assert await storage_refused(files.upload("a.png", b"2", PNG)) == (
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


async def test_an_object_that_is_not_there_is_404(files: Any, platform: Platform) -> None:
    """``not_found`` in the body, 400 on the wire."""
    assert await storage_refused(files.download("nobody.png")) == (
        404,
        "not_found",
        "Object not found",
    )
    answer = await response(platform, "GET", f"/storage/v1/object/{BUCKET}/nobody.png")
    assert (answer.status_code, answer.json()["statusCode"]) == (400, "404")


async def test_a_bucket_that_is_not_there_is_404(service: AsyncClient) -> None:
    """For reading and for writing."""
    files = service.storage.from_("nobody")
    not_found = (404, "Bucket not found", "Bucket not found")
    assert await storage_refused(files.download("a.png")) == not_found
    assert await storage_refused(files.upload("a.png", b"1", PNG)) == not_found
    assert await storage_refused(service.storage.get_bucket("nobody")) == not_found


async def test_the_limits_of_the_bucket(service: AsyncClient, kept: Path) -> None:
    """Too large is 413, of a type that it does not take 415; neither leaves a row or bytes."""
    options: Any = {"file_size_limit": 10, "allowed_mime_types": ["image/*"], "public": False}
    await service.storage.create_bucket("small", options=options)
    files = service.storage.from_("small")
    assert await storage_refused(files.upload("a.png", b"x" * 11, PNG)) == (
        413,
        "Payload too large",
        "The object exceeded the maximum allowed size",
    )
    assert await storage_refused(files.upload("a.txt", b"x", {"content-type": "text/plain"})) == (
        415,
        "invalid_mime_type",
        "mime type text/plain is not supported",
    )
    await files.upload("a.png", b"x" * 10, PNG)
    assert len(list(kept.iterdir())) == 1


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
    assert (await storage_refused(files.download("a.png")))[0] == 404


# ─── deletions ─────────────────────────────────────────────────────────────────────────


async def test_deletion_answers_what_it_deleted(files: Any, kept: Path) -> None:
    """``{"prefixes": […]}``; what was not there is left out of the answer."""
    for name in ("a.png", "b.png", "c.png"):
        await files.upload(name, b"1", PNG)
    gone = await files.remove(["a.png", "nobody.png", "b.png"])
    assert sorted(row["name"] for row in gone) == ["a.png", "b.png"]
    assert await files.remove(["a.png"]) == []
    assert len(list(kept.iterdir())) == 1
    assert (await storage_refused(files.remove([])))[0] == 400


# ─── the rest ────────────────────────────────────────────────────────────────────────────────────


async def test_a_bucket_is_made_once(service: AsyncClient) -> None:
    """And is there from then on."""
    await service.storage.create_bucket("new", options={"public": True})
    assert (await storage_refused(service.storage.create_bucket("new")))[:2] == (409, "Duplicate")
    assert (await service.storage.get_bucket("new")).public


async def test_a_question_that_makes_no_sense_is_400(platform: Platform) -> None:
    """A body that is none, or lacks something; a route that does not exist is 404."""
    for method, path, content, message in (
        ("POST", f"object/sign/{BUCKET}", b"{", "body must be object"),
        ("POST", f"object/sign/{BUCKET}", b"[]", "body must be object"),
        ("POST", f"object/sign/{BUCKET}", b"{}", "body must have required property 'paths'"),
        ("POST", "bucket", b"{}", "body must have required property 'name'"),
    ):
        answer = await response(platform, method, f"/storage/v1/{path}", content=content)
        assert (answer.status_code, answer.json()["message"]) == (400, message)
    for path in ("nothing", "object", "bucket/a/b/c", "bucket"):
        answer = await response(platform, "PATCH", f"/storage/v1/{path}")
        assert (answer.status_code, answer.json()["statusCode"]) == (404, "404")


@pytest.mark.parametrize(
    ("state", "status", "code", "error"),
    [
        ("57014", 544, 544, "DatabaseTimeout"),
        ("55P03", 400, 423, "ResourceLocked"),
        ("23503", 400, 404, "InvalidRequest"),
        ("40001", 500, 500, "DatabaseError"),
        ("42501", 400, 403, "Unauthorized"),
    ],
)
async def test_what_postgres_refuses(
    platform: Platform,
    superuser: asyncpg.Connection,
    state: str,
    status: int,
    code: int,
    error: str,
) -> None:
    """A trigger of the team's own says no in the middle of an upload; no bytes are kept."""
    await superuser.execute(
        f"create function public.refuse() returns trigger language plpgsql as "
        f"$$ begin raise exception using errcode = '{state}'; end $$; "
        f"create trigger refuse before insert on storage.objects "
        f"for each row execute function public.refuse()"
    )
    answer = await response(
        platform,
        "POST",
        f"/storage/v1/object/{BUCKET}/a.png",
        headers={"Content-Type": "image/png"},
        content=b"1",
    )
    assert answer.status_code == status
    assert (answer.json()["statusCode"], answer.json()["error"]) == (str(code), error)
