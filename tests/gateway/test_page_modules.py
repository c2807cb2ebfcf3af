"""The page's modules: what they import is there, and its live client is the TypeScript client."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

import uvian_worker.gateway

ROOT = Path(__file__).parents[2]
WEB = Path(uvian_worker.gateway.__file__).with_name("web")

_IMPORT = re.compile(r'^import (?:\{([^}]*)\} from )?"(\.[^"]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?:async )?(?:class|function|const) (\w+)", re.MULTILINE)


def test_what_a_module_imports_is_served_and_exported() -> None:
    """A name that is not there leaves a page of which nothing runs."""
    missing = []
    for module in WEB.rglob("*.js"):
        for names, address in _IMPORT.findall(module.read_text()):
            target = module.parent / address
            exported = _EXPORT.findall(target.read_text()) if target.is_file() else []
            wanted = [name.strip() for name in names.split(",") if name.strip()]
            missing += [f"{module.name}: {name} of {address}" for name in {*wanted} - {*exported}]
    assert missing == []


def test_the_live_client_is_what_its_source_compiles_to() -> None:
    """By digest, and byte for byte where the compiler is installed."""
    script = _script()
    assert script.check(ROOT, script.installed_compiler(ROOT)) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("clients/typescript/src/topic.ts", "// a change that was not compiled\n"),
        ("clients/typescript/tsconfig.json", "\n"),
        ("uvian_worker/gateway/web/client/topic.js", "// a manual edit\n"),
    ],
)
def test_a_copy_that_is_out_of_date_is_found_without_a_compiler(
    file: str, line: str, tmp_path: Path
) -> None:
    """Whichever side was changed."""
    script = _copied(tmp_path)
    assert script.check(tmp_path, None) == []
    with (tmp_path / file).open("a") as out:
        out.write(line)
    assert script.check(tmp_path, None) != []


def test_a_module_that_is_missing_or_left_over_is_found(tmp_path: Path) -> None:
    """What the page loads is complete, and nothing else lies beside it."""
    script = _copied(tmp_path)
    client = tmp_path / script.PAGE
    (client / "topic.js").rename(client / "left_over.js")
    found = " ".join(script.check(tmp_path, None))
    assert "topic.js is missing" in found
    assert "left_over.js" in found


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_a_digest_that_was_forged_is_found_by_the_compiler(tmp_path: Path) -> None:
    """A manual edit with the digest that fits it: only the compiler knows better."""
    script = _script()
    if (compiler := script.installed_compiler(ROOT)) is None:
        pytest.skip("needs npm ci in clients/typescript")
    _copied(tmp_path)
    (tmp_path / script.CLIENT / "node_modules").symlink_to(ROOT / script.CLIENT / "node_modules")
    texts = script.compiled(tmp_path, compiler)
    body = script._body(texts["topic"]) + "// a manual edit\n"
    script.write(tmp_path, {**texts, "topic": script._with_header(tmp_path, "topic", body)})
    assert script.check(tmp_path, None) == []
    assert script.check(tmp_path, compiler) != []


def _script() -> ModuleType:
    path = ROOT / "scripts" / "compile_page_client.py"
    spec = importlib.util.spec_from_file_location("compile_page_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _copied(folder: Path) -> ModuleType:
    """The script, and what it compares, in a folder where it may be changed."""
    script = _script()
    for part in (f"{script.CLIENT}/src", script.PAGE):
        shutil.copytree(ROOT / part, folder / part)
    for name in ("tsconfig.json", "package.json", "package-lock.json"):
        shutil.copy(ROOT / script.CLIENT / name, folder / script.CLIENT / name)
    return script
