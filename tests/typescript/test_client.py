"""The TypeScript client: its own tests, with Node, on our servers; and what of it is generated."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.site import Site
from tests.supabase.platform import Platform
from uvian_worker.queue.dispatch import DISPATCH_SCRIPT

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients" / "typescript"
_OLDEST_NODE = 20


def test_its_event_types_and_its_script_are_ours() -> None:
    """Who changes an event or the script also runs ``make docs``."""
    _check("generate_typescript.py")


def test_its_script_has_the_bytes_of_ours() -> None:
    """What stands in the template literal, read as JavaScript reads it."""
    source = (PACKAGE / "src" / "dispatch_script.ts").read_text()
    literal = source.partition("= `")[2].rpartition("`")[0]
    text = re.sub(r"\\([\\`$])", r"\1", literal)
    assert hashlib.sha1(text.encode()).hexdigest() == DISPATCH_SCRIPT.sha


def test_it_depends_on_nothing_and_names_no_registry() -> None:
    """A Redis client is chosen by the caller; where packages come from, by their settings."""
    assert '"dependencies"' not in (PACKAGE / "package.json").read_text()
    assert '"resolved"' not in (PACKAGE / "package-lock.json").read_text()


@pytest.mark.parametrize("name", ["enqueue.ts", "live.ts"])
def test_its_readme_shows_code_that_is_compiled(name: str) -> None:
    """Word for word."""
    code = (PACKAGE / "examples" / name).read_text()
    assert f"```ts\n{code}```" in (PACKAGE / "README.md").read_text()


@pytest.mark.e2e
@pytest.mark.timeout(600)
async def test_it_does_what_it_says_on_real_servers(
    site: Site, controls: str, platform: Platform
) -> None:
    """`npm ci && npm test` with the addresses of a gateway, a worker, Postgres and Redis.

    And with the compiler that this brings: what the page runs is the same client, byte for byte.
    """
    _require_node()
    addresses = {
        "UVIAN_GATEWAY": site.url.rstrip("/"),
        "UVIAN_REDIS": site.workers.redis.url,
        "UVIAN_REST": platform.url,
        "UVIAN_KEY": platform.secret_key,
        "UVIAN_CONTROLS": controls,
    }
    process = await asyncio.create_subprocess_shell(
        "npm ci --no-audit --no-fund && npm test",
        cwd=PACKAGE,
        env={**os.environ, **addresses},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = b""
    async for line in process.stdout:
        print(line.decode(), end="")  # noqa: T201 - shown when it fails, or hangs
        said += line
    assert await process.wait() == 0, said.decode()
    _check("compile_page_client.py")


def _check(script: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _require_node() -> None:
    """Fails where the tests could not run, and says what to do."""
    node = shutil.which("node")
    told = subprocess.check_output([node, "--version"], text=True) if node else "v0"
    version = int(told.removeprefix("v").partition(".")[0])
    if version < _OLDEST_NODE or shutil.which("npm") is None:
        pytest.fail(f"The TypeScript client needs Node {_OLDEST_NODE} or newer, and npm.")
