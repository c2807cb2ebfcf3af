"""All settings: read from the environment once, checked, frozen. Nothing else reads ``os.environ``.

Each subject has a file with its settings; here they are put together.
"""

from __future__ import annotations

__all__ = ["SUBJECTS", "Config"]

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from uvian_common import dsn
from uvian_common.scrubbing import keep_secret
from uvian_worker.config.database import DatabaseSettings
from uvian_worker.config.environment import (
    PREFIX,
    UnknownSetting,
    displaced,
    is_service_variable,
    require_known,
    unquoted,
)
from uvian_worker.config.errors import ConfigError
from uvian_worker.config.gateway import GatewaySettings
from uvian_worker.config.images import ImageSettings
from uvian_worker.config.providers import ProviderSettings
from uvian_worker.config.redis import RedisSettings
from uvian_worker.config.worker import WorkerProcessSettings

#: The subjects, in the order of the documents.
SUBJECTS = (
    RedisSettings,
    DatabaseSettings,
    ImageSettings,
    WorkerProcessSettings,
    GatewaySettings,
    ProviderSettings,
)


class Config(
    ProviderSettings,  # pydantic puts the fields of the last base first
    GatewaySettings,
    WorkerProcessSettings,
    ImageSettings,
    DatabaseSettings,
    RedisSettings,
    BaseSettings,
):
    """Everything that can be set, as ``UVIAN_<NAME>`` or in a ``.env`` file.

    Durations are in seconds. Those that depend on each other are checked together.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8-sig",  # editors on Windows write a byte order mark
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")  # pydantic calls the last of these first
    @classmethod
    def _images_beside_the_database(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("database") == "supabase":
            return {"images": "supabase", **values}
        return values

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_meant(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Values without spaces and quotes around them; an empty one is not set (``UVIAN_X=""``)."""
        meant = {
            name: unquoted(value) if isinstance(value, str) else value
            for name, value in values.items()
        }
        return {name: value for name, value in meant.items() if value != "" or values[name] == ""}

    @model_validator(mode="after")
    def _supabase_is_known(self) -> Self:
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
        """pydantic-settings' hook: the environment without the variables of Kubernetes' services."""
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
        """Every text that no log, error or page may show."""
        values = (getattr(self, name) for name in type(self).model_fields)
        found = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
        return [secret for secret in (*found, *self.token_secrets()) if secret]

    def notes(self) -> list[str]:
        """Values that are not used as they are written, as sentences; for the log of a start."""
        taken = [
            f"{name} is the address of a service here, and no setting: the setting is "
            f"{getattr(self, name.removeprefix(PREFIX).lower())}; set it in .env"
            for name in displaced(os.environ, _names())
        ]
        urls = {"DATABASE_URL": self.database_url, "DATABASE_DIRECT_URL": self.database_direct_url}
        return taken + [
            f"{PREFIX}{name}: {note}"
            for name, url in urls.items()
            if url is not None
            for note in dsn.read(url.get_secret_value()).notes
        ]


class _Environment(EnvSettingsSource):
    """The environment, without addresses of services that happen to have the name of a setting."""

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
