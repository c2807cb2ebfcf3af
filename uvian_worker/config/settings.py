"""Settings: read from the environment once, checked, frozen. Nothing else reads ``os.environ``."""

from __future__ import annotations

__all__ = ["Config", "ConfigError"]

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from uvian_common import dsn
from uvian_common.scrubbing import keep_secret
from uvian_worker.config.environment import (
    PREFIX,
    UnknownSetting,
    displaced,
    is_service_variable,
    require_known,
    unquoted,
)
from uvian_worker.config.setting_types import (
    BaseUrl,
    EndpointId,
    Key,
    LogLevel,
    ModelPath,
    Networks,
    Origins,
    PerMinute,
    PostgresUrl,
    RedisUrl,
    Seconds,
    Secrets,
    WebAddress,
    completed,
    listed,
    networks_in,
    numbers_in,
    order,
    secrets_in,
)


class ConfigError(Exception):
    """A setting is missing, unknown or wrong; the message names it and the next step."""


class Config(BaseSettings):
    """Everything that can be set, as ``UVIAN_<NAME>`` or in a ``.env`` file.

    Durations are in seconds. Those that depend on each other are checked together.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8-sig",  # what Windows' editors put at the beginning is no part of a name
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    # Where things are
    redis_url: RedisUrl = SecretStr("redis://127.0.0.1:6379/0")
    """Redis: `redis://[user:password@]host:port/db`, or `rediss://` for TLS."""
    namespace: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,40}$")] = "uvian"
    """Prefix of all our keys, channels and queues in Redis."""
    database: Literal["postgres", "supabase"] = "postgres"
    """How Postgres is reached: `postgres` (a connection string) or `supabase` (the project's API)."""
    database_url: PostgresUrl | None = None
    """Connection string of the Supabase project or any Postgres with the schema `uvian`."""
    database_direct_url: PostgresUrl | None = None
    """A session connection for LISTEN, if `database_url` is a transaction pooler (port 6543) or not set."""
    database_connections: Annotated[int, Field(ge=2, le=50)] = 5
    """Connections to Postgres per process."""
    supabase_url: WebAddress | None = None
    """The project's API, `https://<ref>.supabase.co`, if database or images are `supabase`."""
    supabase_key: SecretStr | None = None
    """Its secret key (`sb_secret_…`) or the legacy `service_role` key; never a publishable one."""
    images: Literal["local", "supabase"] = "local"
    """Where pictures are stored: a `local` folder, or the bucket `uvian-images` of `supabase`."""
    images_dir: Path = Path(".uvian/images")
    """Folder of the local image store."""
    images_url: WebAddress | None = None
    """The URL under which a gateway serves that folder; without it signed URLs are `file:` paths."""
    images_secret: SecretStr = SecretStr("")
    """Signs the URLs of the local image store; required with `images_url`."""

    # The worker
    max_jobs: Annotated[int, Field(ge=1, le=1000)] = 20
    """Jobs that run at a time in one worker process."""
    chat_history_tokens: Annotated[int, Field(ge=100)] = 8_000
    """Tokens of a conversation that are sent with a question: the model's window less its longest answer."""
    cpu_threads: Annotated[int, Field(ge=1, le=64)] = min(os.cpu_count() or 1, 8)
    """Threads for image work, and processes for decoding pictures from outside."""
    health_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Serve `/health/live` and `/health/ready` on this port; 0 picks a free one."""
    health_host: str = "127.0.0.1"
    """Address of the health endpoint; in a container `0.0.0.0`, or `::` for IPv6 and IPv4."""
    log_level: LogLevel = "INFO"
    """How much is logged."""
    log_format: Literal["text", "json"] = "text"
    """One line of text, or one JSON object, per record."""

    # The gateway
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

    # Models
    image_model: Annotated[
        str, order("local", "openai", "fal", "runpod", "jigsawstack"), Field(min_length=1)
    ] = "local"
    """Providers of pictures, one or several in order: `local`, `openai`, `fal`, `runpod`, `jigsawstack`."""
    chat_model: Annotated[str, order("local", "openai", "runpod"), Field(min_length=1)] = "local"
    """Providers of chats, one or several in order: `local` (an offline voice), `openai`, `runpod`."""
    openai_api_key: Key | None = None
    """Key for OpenAI; a server of your own may need none."""
    openai_base_url: BaseUrl = "https://api.openai.com/v1"
    """OpenAI, or any server that speaks its API: vLLM, llama.cpp, Ollama, LiteLLM …"""
    openai_chat_model: Annotated[str, Field(min_length=1)] = "gpt-5.4-mini"
    """The model for chats that name none."""
    openai_image_model: Annotated[str, Field(min_length=1)] = "gpt-image-2"
    """The model that makes pictures."""
    openai_timeouts: str = "connect=10,first_byte=120,idle=60,total=600"
    """Seconds to connect, until an answer begins, between two pieces of it, and in all."""
    openai_limits: str = "concurrency=100,per_second=50"
    """Calls of one worker process at a time, and per second."""
    fal_api_key: Key | None = None
    """Key for FAL."""
    fal_base_url: BaseUrl = "https://queue.fal.run"
    """URL of FAL's queue."""
    fal_image_model: ModelPath = "fal-ai/flux/dev"
    """The model that makes pictures, as FAL names it, with its path."""
    fal_refine_model: ModelPath = "fal-ai/flux/dev/image-to-image"
    """The model that changes pictures: one that takes an `image_url`."""
    fal_timeouts: str = "connect=10,first_byte=60,idle=60,total=600"
    """As `openai_timeouts`, for each call to the queue; what does not begin within `total` is dropped."""
    fal_limits: str = "concurrency=100,per_second=50"
    """Requests that one worker process sends at a time, and in a second."""
    runpod_api_key: Key | None = None
    """Key for RunPod."""
    runpod_base_url: BaseUrl = "https://api.runpod.ai/v2"
    """URL of RunPod's serverless endpoints."""
    runpod_chat_endpoint: EndpointId | None = None
    """The endpoint that answers chats, by its id."""
    runpod_chat_model: Annotated[str, Field(min_length=1)] | None = None
    """The model's name there (vLLM workers); with it the endpoint's OpenAI route is used, which streams."""
    runpod_image_endpoint: EndpointId | None = None
    """The endpoint that makes pictures."""
    runpod_timeouts: str = "connect=10,first_byte=300,idle=60,total=900"
    """As `openai_timeouts`; starting a worker takes minutes, and `total` goes with each request."""
    runpod_limits: str = "concurrency=100,per_second=50"
    """Requests that one worker process sends at a time, and in a second."""
    jigsawstack_api_key: Key | None = None
    """Key for JigsawStack."""
    jigsawstack_base_url: BaseUrl = "https://api.jigsawstack.com/v1"
    """URL of JigsawStack's API."""
    jigsawstack_timeouts: str = "connect=10,first_byte=120,idle=60,total=300"
    """As `openai_timeouts`."""
    jigsawstack_limits: str = "concurrency=50,per_second=25"
    """Requests that one worker process sends at a time, and in a second; the vendor allows 50 a second."""

    # Time
    lease: Seconds = 15.0
    """How long a job stays with a worker that does not renew its lease."""
    renew_every: Seconds = 5.0
    """How often leases are renewed."""
    sweep_every: Seconds = 2.0
    """How often the sweep looks for lost jobs."""
    drain_grace: Annotated[float, Field(ge=0)] = 20.0
    """How long running jobs may finish after SIGTERM before they are interrupted and queued again."""
    stop_grace: Seconds = 5.0
    """How long an executor may take to stop."""
    call_timeout: Seconds = 10.0
    """Time for one call to Postgres."""

    # What a picture may be
    image_max_bytes: Annotated[int, Field(gt=0)] = 32 * 1024 * 1024
    """Largest file accepted from a provider or a user."""
    image_max_pixels: Annotated[int, Field(gt=0)] = 4096 * 4096
    """Largest picture accepted, in pixels."""
    image_max_seconds: Annotated[float, Field(ge=0.25, le=60)] = 1.5
    """CPU time to decode the largest picture; smaller ones get less. Raise it on slow machines."""
    fetch_http: bool = False
    """Fetch pictures from `http://` URLs too, not only from `https://`."""
    fetch_timeout: Seconds = 20.0
    """Time for one picture from a URL of a user, redirects included."""

    @model_validator(mode="before")  # pydantic calls the last of these first
    @classmethod
    def _images_beside_the_database(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("database") == "supabase":
            return {"images": "supabase", **values}
        return values

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_meant(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Without what is around a value; where nothing is left nothing was set (``UVIAN_X=""``)."""
        meant = {
            name: unquoted(value) if isinstance(value, str) else value
            for name, value in values.items()
        }
        return {name: value for name, value in meant.items() if value != "" or values[name] == ""}

    @field_validator("images_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @field_validator(
        "openai_timeouts",
        "openai_limits",
        "fal_timeouts",
        "fal_limits",
        "runpod_timeouts",
        "runpod_limits",
        "jigsawstack_timeouts",
        "jigsawstack_limits",
    )
    @classmethod
    def _complete(cls, value: str, info: ValidationInfo) -> str:
        """A group of numbers, with the defaults of those it leaves out."""
        numbers = numbers_in(str(cls.model_fields[str(info.field_name)].default))
        return completed(value, numbers)

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if self.lease < 2 * self.renew_every + self.sweep_every:
            raise ValueError(
                f"UVIAN_LEASE ({self.lease:g} s) must be at least twice UVIAN_RENEW_EVERY plus "
                f"UVIAN_SWEEP_EVERY ({2 * self.renew_every + self.sweep_every:g} s): one lost "
                "renewal must not cost a job"
            )
        if self.sweep_every > 5:
            raise ValueError(
                "UVIAN_SWEEP_EVERY must be at most 5 s: a sweep 10 s old counts as an outage"
            )
        if self.images_url and len(self.images_secret.get_secret_value()) < 16:
            raise ValueError(
                "UVIAN_IMAGES_SECRET needs at least 16 characters when UVIAN_IMAGES_URL is set"
            )
        for secret in self.token_secrets():
            if len(secret) < 32:
                raise ValueError(
                    "UVIAN_JWT_SECRETS: a secret has at least 32 characters; whoever guesses it is "
                    'everybody. (One with a comma in it is written as a JSON list: ["…"].)'
                )
        if 0 < len(self.wake_secret.get_secret_value()) < 16:
            raise ValueError("UVIAN_WAKE_SECRET needs at least 16 characters")
        for setting in ("database", "images"):
            if getattr(self, setting) == "supabase" and not (
                self.supabase_url and self.supabase_key
            ):
                raise ValueError(
                    f"UVIAN_{setting.upper()}=supabase needs UVIAN_SUPABASE_URL (Project Settings > "
                    "Data API) and UVIAN_SUPABASE_KEY (Project Settings > API Keys > secret key)"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """pydantic-settings' hook: the environment is without what services have put there."""
        return init_settings, _Environment(settings_cls), dotenv_settings, file_secret_settings

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Config:
        """Read the environment (and ``.env``); raises ``ConfigError`` for anything wrong."""
        environ = os.environ if environ is None else environ
        files = overrides.get("_env_file", cls.model_config.get("env_file"))
        try:
            require_known(environ, _paths(files), _names())
            config = cls(**overrides)
        except UnknownSetting as error:
            raise ConfigError(str(error)) from error
        except ValidationError as error:
            raise ConfigError(_explain(error)) from error
        keep_secret(config.secrets())
        return config

    def secrets(self) -> list[str]:
        """Every text that nobody may be told."""
        values = (getattr(self, name) for name in type(self).model_fields)
        found = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
        return [secret for secret in (*found, *self.token_secrets()) if secret]

    def notes(self) -> list[str]:
        """What was read otherwise than it stands there, as sentences; to be said once, at start."""
        taken = [
            f"{name} is the address of a service here and no setting: it is "
            f"{getattr(self, name.removeprefix(PREFIX).lower())}; say otherwise in .env"
            for name in displaced(os.environ, _names())
        ]
        urls = {"DATABASE_URL": self.database_url, "DATABASE_DIRECT_URL": self.database_direct_url}
        return taken + [
            f"{PREFIX}{name}: {note}"
            for name, url in urls.items()
            if url is not None
            for note in dsn.read(url.get_secret_value()).notes
        ]

    def require_database(self) -> None:
        """Raise ``ConfigError`` unless the settings say where the database is."""
        if self.database == "postgres":
            self.require_database_url()

    def require_supabase(self) -> tuple[str, str]:
        """URL and key of the project's API; raises ``ConfigError`` when they are not set."""
        if self.supabase_url is None or self.supabase_key is None:
            raise ConfigError("UVIAN_SUPABASE_URL and UVIAN_SUPABASE_KEY are not set.")
        return self.supabase_url, self.supabase_key.get_secret_value()

    def require_database_url(self) -> str:
        """The connection string; raises ``ConfigError`` when it is not set."""
        if self.database_url is None and self.database == "supabase":
            raise ConfigError(
                "UVIAN_DATABASE_URL is not set, and this goes past the API: give the connection string "
                "of your project (Supabase: Connect > Session pooler)."
            )
        if self.database_url is None and self.supabase_url is not None:
            raise ConfigError(
                "UVIAN_DATABASE_URL is not set. UVIAN_SUPABASE_URL is: to work over the project's API set "
                "UVIAN_DATABASE=supabase; or give the connection string (Connect > Session pooler)."
            )
        if self.database_url is None:
            raise ConfigError(
                "UVIAN_DATABASE_URL is not set. Give the connection string of your project "
                "(Supabase: Connect > Session pooler), or run `uvian dev` for an embedded one."
            )
        return self.database_url.get_secret_value()

    def origins(self) -> frozenset[str]:
        """Who may call the gateway from another page."""
        return frozenset(listed(self.gateway_origins))

    def proxies(self) -> list[str]:
        """Networks whose word about where a request comes from is taken."""
        return networks_in(self.gateway_proxies)

    def token_secrets(self) -> list[str]:
        """What HS256 tokens may be signed with."""
        return secrets_in(self.jwt_secrets.get_secret_value())

    def token_keys_url(self) -> str | None:
        """Where the project publishes its signing keys."""
        return self.jwks_url or self._auth("/.well-known/jwks.json")

    def token_issuer(self) -> str | None:
        """Who tokens have to come from, if we know."""
        return self.jwt_issuer or self._auth()

    def require_tokens(self) -> None:
        """Raise ``ConfigError`` unless somebody could be recognised by a token."""
        if not self.token_secrets() and self.token_keys_url() is None:
            raise ConfigError(
                "Nobody could sign in: set UVIAN_SUPABASE_URL (the project's keys are found there), or "
                "UVIAN_JWT_SECRETS where the project still signs with its legacy JWT secret."
            )

    def _auth(self, path: str = "") -> str | None:
        return f"{self.supabase_url.rstrip('/')}/auth/v1{path}" if self.supabase_url else None

    def listen_url(self) -> str | None:
        """A connection that allows LISTEN, if there is one."""
        if self.database_direct_url is not None:
            return self.database_direct_url.get_secret_value()
        url = self.database_url.get_secret_value() if self.database_url else None
        return None if url is None or dsn.read(url).is_transaction_pool else url


class _Environment(EnvSettingsSource):
    """The environment, without the addresses of services that happen to have a setting's name."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        found = super()._load_env_vars()
        return {
            name: value
            for name, value in found.items()
            if value is None or not is_service_variable(name, value, os.environ)
        }


def _names() -> frozenset[str]:
    return frozenset(PREFIX + name.upper() for name in Config.model_fields)


def _paths(files: Any) -> list[Path]:
    if files is None:
        return []
    return [Path(file) for file in (files if isinstance(files, list | tuple) else [files])]


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = PREFIX + str(problem["loc"][0]).upper() + ": " if problem["loc"] else ""
        lines.append(f"{name}{problem['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)
