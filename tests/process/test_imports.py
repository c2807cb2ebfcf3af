"""Importing the product does nothing: it reads no environment, opens nothing and ends no process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_CODE = """
import os, pkgutil, socket, sys

class Network(Exception):
    pass

def refuse(*arguments, **options):
    raise Network("a module that is imported uses the network")

for name in ("connect", "connect_ex", "bind", "listen", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = refuse

read = []
class Watched(type(os.environ)):
    def __getitem__(self, key):
        if key.upper().startswith("UVIAN_"):
            read.append(key)
        return super().__getitem__(key)

os.environ.__class__ = Watched
import uvian_worker, executors, repositories, uvian_common

found = 0
for package in (uvian_worker, executors, repositories, uvian_common):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        __import__(module.name)
        found += 1
uvian_worker.WorkerSettings, uvian_worker.Client
assert read == [], read
print(found)
"""


def test_importing_any_module_reads_no_environment_and_exits_nothing(tmp_path: Path) -> None:
    """Every module, under settings that are all wrong, in a folder with a broken ``.env``, offline."""
    (tmp_path / ".env").write_text("UVIAN_NONSENSE='\n")
    wrong = {
        "UVIAN_NONSENSE": "1",
        "UVIAN_MAX_JOBS": "many",
        "UVIAN_REDIS_URL": "gopher://",
        "UVIAN_DATABASE_URL": "nowhere",
        "UVIAN_LOG_LEVEL": "SHOUT",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", _CODE],
        env={**os.environ, **wrong, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 200
