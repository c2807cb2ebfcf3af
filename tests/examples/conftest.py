"""The examples: a site for them, and the package installed as a wheel would be, without pip or network."""

from __future__ import annotations

import importlib
import shutil
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.adapters import OverPostgres
from tests.cli.conftest import folder, programs, uvian
from tests.processes.site import Site, opened
from tests.servers import REDIS_BINARY, CleanDatabase
from uvian_worker.local.embedded import EmbeddedRedis

__all__ = ["EXAMPLE", "folder", "install", "installed", "programs", "uvian"]

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "uvian-greeting"


def install(target: Path) -> None:
    """What `pip install --target` leaves: the module, and metadata with its entry points."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copy(EXAMPLE / "uvian_greeting.py", target)
    info = target / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata)
    lines: list[str] = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def installed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The folder the example is installed in; it is importable in this process."""
    target = tmp_path_factory.mktemp("site-packages")
    install(target)
    monkeypatch.syspath_prepend(str(target))
    importlib.invalidate_caches()
    yield target
    sys.modules.pop("uvian_greeting", None)


@pytest.fixture
async def site(database: CleanDatabase, tmp_path: Path) -> AsyncIterator[Site]:
    """Postgres and Redis; no worker yet."""
    with EmbeddedRedis(tmp_path / "redis", binary=REDIS_BINARY) as redis:
        async with opened(OverPostgres(database), redis, tmp_path) as site:
            yield site
