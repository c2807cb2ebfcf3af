"""Who may do what: API keys, tokens, grants, row level security, and the timeouts of the roles."""

from __future__ import annotations

import base64
import hmac
import json
import time
import uuid
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.supabase.asking import answered, refused, response
from tests.supabase.conftest import Connect
from tests.supabase.platform import Platform

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("sandbox")]


# ─── keys ────────────────────────────────────────────────────────────────────────────────────────


async def test_both_kinds_of_keys_open_the_same_doors(platform: Platform, connect: Connect) -> None:
    """The opaque ``sb_…`` key and the legacy JWT of a role are exchanged for the same role."""
    for key, role in (
        (platform.secret_key, "service_role"),
        (platform.service_key, "service_role"),
        (platform.publishable_key, "anon"),
        (platform.anon_key, "anon"),
    ):
        assert await answered(connect(key).rpc("setting", {"name": "role"})) == role
        headers = {"apikey": key}
        async with httpx.AsyncClient() as http:
            alone = await http.post(
                f"{platform.url}/rest/v1/rpc/setting", json={"name": "role"}, headers=headers
            )
        assert alone.json() == role


def test_the_legacy_keys_are_jwts_without_sub_and_aud(platform: Platform) -> None:
    """``{iss: "supabase", ref, role, iat, exp}``, HS256; the new ones are no JWTs at all."""
    for key, role in ((platform.service_key, "service_role"), (platform.anon_key, "anon")):
        claims = jwt.decode(key, platform.jwt_secret, algorithms=["HS256"])
        assert claims.keys() == {"iss", "ref", "role", "iat", "exp"}
        assert (claims["iss"], claims["ref"], claims["role"]) == ("supabase", platform.ref, role)
    assert platform.secret_key.startswith("sb_secret_")
    assert platform.publishable_key.startswith("sb_publishable_")


async def test_a_request_without_a_key_of_this_project_is_401(platform: Platform) -> None:
    """The gateway says so, in words of its own."""
    async with httpx.AsyncClient() as http:
        missing = await http.get(f"{platform.url}/rest/v1/notes")
    assert (missing.status_code, missing.json()["message"]) == (401, "No API key found in request")
    for wrong in ("sb_secret_another", "garbage", platform.user_token(str(uuid.uuid4()))):
        answer = await response(platform, "GET", "/rest/v1/notes", headers={"apikey": wrong})
        assert (answer.status_code, answer.json()["message"]) == (401, "Invalid API key")


# ─── tokens ──────────────────────────────────────────────────────────────────────────────────────


def test_a_users_token_has_what_a_verifier_asks_for(platform: Platform, user: str) -> None:
    """ES256 with a ``kid``, or HS256; iss, aud, exp, sub, role, session_id and the rest."""
    token = platform.user_token(user, is_anonymous=True, aal=None)
    with httpx.Client() as http:
        jwks = http.get(f"{platform.url}/auth/v1/.well-known/jwks.json").json()
    (key,) = jwt.PyJWKSet.from_dict(jwks).keys
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "JWT", "kid": key.key_id}
    claims = jwt.decode(token, key, algorithms=["ES256"], audience="authenticated")
    assert claims["iss"] == f"{platform.url}/auth/v1"
    assert (claims["sub"], claims["role"], claims["is_anonymous"]) == (user, "authenticated", True)
    assert claims["exp"] > time.time()
    assert "session_id" in claims
    assert "aal" not in claims
    legacy = platform.user_token(user, algorithm="HS256")
    jwt.decode(legacy, platform.jwt_secret, algorithms=["HS256"], audience="authenticated")


def signed_with_the_public_key(platform: Platform, claims: dict[str, Any]) -> str:
    """What a verifier takes that believes the header: HS256, and everybody knows the secret."""
    with httpx.Client() as http:
        jwks = http.get(f"{platform.url}/auth/v1/.well-known/jwks.json").json()
    (key,) = jwt.PyJWKSet.from_dict(jwks).keys
    pem = key.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "typ": "JWT", "kid": key.key_id}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in (header, claims)]
    signed = b".".join(part.rstrip(b"=") for part in parts)
    signature = base64.urlsafe_b64encode(hmac.digest(pem, signed, "sha256")).rstrip(b"=")
    return (signed + b"." + signature).decode()


async def test_a_token_that_opens_nothing_is_401_pgrst301(platform: Platform, user: str) -> None:
    """Not a JWT, signed by somebody else, not signed, or signed with the public key as a secret."""
    claims = {"sub": user, "role": "service_role", "exp": 2**33}
    for token in (
        "garbage",
        "a.b.c",
        jwt.encode(claims, "x" * 40, algorithm="HS256"),
        jwt.encode(claims, "", algorithm="none"),
        platform.user_token(user)[:-4] + "AAAA",
        signed_with_the_public_key(platform, claims),
        platform.secret_key,
    ):
        headers = {"apikey": platform.publishable_key, "Authorization": f"Bearer {token}"}
        answer = await response(platform, "GET", "/rest/v1/notes", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "PGRST301"), token


async def test_an_expired_token_is_401_pgrst303(
    platform: Platform, connect: Connect, user: str
) -> None:
    """From the second in which it expires, though it was good before."""
    token = platform.user_token(user, exp=int(time.time()) - 1)
    error = await refused(connect(platform.publishable_key, token=token).rpc("add", {"a": 1}))
    assert (error.code, error.message) == ("PGRST303", "JWT expired")


async def test_an_expiry_that_is_no_time_is_401_pgrst303(
    platform: Platform, connect: Connect
) -> None:
    """Claims are looked at before they are believed."""
    claims = {"role": "service_role", "exp": "tomorrow"}
    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()) for p in ({"alg": "HS256"}, claims)]
    signed = b".".join(part.rstrip(b"=") for part in parts)
    signature = hmac.digest(platform.jwt_secret.encode(), signed, "sha256")
    token = (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()
    error = await refused(connect(platform.publishable_key, token=token).rpc("add", {"a": 1}))
    assert error.code == "PGRST303"


async def test_a_token_from_the_future_is_401_pgrst303(
    platform: Platform, connect: Connect, user: str
) -> None:
    """Half a minute of skew between clocks is allowed."""
    soon = platform.user_token(user, iat=int(time.time()) + 20)
    assert await answered(connect(platform.anon_key, token=soon).rpc("add", {"a": 1})) == 11
    later = platform.user_token(user, iat=int(time.time()) + 90)
    error = await refused(connect(platform.anon_key, token=later).rpc("add", {"a": 1}))
    assert (error.code, error.message) == ("PGRST303", "JWT issued at future")


async def test_a_role_that_does_not_exist_is_401(platform: Platform, user: str) -> None:
    """And one that the login may not take is 403."""
    for role, status in (("nobody", 401), ("uvian_migrator", 403)):
        token = platform.user_token(user, role=role)
        headers = {"Authorization": f"Bearer {token}"}
        answer = await response(platform, "GET", "/rest/v1/notes", headers=headers)
        assert answer.status_code == status


# ─── grants and policies ─────────────────────────────────────────────────────────────────────────


async def test_new_objects_are_granted_to_nobody(
    platform: Platform, connect: Connect, user: str
) -> None:
    """A table without GRANT is 42501 even for the service: 403, and 401 for anon."""
    assert (await refused(connect().table("secrets").select("*"))).code == "42501"
    answer = await response(platform, "GET", "/rest/v1/secrets")
    assert answer.status_code == 403
    assert answer.json()["message"] == "permission denied for table secrets"
    answer = await response(platform, "GET", "/rest/v1/secrets", key=platform.anon_key)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (await refused(connect().rpc("closed", {}))).code == "42501"


async def test_postgres_grants_every_new_function_to_public(
    platform: Platform, connect: Connect
) -> None:
    """An ungranted function is callable by anon until somebody revokes it from public."""
    assert await answered(connect(platform.publishable_key).rpc("add", {"a": 1})) == 11
    assert (await refused(connect(platform.publishable_key).rpc("closed", {}))).code == "42501"


async def test_anon_sees_nothing_and_a_user_their_own(
    platform: Platform, connect: Connect, user: str
) -> None:
    """Row level security decides by ``auth.uid()``; the service passes it by."""
    other = str(uuid.uuid4())
    rows = [{"id": 1, "owner": user}, {"id": 2, "owner": other}]
    await answered(connect().table("own").insert(rows))
    signed_in = connect(platform.publishable_key, token=platform.user_token(user))
    for client, expected in (
        (connect(), [1, 2]),
        (connect(platform.publishable_key), []),
        (signed_in, [1]),
    ):
        seen = await answered(client.table("own").select("id").order("id"))
        assert [row["id"] for row in seen] == expected
    assert await answered(signed_in.table("own").delete().gt("id", 0)) == [{"id": 1, "owner": user}]
    error = await refused(signed_in.table("own").insert({"id": 3, "owner": other}))
    assert error.code == "42501"
    assert len(await answered(connect().table("own").select("id"))) == 1


async def test_jobs_are_seen_by_their_owner_alone(
    platform: Platform, connect: Connect, user: str, superuser: asyncpg.Connection
) -> None:
    """The product's own policies, through the API as a browser uses it."""
    job = {"id": str(uuid.uuid4()), "user_id": user, "type": "generation", "input": {}}
    await answered(connect(schema="uvian").rpc("create_jobs", {"request": {"jobs": [job]}}))
    other = await superuser.fetchval("insert into auth.users default values returning id::text")
    for owner, expected in ((user, [job["id"]]), (other, [])):
        browser = connect(
            platform.publishable_key, token=platform.user_token(owner), schema="uvian"
        )
        seen = await answered(browser.table("jobs").select("id"))
        assert [row["id"] for row in seen] == expected
    error = await refused(
        connect(platform.publishable_key, schema="uvian").table("jobs").select("id")
    )
    assert error.code == "42501"


# ─── timeouts ────────────────────────────────────────────────────────────────────────────────────


async def test_each_role_has_its_statement_timeout(
    platform: Platform, connect: Connect, user: str
) -> None:
    """anon 3 s, authenticated 8 s, and the service the 8 s of the API's login."""
    signed_in = connect(platform.publishable_key, token=platform.user_token(user))
    for client, timeout in (
        (connect(platform.publishable_key), "3s"),
        (signed_in, "8s"),
        (connect(), "8s"),
    ):
        assert await answered(client.rpc("setting", {"name": "statement_timeout"})) == timeout


async def test_a_statement_that_runs_too_long_is_500_57014(platform: Platform) -> None:
    """A 5xx that is not transient: the same statement would run as long again."""
    answer = await response(
        platform, "POST", "/rest/v1/rpc/doze", key=platform.anon_key, json={"seconds": 20}
    )
    assert answer.status_code == 500
    assert answer.json() == {
        "code": "57014",
        "message": "canceling statement due to statement timeout",
        "details": None,
        "hint": None,
    }
    assert answer.elapsed.total_seconds() > 2.5
