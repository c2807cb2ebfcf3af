"""Settings of the gateway: where it listens, who may call it, how often."""

from __future__ import annotations

__all__ = ["GatewaySettings"]

from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from uvian_worker.config.database import DatabaseSettings
from uvian_worker.config.errors import ConfigError
from uvian_worker.config.setting_types import (
    Networks,
    Origins,
    PerMinute,
    Seconds,
    Secrets,
    WebAddress,
    listed,
    networks_in,
    secrets_in,
)


class GatewaySettings(DatabaseSettings):
    """Gateway: where it listens, who may call it, and how often."""

    gateway_host: str = "127.0.0.1"
    """Address it listens on; in a container `0.0.0.0`, or `::` for IPv6 and IPv4."""
    gateway_port: Annotated[int, Field(ge=0, le=65535)] = 8787
    """Port it listens on; 0 picks a free one."""
    gateway_origins: Origins = ""
    """Origins of other pages that may call it, separated by commas: `https://app.example`, or `*`."""
    gateway_max_body: Annotated[int, Field(ge=1024)] = 1024 * 1024
    """Largest body of a request, in bytes."""
    gateway_connections: Annotated[int, Field(ge=16)] = 10_000
    """Connections open at a time, at most as many as open files allow; then the most silent one is closed."""
    gateway_keep_alive: Seconds = 75.0
    """How long a connection may be idle between requests; must be longer than a load balancer keeps it."""
    gateway_proxies: Networks = "private"
    """Networks of proxies whose `X-Forwarded-For` counts; `private`: this machine and all private ones."""
    jwt_secrets: Secrets = SecretStr("")
    """Legacy JWT secrets (HS256) of valid tokens, separated by commas, or as a JSON list: `["…","…"]`."""
    jwks_url: WebAddress | None = None
    """Where the project's signing keys are published; by default at `supabase_url`."""
    jwt_issuer: str | None = None
    """The issuer (`iss`) of valid tokens; by default the Auth of `supabase_url`, if that is set."""
    wake_secret: SecretStr = SecretStr("")
    """Secret of a Supabase Database Webhook (`X-Uvian-Wake`); without it `POST /v1/wake` is closed."""
    limit_write: PerMinute = 60
    """Requests a minute that change something (jobs, messages), per user."""
    limit_read: PerMinute = 600
    """Requests a minute that read, per user."""
    limit_connect: PerMinute = 120
    """Sockets and event streams opened a minute, per user."""
    limit_subscribe: PerMinute = 600
    """Topics subscribed to a minute, per user."""
    limit_sockets: Annotated[int, Field(ge=1)] = 30
    """Sockets and event streams open at a time, per user, in each gateway."""
    limit_address: Annotated[int, Field(ge=1)] = 500
    """Connections open at a time from one address, in each gateway (of a proxy: sockets and streams)."""

    @model_validator(mode="after")
    def _secrets_are_long(self) -> Self:
        for secret in self.token_secrets():
            if len(secret) < 32:
                raise ValueError(
                    "UVIAN_JWT_SECRETS: a secret has at least 32 characters; whoever guesses it is "
                    'everybody. (One with a comma in it is written as a JSON list: ["…"].)'
                )
        if 0 < len(self.wake_secret.get_secret_value()) < 16:
            raise ValueError("UVIAN_WAKE_SECRET needs at least 16 characters")
        return self

    def origins(self) -> frozenset[str]:
        """Origins whose pages may call the gateway."""
        return frozenset(listed(self.gateway_origins))

    def proxies(self) -> list[str]:
        """Networks of proxies whose `X-Forwarded-For` counts."""
        return networks_in(self.gateway_proxies)

    def token_secrets(self) -> list[str]:
        """Secrets that HS256 tokens may be signed with."""
        return secrets_in(self.jwt_secrets.get_secret_value())

    def token_keys_url(self) -> str | None:
        """Where the project publishes its signing keys."""
        return self.jwks_url or self._auth("/.well-known/jwks.json")

    def token_issuer(self) -> str | None:
        """The issuer that tokens must have, if it is known."""
        return self.jwt_issuer or self._auth()

    def require_tokens(self) -> None:
        """Raise ``ConfigError`` if no token could be verified."""
        if not self.token_secrets() and self.token_keys_url() is None:
            raise ConfigError(
                "Nobody could sign in: set UVIAN_SUPABASE_URL (the project's keys are found there), or "
                "UVIAN_JWT_SECRETS where the project still signs with its legacy JWT secret."
            )

    def _auth(self, path: str = "") -> str | None:
        return f"{self.supabase_url.rstrip('/')}/auth/v1{path}" if self.supabase_url else None
