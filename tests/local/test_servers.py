"""What ``uvian dev`` writes down for others in its folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from uvian_worker.config import Config
from uvian_worker.local.servers import LocalServers


@pytest.mark.parametrize(
    "name", ["plain", "two words", "it's", 'a "b" c', 'it\'s "so" \\ here', "ü & ;"]
)
def test_shells_and_commands_read_the_same(tmp_path: Path, name: str) -> None:
    """Whatever the folder is called: `. dev.env` in a shell, and the commands beside it."""
    folder = tmp_path / name / ".uvian"
    folder.mkdir(parents=True)
    servers = LocalServers(folder, "postgresql://u@/db?host=%2Fx", "redis://:p@127.0.0.1:1/0", "u")
    with servers.written_down({}) as file:
        said = subprocess.run(
            ["sh", "-c", 'set -a; . "$0"; printf %s "$UVIAN_IMAGES_DIR"', str(file)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout == str(servers.images_dir)
        config = Config.load(_env_file=(file,))
    assert config.images_dir == servers.images_dir
    assert not file.exists()
