"""``python -m tests.supabase``: a platform by hand, until Ctrl-C, that leaves nothing behind.

Without ``--database-url`` it stands on a Postgres of its own, bootstrapped and migrated. What goes
wrong is scripted over HTTP:

    curl -d '{"action": "lose_reply", "writes": true, "every": 3}' $UVIAN_SUPABASE_URL/_faults
    curl -d '{"down": true}' $UVIAN_SUPABASE_URL/_faults
    curl -X DELETE $UVIAN_SUPABASE_URL/_faults
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.servers import POSTGRES_BINARIES, server_folder
from tests.supabase.platform import Platform
from uvian_worker.local.embedded import EmbeddedPostgres
from uvian_worker.schema.migrate import bootstrap, migrate


def main() -> None:
    """Start it, say how to reach it, and wait for the end."""
    parser = argparse.ArgumentParser(prog="python -m tests.supabase", description=__doc__)
    parser.add_argument("--database-url", help="of a migrated Postgres, as the role authenticator")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: a free one)")
    parser.add_argument("--pool-size", type=int, default=10, help="PostgREST's connections")
    arguments = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(server_folder())
        settings = {}
        dsn = arguments.database_url
        if dsn is None:
            postgres = stack.enter_context(_postgres(folder / "postgres"))
            dsn = postgres.dsn_for(user="authenticator")
            settings["UVIAN_DATABASE_URL"] = postgres.migrator_dsn
        platform = Platform(
            dsn, folder / "storage", port=arguments.port, pool_size=arguments.pool_size
        )
        stack.enter_context(platform)
        settings |= {
            "UVIAN_SUPABASE_URL": platform.url,
            "UVIAN_SUPABASE_KEY": platform.secret_key,
            "SUPABASE_SERVICE_ROLE_KEY": platform.service_key,
            "SUPABASE_PUBLISHABLE_KEY": platform.publishable_key,
            "SUPABASE_ANON_KEY": platform.anon_key,
            "SUPABASE_JWT_SECRET": platform.jwt_secret,
        }
        print(*(f"{name}={value}" for name, value in settings.items()), sep="\n", flush=True)  # noqa: T201
        ended.wait()


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(folder, durable=False, binaries=POSTGRES_BINARIES) as postgres:
        asyncio.run(bootstrap(postgres.dsn))
        asyncio.run(migrate(postgres.migrator_dsn))
        yield postgres


if __name__ == "__main__":
    main()
