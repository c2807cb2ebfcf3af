"""The code stays in order: folders that a reader takes in, files with one subject, no ring of imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

_SCRIPT = Path(__file__).parents[2] / "scripts" / "layout.py"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project with one package in order."""
    (tmp_path / "pyproject.toml").write_text('[tool.poetry]\npackages = [{ include = "shop" }]\n')
    files = {
        "__init__.py": "",
        "till.py": "from shop import goods\n",
        "goods.py": "class Goods: ...\n",
    }
    (tmp_path / "shop").mkdir()
    for name, text in files.items():
        (tmp_path / "shop" / name).write_text(text)
    return tmp_path


def disorder(checkout: Path) -> list[str]:
    """What the script complains of; its exit code says the same."""
    done = subprocess.run(
        [sys.executable, _SCRIPT, checkout, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == bool(done.stderr)
    return done.stderr.splitlines()


def test_code_in_order_passes(checkout: Path) -> None:
    """Small files, few of them, and imports that go one way."""
    assert disorder(checkout) == []


def test_a_folder_with_sixteen_files_is_too_full(checkout: Path) -> None:
    """Its ``__init__.py`` is not counted."""
    for n in range(13):
        (checkout / "shop" / f"shelf_{n}.py").touch()
    assert disorder(checkout) == []
    (checkout / "shop" / "one_more.lua").touch()
    assert disorder(checkout) == ["shop has 16 files, more than 15: divide it."]


def test_a_file_of_401_lines_is_too_long(checkout: Path) -> None:
    """Whatever language it is in."""
    (checkout / "shop" / "till.sql").write_text("select 1;\n" * 400)
    assert disorder(checkout) == []
    (checkout / "shop" / "till.sql").write_text("select 1;\n" * 401)
    assert disorder(checkout) == ["shop/till.sql has 401 lines, more than 400: divide it."]


@pytest.mark.parametrize(
    ("text", "is_ring"),
    [
        ("from shop.till import sell\n", True),
        ("from shop import till\n", True),
        ("import shop.till\n", True),
        ("try:\n    from shop import till\nexcept ImportError:\n    till = None\n", True),
        ("if TYPE_CHECKING:\n    from shop.till import sell\n", False),
        ("def sell():\n    from shop import till\n", False),
    ],
)
def test_a_ring_of_imports_is_found(checkout: Path, text: str, *, is_ring: bool) -> None:
    """What is imported later, or for its types, makes none."""
    (checkout / "shop" / "goods.py").write_text(text)
    assert any("shop.goods" in line and "ring" in line for line in disorder(checkout)) == is_ring


def test_figures_of_a_checkout(checkout: Path) -> None:
    """Lines, functions and classes of Python; functions of SQL that are defined more than once."""
    (checkout / "shop" / "goods.py").write_text(
        "class Goods:\n    def a(self): ...\n    def b(self): ...\n"
    )
    made = (
        "create function shop.sell()",
        "CREATE OR REPLACE FUNCTION shop.sell()",
        "create function shop.buy()",
    )
    (checkout / "shop" / "till.sql").write_text("\n".join(made))
    printed = subprocess.check_output([sys.executable, _SCRIPT, checkout, "--json"])
    figures: dict[str, Any] = orjson.loads(printed)
    assert figures["product lines"] == 7
    assert figures["classes with the most methods"] == [[2, "shop/goods.py::Goods"]]
    assert figures["SQL functions"] == 2
    assert figures["SQL functions defined more than once"] == 1
    assert figures["loose modules per package"] == {"shop": 2}
