"""The page about faults is the table, and the laboratory opens by hand as the page says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.executors.providers.lab import VENDORS
from tests.executors.providers.lab.server import BY_NAME, Lab
from tests.executors.providers.table import TABLE
from uvian_worker.config import Config

ROOT = Path(__file__).parents[3]


def test_the_committed_page_is_the_generated_one() -> None:
    """Who changes the table also runs ``make docs``."""
    script = ROOT / "scripts" / "generate_faults.py"
    done = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_row_is_there_twice() -> None:
    """Each fault of each provider has one row, under its heading."""
    ids = [case.id for case in TABLE]
    assert len(set(ids)) == len(ids)
    keys = [(case.provider, case.does) for case in TABLE]
    assert keys == sorted(keys, key=keys.index)


def test_what_a_vendor_wants_exported_are_settings() -> None:
    """The names that the laboratory prints are ours."""
    known = {f"UVIAN_{name.upper()}" for name in Config.model_fields}
    lab = Lab(VENDORS)
    for vendor in lab.vendors:
        exports = vendor.exports("http://127.0.0.1:1")
        assert set(exports) <= known
        Config.load(
            {}, _env_file=None, **{n.removeprefix("UVIAN_").lower(): v for n, v in exports.items()}
        )


def test_by_hand() -> None:
    """It says where it is, answers, breaks by the model's name, tells of it, and ends on Ctrl-C."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.executors.providers.lab", "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            assert process.stdout is not None
            told = ""
            while "Ctrl-C" not in told:
                line = process.stdout.readline()
                assert line, told
                told += line
            exports = dict(re.findall(r"^export (\w+)=(.*)$", told, re.MULTILINE))
            assert all(name in told for name in BY_NAME)
            request = urllib.request.Request(
                exports["UVIAN_OPENAI_BASE_URL"] + "/chat/completions",
                data=b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}',
                headers={"Authorization": f"Bearer {exports['UVIAN_OPENAI_API_KEY']}"},
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert b"You said: Hi" in answer.read()
            assert "a good answer" in process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
