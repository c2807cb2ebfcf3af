"""Who sent a request: access tokens of Supabase Auth, verified in this process.

A project signs with a shared secret (HS256, the legacy way) or with keys that it publishes as a
JWKS (ES256, RS256), and rotates either: several are valid at a time. Which family of keys is tried
follows from the algorithm alone, so a public key never becomes somebody's HMAC secret.

A valid signature is not enough: the public anon key has one. A user's token says ``role`` and
``aud`` ``authenticated``, who (``sub``) and until when (``exp``).
"""

from __future__ import annotations

__all__ = ["InvalidToken", "Jwks", "KeysAway", "TokenVerifier", "User"]

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

import jwt

log = logging.getLogger("uvian.gateway.auth")

_LONGEST: Final = 8_192  #: characters; nothing that Supabase signs is longer
_LEEWAY: Final = 30  #: seconds between two clocks, as PostgREST allows
_AUDIENCE: Final = "authenticated"
#: A header names its algorithm; the key decides whether that may be.
_ALGORITHMS: Final = {"RSA": "RS256", "EC": "ES256"}


class InvalidToken(Exception):
    """The token does not say who sent the request; the message says why, and never what it holds."""

    def __init__(self, message: str, *, code: str = "invalid_token") -> None:
        self.code = code  #: ``invalid_token`` or ``token_expired``
        super().__init__(message)


class KeysAway(Exception):
    """The project's keys could not be read: whose token this is cannot be known."""


@dataclass(frozen=True, slots=True)
class User:
    """A signed-in user, anonymous sign-ins included."""

    id: str
    expires_at: float  #: unix time; nothing is answered in this token's name afterwards
    session_id: str | None = None
    is_anonymous: bool = False

    @property
    def door(self) -> Literal["browser", "anonymous"]:
        """By which door their requests come, for the database."""
        return "anonymous" if self.is_anonymous else "browser"


class Jwks:
    """The project's public keys: fetched when first needed, and again for a key id nobody knows.

    ``fetch`` answers the document. Unknown ids are cheap to make up, so it is called at most every
    ``patience`` seconds (every ``again`` after it failed); every ``lifetime`` seconds, because a key
    that was revoked must go. While it fails the known keys stay, and whether another id exists
    cannot be known.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Any]],
        *,
        patience: float = 30.0,
        again: float = 2.0,
        lifetime: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._patience = patience
        self._again = again
        self._lifetime = lifetime
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched: float | None = None
        self._known: float | None = None
        self._away = False  #: the last fetch failed
        self._turn = asyncio.Lock()

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """The key of this id, if the project has it. Raises ``KeysAway`` while that cannot be known."""
        if kid not in self._keys or self._is_old():
            async with self._turn:  # whoever waited finds what the first one fetched
                if (kid not in self._keys or self._is_old()) and self._may_fetch():
                    await self._refresh()
        key = self._keys.get(kid)
        if key is None and self._away:
            raise KeysAway("The keys of the project cannot be read at the moment.")
        return key

    def _is_old(self) -> bool:
        return self._known is None or self._clock() - self._known > self._lifetime

    def _may_fetch(self) -> bool:
        pause = self._again if self._away else self._patience
        return self._fetched is None or self._clock() - self._fetched >= pause

    async def _refresh(self) -> None:
        self._fetched = self._clock()
        try:
            document = await self._fetch()
            keys = {key.key_id: key for key in _public_keys(document) if key.key_id}
        except Exception as error:  # noqa: BLE001 - whatever it is, the known keys go on
            if not self._away:  # one line, however often it is fetched meanwhile
                log.warning(
                    "The project's keys cannot be read: %s: %s", type(error).__name__, error
                )
            self._away = True
            return
        if self._away:
            log.warning("The project's keys can be read again")
        self._away = False
        self._keys = keys
        self._known = self._clock()


class TokenVerifier:
    """Checks access tokens. ``secrets`` are for HS256, ``jwks`` for everything else."""

    def __init__(
        self, *, secrets: Sequence[str] = (), jwks: Jwks | None = None, issuer: str | None = None
    ) -> None:
        self._secrets = tuple(secret for secret in secrets if secret)
        self._jwks = jwks
        self._issuer = issuer
        if not self._secrets and jwks is None:
            raise ValueError("Without a secret or a JWKS nobody can be recognised.")

    async def verify(self, token: str) -> User:
        """Whose token this is. Raises ``InvalidToken`` and ``KeysAway``."""
        if len(token) > _LONGEST:
            raise InvalidToken("The token is too long.")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise InvalidToken("This is not a JWT.") from error
        algorithm: Any = header.get("alg")
        if algorithm == "HS256":
            return self._by_secret(token)
        if algorithm in _ALGORITHMS.values():
            return await self._by_key(token, algorithm, header.get("kid"))
        raise InvalidToken("The token is not signed with HS256, ES256 or RS256.")

    def _by_secret(self, token: str) -> User:
        problem = InvalidToken("The token is signed with a shared secret; this project has none.")
        for secret in self._secrets:
            try:
                return self._user(token, secret, "HS256")
            except InvalidToken as error:
                if error.code == "token_expired":
                    raise
                problem = error
        raise problem

    async def _by_key(self, token: str, algorithm: str, kid: Any) -> User:
        if self._jwks is None or not isinstance(kid, str):
            raise InvalidToken("The token is not signed with a key of this project.")
        key = await self._jwks.find(kid)
        if key is None or _ALGORITHMS.get(key.key_type or "") != algorithm:
            raise InvalidToken("The token is not signed with a key of this project.")
        return self._user(token, key, algorithm)

    def _user(self, token: str, key: str | jwt.PyJWK, algorithm: str) -> User:
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=_AUDIENCE,
                issuer=self._issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "sub", "aud"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise InvalidToken("The token has expired.", code="token_expired") from error
        except jwt.MissingRequiredClaimError as error:
            raise InvalidToken(f"The token does not say {error.claim}.") from error
        except jwt.InvalidAudienceError as error:
            raise InvalidToken("The token is not one of a signed-in user.") from error
        except jwt.InvalidIssuerError as error:
            raise InvalidToken("The token was issued by another project.") from error
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidToken("The token is not valid.") from error
        return _signed_in(claims)


def _signed_in(claims: dict[str, Any]) -> User:
    if claims.get("role") != "authenticated":
        raise InvalidToken("The token is not one of a signed-in user.")
    try:
        user_id = str(UUID(claims["sub"]))
        expires_at = float(claims["exp"])
    except (ValueError, AttributeError, TypeError, OverflowError) as error:
        raise InvalidToken("The token does not say who it is for.") from error
    session = claims.get("session_id")
    return User(
        id=user_id,
        expires_at=expires_at,
        session_id=session if isinstance(session, str) else None,
        is_anonymous=claims.get("is_anonymous") is True,
    )


def _public_keys(document: Any) -> list[jwt.PyJWK]:
    """The keys that can verify; what is of another kind, or broken, is left out."""
    keys = []
    for entry in document["keys"]:
        if not isinstance(entry, dict) or entry.get("kty") not in _ALGORITHMS:
            continue
        if entry.get("use", "sig") != "sig":
            continue
        try:
            keys.append(jwt.PyJWK(entry, algorithm=_ALGORITHMS[entry["kty"]]))
        except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
            log.warning("A key of the project is left out: %s", error)
    return keys
