"""The example of the README, run as it stands there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes.site import PATIENCE, Site

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "enqueue" / "enqueue.py"


@pytest.mark.processes
async def test_a_job_is_made_once_and_followed_to_its_end(site: Site) -> None:
    """Every event is printed; the same call again prints those of the same job."""
    await site.worker()
    first = _run(site)
    assert first[0].startswith("job.queued ")
    assert first[-1].startswith("job.completed ")
    assert sum(line.startswith("image.ready ") for line in first) == 8
    assert _run(site) == first


def _run(site: Site) -> list[str]:
    done = subprocess.run(
        [sys.executable, EXAMPLE, site.user_id],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": site.adapter.clean.dsn,
            "REDIS_URL": site.redis.url,
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout.splitlines()
