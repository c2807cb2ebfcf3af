"""PgBouncer in transaction mode, as strict as Supabase's pooler and with as few connections."""

from __future__ import annotations

__all__ = ["PgBouncer"]

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from uvian_worker.local.embedded import EmbeddedPostgres, _account_for, _version_of
from uvian_worker.local.server_process import EmbeddedError, ServerProcess

SERVER_CONNECTIONS = 3  #: per database and user: fewer than any client opens
PORT = 6543  #: what Supabase's pooler in transaction mode has, and what the product knows it by
USERS = ("uvian_migrator", "postgres", "authenticator")


class PgBouncer(ServerProcess):
    """A pooler in front of all databases of a Postgres, on port 6543 of a loopback address.

    It knows no prepared statements and resets nothing between two clients, so that whatever relies
    on a session breaks.
    """

    name = "PgBouncer"

    def __init__(self, folder: Path, postgres: EmbeddedPostgres) -> None:
        super().__init__(folder)
        self._postgres = postgres
        self._binary = _binary()
        self._account = _account_for([self.folder, postgres.socket_folder])
        self._host: str | None = None

    def dsn_for(self, database: str, *, user: str = "uvian_migrator") -> str:
        """A connection string through the pooler."""
        assert self._host is not None
        return f"postgresql://{user}@{self._host}:{PORT}/{database}"

    @property
    def _pid_file(self) -> Path:
        return self._work_folder / "pgbouncer.pid"

    @property
    def _work_folder(self) -> Path:
        return self.folder / "data"

    def _prepare(self) -> None:
        self._work_folder.mkdir(exist_ok=True)
        for path in (self.folder, self._work_folder):
            path.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(self._work_folder, self._account.uid, self._account.gid)
        users = "".join(f'"{user}" ""\n' for user in USERS)
        (self.folder / "users.txt").write_text(users)

    def _launch(self) -> None:
        for host in self._hosts():
            self._configure(host)
            written = self.log.stat().st_size if self.log.exists() else 0
            command = [*self._account.prefix, self._binary, str(self.folder / "pgbouncer.ini")]
            self._process = self._spawn(command, **self._account.options)
            try:
                self._wait_until(lambda: self._answers(host))  # noqa: B023 - called at once
            except EmbeddedError:
                # Somebody else tests at this address: this machine has more of them.
                if b"nowhere to listen" not in self.log.read_bytes()[written:]:
                    raise
            else:
                self._host = host
                return
        raise EmbeddedError(f"Port {PORT} is taken on every loopback address.")

    def _hosts(self) -> Iterator[str]:
        """The one it had, or those of this machine."""
        if self._host is not None:
            yield self._host
        else:
            yield from (f"127.0.0.{number}" for number in range(1, 100))

    def _configure(self, host: str) -> None:
        settings = {
            "listen_addr": host,
            "listen_port": PORT,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": self.folder / "users.txt",
            "admin_users": "postgres",
            "pidfile": self._pid_file,
            "pool_mode": "transaction",
            "default_pool_size": SERVER_CONNECTIONS,
            "max_client_conn": 200,
            "server_login_retry": 1,
        }
        if _version_of(self._binary, r"PgBouncer (\d+)\.(\d+)") >= (1, 21):
            settings["max_prepared_statements"] = 0
        lines = [
            "[databases]",
            f"* = host={self._postgres.socket_folder} port=5432",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
            "",
        ]
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines))

    def _answers(self, host: str) -> bool:
        with contextlib.suppress(OSError, ValueError):
            if int(self._pid_file.read_text()) == self.pid:
                socket.create_connection((host, PORT), timeout=1).close()
                return True
        return False

    def _end(self, how: signal.Signals) -> None:
        # SIGINT would wait for what every client is doing.
        super()._end(signal.SIGTERM if how == signal.SIGINT else how)


def _binary() -> str:
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        pytest.fail("These tests need PgBouncer: apt-get install pgbouncer", pytrace=False)
    return found
