"""``WorkerSettings`` is harmless to import and to look at; settings are read when arq starts a worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_WRONG = {"UVIAN_NONSENSE": "1"}
_ARQ = ("-m", "arq", "uvian_worker.WorkerSettings")
_UVIAN = ("-m", "uvian_worker.cli", "worker")

#: What tools do with a class: type checkers, documentation, IDEs, tests.
_LOOKS = {
    "attributes": "WorkerSettings.functions, WorkerSettings.executors, WorkerSettings.keep_result",
    "vars": "dict(vars(WorkerSettings).items())",
    "inspect": "__import__('inspect').getmembers(WorkerSettings)",
    "pydoc": "__import__('pydoc').render_doc(WorkerSettings)",
    "hints": "__import__('typing').get_type_hints(WorkerSettings)",
    "mock": "__import__('unittest.mock').mock.create_autospec(WorkerSettings)",
    "copy": "__import__('copy').deepcopy(WorkerSettings)",
    "missing": "hasattr(WorkerSettings, 'redis_pool'), hasattr(WorkerSettings, 'max_jobs')",
}


def _run(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("UVIAN_")}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**known, **env, "PYTHONPATH": str(_ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_who_looks_at_the_settings_class_reads_no_environment(tmp_path: Path) -> None:
    """A wrong setting is nobody's business but a worker's; hook and loop of the process stay theirs."""
    code = (
        "import asyncio, sys, arq.cli, uvian_worker\n"
        "before = sys.excepthook, asyncio.get_event_loop_policy()\n"
        "from uvian_worker import WorkerSettings\n"
        "from uvian_worker.worker.settings import WorkerSettings\n"
        + "\n".join(_LOOKS.values())
        + "\nassert (sys.excepthook, asyncio.get_event_loop_policy()) == before\n"
    )
    done = _run(tmp_path, "-W", "ignore", "-c", code, **_WRONG)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        (_ARQ, _WRONG),
        (_ARQ, {"UVIAN_REDIS_URL": "redis://:hid#den@h"}),
        (_ARQ, {}),
        (_UVIAN, {"UVIAN_MAX_JOBS": "many"}),
        (_UVIAN, {"UVIAN_DATABASE": "supabase"}),
        (_UVIAN, {"UVIAN_DATABASE_URL": "postgresql://u:[hidden]@h/x"}),
    ],
    ids=str,
)
def test_a_worker_with_a_wrong_setting_says_so_in_one_line(
    tmp_path: Path, command: tuple[str, ...], wrong: dict[str, str]
) -> None:
    """Exit code 2, by either command, and no stack trace."""
    done = _run(tmp_path, *command, **wrong)
    assert done.returncode == 2, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.strip())
    assert "UVIAN_" in line
    assert "hid" not in line
    if command is _ARQ:
        assert "CRITICAL uvian.worker  the worker cannot start: " in line


def test_each_worker_that_arq_makes_has_the_settings_of_that_moment(tmp_path: Path) -> None:
    """A team's own tests make workers too: nothing of the process changes, and none is remembered."""
    code = (
        "import os, sys\n"
        "from arq.worker import create_worker\n"
        "from uvian_worker import WorkerSettings\n"
        "hook = sys.excepthook\n"
        "one = create_worker(WorkerSettings)\n"
        "os.environ['UVIAN_MAX_JOBS'] = '7'; os.environ['UVIAN_NAMESPACE'] = 'team'\n"
        "other = create_worker(WorkerSettings)\n"
        "WorkerSettings.max_jobs = 3\n"
        "third = create_worker(WorkerSettings)\n"
        "print(one.max_jobs, one.queue_name, other.max_jobs, other.queue_name, third.max_jobs)\n"
        "assert sys.excepthook is hook\n"
    )
    url = "postgresql://nobody@127.0.0.1/none"
    done = _run(tmp_path, "-W", "ignore", "-c", code, UVIAN_DATABASE_URL=url)
    assert done.stdout == "20 uvian:queue 7 team:queue 3\n", done.stderr
