"""Tokens as Supabase Auth signs them, and as others would like to."""

from __future__ import annotations

__all__ = ["SECRET", "SigningKey", "claims_of", "signed"]

import base64
import time
import uuid
from dataclasses import dataclass
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

SECRET = "a-legacy-secret-of-at-least-thirty-two-characters"
ISSUER = "http://127.0.0.1:1/auth/v1"

_ANY = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def claims_of(user_id: str | None = None, **changes: Any) -> dict[str, Any]:
    """The claims of a signed-in user; a change to ``None`` leaves a claim out."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": "authenticated",
        "exp": now + 3600,
        "iat": now,
        "sub": user_id or str(uuid.uuid4()),
        "role": "authenticated",
        "session_id": str(uuid.uuid4()),
        "is_anonymous": False,
        "app_metadata": {"provider": "email"},
        "user_metadata": {"role": "service_role"},
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def signed(claims: dict[str, Any], secret: str = SECRET) -> str:
    """A token of the legacy kind."""
    return jwt.encode(claims, secret, algorithm="HS256")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One of a project's signing keys."""

    kid: str
    algorithm: str
    private: _ANY

    @classmethod
    def new(cls, algorithm: str = "ES256", kid: str | None = None) -> Self:
        """A fresh one."""
        private: _ANY = (
            ec.generate_private_key(ec.SECP256R1())
            if algorithm == "ES256"
            else rsa.generate_private_key(65537, 2048)
        )
        return cls(kid or str(uuid.uuid4()), algorithm, private)

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A token of this key."""
        return jwt.encode(
            claims, self.private, algorithm=self.algorithm, headers={"kid": self.kid, **header}
        )

    @property
    def pem(self) -> bytes:
        """The public half, as everybody may read it."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def jwk(self) -> dict[str, Any]:
        """Its entry in the project's JWKS."""
        public = self.private.public_key()
        algorithm: Any = jwt.get_algorithm_by_name(self.algorithm)
        document = algorithm.to_jwk(public, as_dict=True)
        return {**document, "kid": self.kid, "alg": self.algorithm, "use": "sig"}


def unsigned(header: bytes, claims: bytes) -> str:
    """A token whose author did not care for a signature."""
    return (
        ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, claims))
        + "."
    )
