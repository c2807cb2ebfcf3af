"""Which event loop a process gets, and what its garbage collector is spared."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("uvloop", reason="not on this system")

_SETTINGS = {
    "UVIAN_DATABASE_URL": "postgres://nobody@127.0.0.1:1/none",
    "UVIAN_REDIS_URL": "redis://127.0.0.1:1",
}
_TELL = "import asyncio; print(type(asyncio.new_event_loop()).__module__)"


def told(code: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **_SETTINGS},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_a_worker_under_arqs_command_has_the_fast_loop() -> None:
    """arq makes its loop once it has read the settings."""
    read = "import arq.cli, arq.worker, uvian_worker; arq.worker.get_kwargs(uvian_worker.WorkerSettings)"
    assert told(f"{read}; {_TELL}") == "uvloop"


def test_who_imports_us_keeps_their_own_loop() -> None:
    """An API, a team's tests: what loop they run is not ours to say."""
    imported = "import arq.cli, uvian_worker.worker.settings, uvian_worker.client"
    assert told(f"{imported}; {_TELL}") != "uvloop"


def test_what_was_loaded_is_never_looked_through_again() -> None:
    """Garbage of before is collected first: it would stay for ever."""
    code = (
        "import gc, weakref; from uvian_worker.process.runtime import freeze_garbage_collector\n"
        "class Knot: pass\n"
        "knot = Knot(); knot.itself = knot; gone = weakref.ref(knot); del knot\n"
        "freeze_garbage_collector(); print(gone() is None and gc.get_freeze_count() > 1000)"
    )
    assert told(code) == "True"
