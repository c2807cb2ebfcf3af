"""Who may read and write files: policies, tokens, signed URLs."""

from __future__ import annotations

import time
from typing import Any

import httpx
import jwt
import pytest

from tests.supabase.asking import BUCKET, PNG, response, storage_refused
from tests.supabase.conftest import Connect
from tests.supabase.platform import Platform

pytestmark = pytest.mark.database


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


async def test_a_signature_is_for_one_object_and_a_time(files: Any, platform: Platform) -> None:
    """Expired, garbled, or of another object: 400."""
    await files.upload("a.png", b"1", PNG)
    await files.upload("b.png", b"2", PNG)
    (signed,) = await files.create_signed_urls(["a.png"], 60)
    good = signed["signedURL"]
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


# ─── who may ─────────────────────────────────────────────────────────────────────────────────────


async def test_policies_decide_for_a_user(
    platform: Platform, connect: Connect, files: Any, user: str
) -> None:
    """A user reads their own folder, as the policy says, and writes nothing: 403."""
    await files.upload(f"{user}/a.png", b"mine", PNG)
    await files.upload("somebody/b.png", b"theirs", PNG)
    mine = connect(platform.publishable_key, token=platform.user_token(user)).storage.from_(BUCKET)
    assert await mine.download(f"{user}/a.png") == b"mine"
    assert (await storage_refused(mine.download("somebody/b.png")))[:2] == (404, "not_found")
    signed = await mine.create_signed_urls([f"{user}/a.png", "somebody/b.png"], 60)
    assert [one["signedURL"] is None for one in signed] == [False, True]
    assert await storage_refused(mine.upload(f"{user}/c.png", b"1", PNG)) == (
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
