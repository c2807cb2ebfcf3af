"""No-op jobs through supabase-py, with batchers and without, against the direct connection.

What answers is the Supabase-shaped server of the tests, in a process of its own: it speaks through
the same client, and takes more calls per second than that client can send.
"""

from __future__ import annotations

__all__ = ["run"]

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.lifecycle import jobs_per_second
from benchmarks.result import Result
from benchmarks.site import ROOT, Site, median, site

JOBS = 2000
ONE_BY_ONE = 400  #: the slow one need not be waited for as long
ROUNDS = 3
TARGET = 400


def run() -> list[Result]:
    """Jobs per second from the first insert to the last settlement, one worker process."""
    batched: list[float] = []
    single: list[float] = []
    direct: list[float] = []
    for _ in range(ROUNDS):
        with site() as servers, _platform(servers) as project:
            postgres = {"UVIAN_DATABASE_URL": servers.postgres.migrator_dsn}
            batched.append(_measured(servers, "settings_uvian", project, JOBS))
            single.append(_measured(servers, "settings_one_by_one", project, ONE_BY_ONE))
            direct.append(_measured(servers, "settings_uvian", postgres, JOBS))
    name = "full lifecycle over supabase-py, one process"
    return [
        Result(
            name,
            median(batched),
            "jobs/s",
            TARGET,
            at_least=True,
            peer=median(single),
            peer_name="one call per transition",
        ),
        Result(
            "  the same",
            median(batched),
            "jobs/s",
            peer=median(direct),
            peer_name="straight to Postgres",
        ),
    ]


@contextlib.contextmanager
def _platform(servers: Site) -> Iterator[dict[str, str]]:
    """The project's settings, while its server runs."""
    dsn = servers.postgres.dsn_for(user="authenticator")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.supabase", "--database-url", dsn],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = dict(process.stdout.readline().strip().split("=", 1) for _ in range(2))
        yield {"UVIAN_DATABASE": "supabase", "UVIAN_IMAGES": "local", **said}
    finally:
        process.terminate()
        process.wait(30)


def _measured(servers: Site, worker: str, settings: dict[str, str], count: int) -> float:
    with servers.worker(f"benchmarks.{worker}.WorkerSettings", UVIAN_MAX_JOBS="100", **settings):
        return asyncio.run(jobs_per_second(servers, count, settings))
