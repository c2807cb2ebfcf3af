"""The keys of a project and the tokens of its users, made and checked as Supabase does.

A project has two pairs of API keys (the legacy JWTs, and the opaque ``sb_…`` ones that the gateway
exchanges for a JWT of the same role), a shared secret that signs the legacy ones, and a key pair
that signs its users' tokens.
"""

from __future__ import annotations

__all__ = ["BadToken", "Caller", "Keys"]

import math
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec

_TEN_YEARS = 10 * 365 * 24 * 3600
_ISSUED_IN_FUTURE = 30  # seconds of clock skew that PostgREST allows


class BadToken(Exception):
    """A token that opens nothing, with PostgREST's words; ``expired`` tells the claims from the rest."""

    def __init__(self, message: str, *, claims: bool = False) -> None:
        self.claims = claims
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a request comes from: a database role and the claims that RLS reads."""

    role: str
    claims: Mapping[str, Any]
    claims_json: bytes

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Caller:
        """Whom these claims speak for; without a role it is nobody."""
        return cls(str(claims.get("role", "anon")), claims, orjson.dumps(claims))

    @property
    def user_id(self) -> str | None:
        """``sub``: the id in ``auth.users``, of a signed-in user."""
        return self.claims.get("sub")


class Keys:
    """Everything of one project that is secret, or proves that somebody knows a secret."""

    def __init__(self, ref: str) -> None:
        self.ref = ref
        self.jwt_secret = secrets.token_urlsafe(40)
        self.kid = str(uuid.uuid4())
        self._private = ec.generate_private_key(ec.SECP256R1())
        self.secret_key = f"sb_secret_{secrets.token_urlsafe(16)[:22]}_{secrets.token_hex(4)}"
        self.publishable_key = (
            f"sb_publishable_{secrets.token_urlsafe(16)[:22]}_{secrets.token_hex(4)}"
        )
        self.service_key = self._legacy("service_role")
        self.anon_key = self._legacy("anon")
        self._roles = {
            self.secret_key: "service_role",
            self.publishable_key: "anon",
            self.service_key: "service_role",
            self.anon_key: "anon",
        }
        self._checked: dict[str, Caller] = {}

    def user_token(
        self, user_id: str, *, issuer: str, algorithm: str = "ES256", **claims: Any
    ) -> str:
        """The access token of a signed-in user; ``claims`` replace or add, None removes."""
        now = int(time.time())
        payload = {
            "iss": issuer,
            "aud": "authenticated",
            "sub": user_id,
            "role": "authenticated",
            "iat": now,
            "exp": now + 3600,
            "session_id": str(uuid.uuid4()),
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": now}],
            "email": "",
            "phone": "",
            "is_anonymous": False,
            "app_metadata": {"provider": "email", "providers": ["email"]},
            "user_metadata": {},
            **claims,
        }
        kept = {name: value for name, value in payload.items() if value is not None}
        key = self._private if algorithm == "ES256" else self.jwt_secret
        return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": self.kid})

    def jwks(self) -> dict[str, Any]:
        """What ``/auth/v1/.well-known/jwks.json`` answers."""
        key = jwt.algorithms.ECAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        return {
            "keys": [{**key, "alg": "ES256", "use": "sig", "kid": self.kid, "key_ops": ["verify"]}]
        }

    def verifying(self) -> dict[str, Any]:
        """What PostgREST checks tokens with: the shared secret and the public key."""
        secret = jwt.algorithms.HMACAlgorithm.to_jwk(self.jwt_secret, as_dict=True)
        return {"keys": [{**secret, "alg": "HS256"}, *self.jwks()["keys"]]}

    def role_of(self, api_key: str) -> str | None:
        """The role that an API key stands for; None for one that is not this project's."""
        return self._roles.get(api_key)

    def caller(self, token: str) -> Caller:
        """Whom a JWT speaks for; raises ``BadToken``."""
        caller = self._checked.get(token)
        if caller is None:
            caller = self._verified(token)
            self._checked[token] = caller
        expires = caller.claims.get("exp", math.inf)
        if not isinstance(expires, int | float):
            raise BadToken("The JWT 'exp' claim must be a number", claims=True)
        if expires < time.time():
            raise BadToken("JWT expired", claims=True)
        return caller

    def sign(self, url: str, expires_in: int) -> str:
        """The token of a signed URL of Storage."""
        now = int(time.time())
        payload = {"url": url, "iat": now, "exp": now + expires_in}
        return jwt.encode(payload, self.jwt_secret, algorithm="HS256")

    def signed(self, token: str) -> str:
        """What a signed URL was signed for; raises ``jwt.PyJWTError``."""
        url = jwt.decode(token, self.jwt_secret, algorithms=["HS256"])["url"]
        return str(url)

    def _legacy(self, role: str) -> str:
        now = int(time.time())
        claims = {
            "iss": "supabase",
            "ref": self.ref,
            "role": role,
            "iat": now,
            "exp": now + _TEN_YEARS,
        }
        return jwt.encode(claims, self.jwt_secret, algorithm="HS256")

    def _verified(self, token: str) -> Caller:
        parts = token.count(".") + 1
        if parts != 3:
            raise BadToken(f"Expected 3 parts in JWT; got {parts}")
        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
        except jwt.PyJWTError as error:
            raise BadToken("JWT couldn't be decoded") from error
        if algorithm not in ("HS256", "ES256"):
            raise BadToken("Wrong or unsupported encoding algorithm")
        key = self.jwt_secret if algorithm == "HS256" else self._private.public_key()
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                leeway=_ISSUED_IN_FUTURE,
                # Expiry is looked at with each request; PostgREST asks for no audience by default.
                options={"verify_exp": False, "verify_aud": False, "verify_sub": False},
            )
        except jwt.ImmatureSignatureError as error:
            raise BadToken("JWT issued at future", claims=True) from error
        except jwt.PyJWTError as error:
            raise BadToken("No suitable key or wrong key type") from error
        return Caller.of(claims)
