"""Settings of the database, and of the Supabase project that it may belong to."""

from __future__ import annotations

__all__ = ["DatabaseSettings"]

from typing import Annotated, Literal

from pydantic import BaseModel, Field, SecretStr

from uvian_common import dsn
from uvian_worker.config.errors import ConfigError
from uvian_worker.config.setting_types import PostgresUrl, Seconds, WebAddress


class DatabaseSettings(BaseModel):
    """Database: where Postgres is, and how it is reached."""

    database: Literal["postgres", "supabase"] = "postgres"
    """How Postgres is reached: `postgres` (a connection string) or `supabase` (the project's API)."""
    database_url: PostgresUrl | None = None
    """Connection string of the Supabase project or any Postgres with the schema `uvian`."""
    database_direct_url: PostgresUrl | None = None
    """A session connection for LISTEN, if `database_url` is a transaction pooler (port 6543) or not set."""
    database_connections: Annotated[int, Field(ge=2, le=50)] = 5
    """Connections to Postgres per process."""
    call_timeout: Seconds = 10.0
    """Time for one call to Postgres."""
    supabase_url: WebAddress | None = None
    """The project's API, `https://<ref>.supabase.co`, if database or images are `supabase`."""
    supabase_key: SecretStr | None = None
    """Its secret key (`sb_secret_…`) or the legacy `service_role` key; never a publishable one."""

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
                "UVIAN_DATABASE_URL is not set, and this does not use the API: give the connection string "
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

    def listen_url(self) -> str | None:
        """A connection that allows LISTEN, if there is one."""
        if self.database_direct_url is not None:
            return self.database_direct_url.get_secret_value()
        url = self.database_url.get_secret_value() if self.database_url else None
        return None if url is None or dsn.read(url).is_transaction_pool else url
