"""Who asks: every way to be somebody, and every way to pretend."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import uuid
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.tokens import ISSUER, SECRET, SigningKey, claims_of, signed, unsigned
from uvian_worker.gateway.http.auth import InvalidToken, Jwks, KeysAway, TokenVerifier
from uvian_worker.gateway.http.problems import problem_of


class Project:
    """A project's published keys, and how often they were asked for."""

    def __init__(self, *keys: SigningKey) -> None:
        self.document: Any = {"keys": [key.jwk for key in keys]}
        self.asked = 0
        self.now = 0.0
        self.jwks = Jwks(self._fetch, clock=lambda: self.now)

    async def _fetch(self) -> Any:
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.document, Exception):
            raise self.document
        return self.document


HS256 = TokenVerifier(secrets=[SECRET])


async def refused(verifier: TokenVerifier, token: str) -> InvalidToken:
    """The error, which never quotes the token."""
    with pytest.raises(InvalidToken) as error:
        await verifier.verify(token)
    assert token not in str(error.value) or not token
    return error.value


# ─── who one is ──────────────────────────────────────────────────────────────────────────────────


async def test_a_user_of_the_legacy_secret_is_recognised() -> None:
    """With id, session and end of the token; nothing that the user could edit."""
    user_id = str(uuid.uuid4())
    claims = claims_of(user_id)
    user = await HS256.verify(signed(claims))
    assert (user.id, user.session_id) == (user_id, claims["session_id"])
    assert (user.expires_at, user.is_anonymous) == (claims["exp"], False)


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_a_user_of_a_published_key_is_recognised(algorithm: str) -> None:
    """By the key that the token names, of several."""
    keys = [SigningKey.new("ES256"), SigningKey.new("RS256"), SigningKey.new(algorithm)]
    verifier = TokenVerifier(jwks=Project(*keys).jwks, issuer=ISSUER)
    user_id = str(uuid.uuid4())
    assert (await verifier.verify(keys[2].sign(claims_of(user_id)))).id == user_id


async def test_an_anonymous_sign_in_is_a_user_and_known_as_such() -> None:
    """Supabase gives it the role authenticated."""
    assert (await HS256.verify(signed(claims_of(is_anonymous=True)))).is_anonymous


async def test_secrets_rotate() -> None:
    """The old and the new one hold side by side, and what neither signed does not."""
    verifier = TokenVerifier(secrets=["", SECRET, "the-new-secret-with-thirty-two-characters"])
    for secret in (SECRET, "the-new-secret-with-thirty-two-characters"):
        await verifier.verify(signed(claims_of(), secret))
    await refused(verifier, signed(claims_of(), "another-secret-with-thirty-two-characters"))


def test_without_any_key_the_gateway_does_not_start() -> None:
    """Nobody could ever be recognised."""
    with pytest.raises(ValueError, match="nobody"):
        TokenVerifier(secrets=[""])


# ─── pretenders ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "anon", "sub": None, "aud": None},  # the public anon key
        {"role": "service_role", "sub": None, "aud": None},
        {"role": "anon"},
        {"role": "service_role"},
        {"role": None},
        {"role": ["authenticated"]},
        {"aud": None},
        {"aud": "anon"},
        {"aud": ""},
        {"sub": None},
        {"sub": ""},
        {"sub": "not a uuid"},
        {"sub": 7},
        {"exp": None},
        {"exp": "never"},
        {"exp": float("inf")},
        {"nbf": 4_000_000_000},
        {"iat": 4_000_000_000},
    ],
    ids=str,
)
async def test_a_signature_alone_makes_nobody_a_user(changes: dict[str, Any]) -> None:
    """Role, audience, subject and expiry are required; the anon key is not a user."""
    assert (await refused(HS256, signed(claims_of(**changes)))).code == "invalid_token"


async def test_an_expired_token_says_so() -> None:
    """The client then asks for a new one; a few seconds between two clocks are forgiven."""
    now = time.time()
    assert (await refused(HS256, signed(claims_of(exp=now - 60)))).code == "token_expired"
    await HS256.verify(signed(claims_of(exp=now - 2)))


async def test_another_projects_token_is_refused_by_its_issuer() -> None:
    """Where the issuer is known; two projects may share a secret by mistake."""
    verifier = TokenVerifier(secrets=[SECRET], issuer="https://other.example/auth/v1")
    await refused(verifier, signed(claims_of()))


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "HS384", "HS512", "PS256"])
async def test_no_signature_is_none(name: str) -> None:
    """However it is spelled; nor any algorithm that Supabase does not use."""
    token = unsigned(json.dumps({"alg": name}).encode(), json.dumps(claims_of()).encode())
    await refused(HS256, token)
    await refused(TokenVerifier(jwks=Project(SigningKey.new()).jwks), token)


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_a_public_key_is_nobodys_secret(algorithm: str) -> None:
    """HS256 signed with the published key: the classic confusion."""
    key = SigningKey.new(algorithm)
    verifier = TokenVerifier(secrets=[SECRET], jwks=Project(key).jwks)
    for material in (key.pem, key.pem.strip(), json.dumps(key.jwk).encode()):
        signing = unsigned(
            json.dumps({"alg": "HS256", "typ": "JWT", "kid": key.kid}).encode(),
            json.dumps(claims_of()).encode(),
        ).rstrip(".")
        mac = hmac.new(material, signing.encode(), hashlib.sha256).digest()
        await refused(verifier, f"{signing}.{jwt.utils.base64url_encode(mac).decode()}")


async def test_a_key_serves_its_own_algorithm_alone() -> None:
    """A token that names an RSA key and says ES256 is of neither."""
    rsa, ec = SigningKey.new("RS256", kid="k"), SigningKey.new("ES256", kid="k")
    await refused(TokenVerifier(jwks=Project(rsa).jwks), ec.sign(claims_of()))
    await refused(TokenVerifier(jwks=Project(ec).jwks), rsa.sign(claims_of()))


async def test_a_key_that_the_token_brings_along_is_not_looked_at() -> None:
    """``jwk``, ``jku`` and ``x5u`` in a header are an invitation, and declined."""
    mine, theirs = SigningKey.new(kid="k"), SigningKey.new(kid="k")
    verifier = TokenVerifier(jwks=Project(mine).jwks)
    token = theirs.sign(
        claims_of(), jwk=theirs.jwk, jku="http://127.0.0.1:1/", x5u="http://127.0.0.1:1/"
    )
    await refused(verifier, token)


async def test_a_symmetric_key_among_the_published_ones_is_left_out() -> None:
    """A secret that was published is none; the other keys go on."""
    project = Project(good := SigningKey.new())
    project.document["keys"] += [
        {"kty": "oct", "kid": "s", "alg": "HS256", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "broken"},
        {"kty": "EC", "kid": "enc", "use": "enc"},
        "rubbish",
    ]
    verifier = TokenVerifier(jwks=project.jwks)
    await verifier.verify(good.sign(claims_of()))
    for kid in ("s", "broken", "enc"):
        await refused(verifier, SigningKey.new(kid=kid).sign(claims_of()))


@given(st.one_of(st.text(max_size=300), st.lists(st.text(max_size=40), max_size=4).map(".".join)))
def test_rubbish_is_refused_in_good_order(text: str) -> None:
    """No exception but the one."""
    with pytest.raises(InvalidToken):
        asyncio.run(HS256.verify(text))


@given(st.data())
def test_a_token_that_was_touched_anywhere_is_refused(data: st.DataObject) -> None:
    """One character of it, or one more."""
    token = signed(
        claims_of("6f1c7d3a-8f1e-4f0e-9d57-3d9f3f9b2f11", exp=4_000_000_000, iat=1, session_id="s")
    )
    place = data.draw(st.integers(0, len(token) - 2))  # the last one has bits that mean nothing
    other = data.draw(st.sampled_from("ABCxyz019-_.=").filter(lambda c: c != token[place]))
    with pytest.raises(InvalidToken):
        asyncio.run(HS256.verify(token[:place] + other + token[place + 1 :]))


async def test_an_endless_token_is_not_read() -> None:
    """Nor one nested until the parser gives up."""
    await refused(HS256, signed(claims_of(user_metadata={"x": "y" * 10_000})))
    deep = b'{"a":' * 1_400 + b"1" + b"}" * 1_400
    await refused(HS256, unsigned(deep, b"{}"))


# ─── rotation ────────────────────────────────────────────────────────────────────────────────────


async def test_a_new_key_is_found_when_its_first_token_comes() -> None:
    """Without a restart, and without asking while the keys are known."""
    old, new = SigningKey.new(), SigningKey.new()
    project = Project(old)
    verifier = TokenVerifier(jwks=project.jwks)
    for _ in range(3):
        await verifier.verify(old.sign(claims_of()))
    assert project.asked == 1
    project.document = {"keys": [old.jwk, new.jwk]}
    project.now = 31
    await verifier.verify(new.sign(claims_of()))
    await verifier.verify(old.sign(claims_of()))
    assert project.asked == 2


async def test_invented_key_ids_do_not_make_the_gateway_ask_and_ask() -> None:
    """At most once in half a minute, however many there are, at once or in turn."""
    project = Project(key := SigningKey.new())
    verifier = TokenVerifier(jwks=project.jwks)
    await verifier.verify(key.sign(claims_of()))
    strangers = [SigningKey.new(kid=f"k{n}").sign(claims_of()) for n in range(20)]
    await asyncio.gather(*(refused(verifier, token) for token in strangers))
    assert project.asked == 1
    project.now = 31
    await asyncio.gather(*(refused(verifier, token) for token in strangers))
    assert project.asked == 2


async def test_many_first_tokens_ask_once() -> None:
    """All wait for the same answer."""
    project = Project(key := SigningKey.new())
    verifier = TokenVerifier(jwks=project.jwks)
    await asyncio.gather(*(verifier.verify(key.sign(claims_of())) for _ in range(50)))
    assert project.asked == 1


async def test_a_revoked_key_is_gone_within_ten_minutes() -> None:
    """Though nobody names an unknown one."""
    old, new = SigningKey.new(), SigningKey.new()
    project = Project(old, new)
    verifier = TokenVerifier(jwks=project.jwks)
    await verifier.verify(old.sign(claims_of()))
    project.document = {"keys": [new.jwk]}
    project.now = 601
    await refused(verifier, old.sign(claims_of()))


@pytest.mark.parametrize("answer", [OSError("away"), "<html>", {"keys": None}, [], {}, None])
async def test_while_the_keys_cannot_be_read_the_known_ones_hold(answer: Any) -> None:
    """An outage of the project's Auth signs nobody out; of a key nobody knows nobody can tell."""
    project = Project(key := SigningKey.new())
    verifier = TokenVerifier(jwks=project.jwks)
    await verifier.verify(key.sign(claims_of()))
    project.document = answer
    project.now = 700
    await verifier.verify(key.sign(claims_of()))
    with pytest.raises(KeysAway):
        await verifier.verify(SigningKey.new().sign(claims_of()))
    assert project.asked == 2


@pytest.mark.parametrize("answer", [OSError("away"), TimeoutError(), "<html>", {"keys": None}])
async def test_a_token_that_nobody_can_check_is_no_invalid_token(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Auth away before the first key was read: 503, one line in the log, and no siege of Auth."""
    project = Project(key := SigningKey.new())
    document, project.document = project.document, answer
    verifier = TokenVerifier(jwks=project.jwks)
    for _ in range(5):
        with pytest.raises(KeysAway) as away:
            await verifier.verify(key.sign(claims_of()))
        problem = problem_of(away.value)
        assert (problem.kind.status, problem.code) == (503, "unavailable")
        assert problem.headers["Retry-After"]
    assert project.asked == 1
    project.now = 2.5  # not half a minute later, as for ids that somebody made up
    with pytest.raises(KeysAway):
        await verifier.verify(key.sign(claims_of()))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    project.document, project.now = document, 5.0
    await verifier.verify(key.sign(claims_of()))
    await refused(verifier, SigningKey.new().sign(claims_of()))  # now we know


@pytest.mark.parametrize("claim", ["iat", "nbf"])
async def test_a_clock_that_goes_half_a_minute_ahead_is_forgiven(claim: str) -> None:
    """As PostgREST does, so that a token is good for both or for none; more is not."""
    now = int(time.time())
    await HS256.verify(signed({**claims_of(), claim: now + 25}))
    await refused(HS256, signed({**claims_of(), claim: now + 40}))
