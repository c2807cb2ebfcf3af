"""A whole installation in processes of its own: Postgres, Redis, a worker, a gateway, and people."""

from __future__ import annotations

__all__ = ["Person", "Site", "opened"]

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gateway.tokens import ISSUER, SECRET, claims_of, signed
from tests.processes.site import ROOT
from tests.processes.site import Site as Workers

PATIENCE = 60.0  #: seconds until a test gives up; nothing waits this long when it works

_MANY = "1000000"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can sign in."""

    id: str
    token: str


@dataclass
class Site:
    """Where the page is, and hands behind it."""

    workers: Workers
    folder: Path
    port: int
    _gateways: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Of the page, with a slash at the end."""
        return f"http://127.0.0.1:{self.port}/"

    async def person(self, balance: str | None = None, **claims: Any) -> Person:
        """Somebody new, with an account if there is a balance for it."""
        user_id = str(uuid.uuid4())
        await self.workers.execute("insert into auth.users (id) values ($1)", uuid.UUID(user_id))
        if balance is not None:
            await self.workers.database.call(
                "grant_credits", user_id=user_id, amount=balance, reference="welcome"
            )
        return Person(user_id, signed(claims_of(user_id, **claims)))

    @contextlib.asynccontextmanager
    async def priced(self, type_: str, amount: str) -> AsyncIterator[None]:
        """Jobs of this type cost something until the end of the ``async with``."""
        await self.workers.database.insert("job_prices", [{"type": type_, "amount": amount}])
        try:
            yield
        finally:
            await self.workers.execute("delete from uvian.job_prices where type = $1", type_)

    async def row(self, table: str, column: str, value: str) -> dict[str, Any]:
        """The only row of a table with this value."""
        (row,) = await self.rows(table, column, value)
        return row

    async def rows(self, table: str, column: str, value: str) -> list[dict[str, Any]]:
        """Rows of a table with this value."""
        found = await self.workers.execute(
            f"select to_jsonb(t) as row from uvian.{table} t where {column} = $1", uuid.UUID(value)
        )
        return [json.loads(each["row"]) for each in found]

    async def start_gateway(self) -> None:
        """As an operator does it; at the same address as before."""
        log = self.folder / f"gateway-{len(self._gateways)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "uvian_worker.cli", "gateway"],
                cwd=ROOT,
                env=self.workers.environment(**self._settings()),
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._gateways.append(process)
        await until(lambda: asyncio.to_thread(self._is_ready), log)

    def kill_gateway(self) -> None:
        """SIGKILL: every socket is gone without a word."""
        self._end(signal.SIGKILL)

    def stop_gateway(self) -> None:
        """SIGTERM: sockets are told to come again."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process = self._gateways[-1]
        process.send_signal(how)
        process.wait(PATIENCE)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _settings(self) -> dict[str, str]:
        return {
            "UVIAN_GATEWAY_PORT": str(self.port),
            "UVIAN_JWT_SECRETS": SECRET,
            "UVIAN_JWT_ISSUER": ISSUER,
            "UVIAN_IMAGES_URL": f"{self.url}v1/files",
            "UVIAN_IMAGES_SECRET": "a secret of the folder",
            **{
                f"UVIAN_LIMIT_{kind}": _MANY
                for kind in ("READ", "WRITE", "CONNECT", "SUBSCRIBE", "SOCKETS")
            },
        }


@contextlib.asynccontextmanager
async def opened(workers: Workers, folder: Path) -> AsyncIterator[Site]:
    """A gateway and a worker, until the end of the ``async with``."""
    site = Site(workers, folder, _free_port())
    try:
        worker = workers.start(settings="tests.e2e.settings.WorkerSettings")
        await site.start_gateway()
        await workers.until(lambda: "at a time" in worker.said, worker)
        await workers.execute("update uvian.job_types set browser = true")
        yield site
    finally:
        for gateway in site._gateways:
            if gateway.poll() is None:
                gateway.kill()
                gateway.wait()


async def until(condition: Callable[[], Awaitable[Any]], log: Path | None = None) -> Any:
    """What the condition answers once it is true; fails with the end of a log."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := await condition()):
        said = log.read_text()[-3000:] if log is not None else ""
        assert time.monotonic() < deadline, f"it did not happen in {PATIENCE:.0f} s\n{said}"
        await asyncio.sleep(0.05)
    return answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
