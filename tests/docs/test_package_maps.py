"""A package that lists its files in its docstring lists all of them, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAPS = {
    path.parent: docstring
    for room in ("uvian_worker", "executors", "repositories", "uvian_common")
    for path in sorted((ROOT / room).rglob("__init__.py"))
    if (docstring := ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
    and re.search(r"^\w+\.py\b", docstring, re.MULTILINE)
}


@pytest.mark.parametrize("package", MAPS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_map_names_what_is_there(package: Path) -> None:
    """A stranger who reads the docstring misses no file, and looks for none that is gone."""
    files, folders = (set(re.findall(rf"(\w+){end}", MAPS[package])) for end in (r"\.py", "/"))
    there = {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert files <= there
    assert all((package / folder).is_dir() for folder in folders)
    if "…" not in MAPS[package]:  # it says that there are more
        assert there == files


def test_the_rooms_that_are_hard_to_guess_have_a_map() -> None:
    """Where a run is claimed, executed and settled; what all packages share; what vendors share."""
    mapped = {path.relative_to(ROOT).as_posix() for path in MAPS}
    assert {"executors/running", "executors/providers/transport", "uvian_common"} <= mapped
