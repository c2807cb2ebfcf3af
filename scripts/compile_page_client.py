"""Writes the live client of the gateway's page: the TypeScript client, compiled to JavaScript.

python scripts/compile_page_client.py [--check]

The compiler comes by npm, which `make check` does not need: each compiled file names a digest of its
source, of the compiler's version and options and of its own text. `--check` compares the digests; where
the compiler is installed (`npm ci` in clients/typescript) it also compiles, and compares every byte.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIENT = "clients/typescript"
PAGE = "uvian_worker/gateway/web/client"
MODULES = ("live", "messages")  #: what the page imports; what these import comes along
_IMPORT = re.compile(r'^import .* from "\./(\w+)\.js";$', re.MULTILINE)
_HEADER = """// Compiled from {client}/src/{module}.ts: change that file, then run `make docs`.
// Digest of both and of the compiler: {digest}
"""


def check(root: Path, compiler: Path | None) -> list[str]:
    """What is wrong with the compiled files, in sentences; nothing when they are right."""
    texts = {path.stem: path.read_text("utf-8") for path in sorted((root / PAGE).glob("*.js"))}
    found = [
        f"{PAGE}/{module}.js is not what {CLIENT}/src/{module}.ts compiles to"
        for module, text in texts.items()
        if text != _with_header(root, module, _body(text))
    ]
    missing = _closure(texts) ^ texts.keys()
    found += [f"{PAGE}/{module}.js is missing, or not imported" for module in sorted(missing)]
    if compiler is not None and not found and texts != compiled(root, compiler):
        found.append(f"{PAGE} differs from what the compiler makes of {CLIENT}/src")
    return found


def compiled(root: Path, compiler: Path) -> dict[str, str]:
    """The text of every module of the page, by its name."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--outDir", folder, "--declaration", "false"]
        subprocess.run([compiler, "--project", root / CLIENT, *options], check=True)
        bodies = {path.stem: path.read_text("utf-8") for path in Path(folder).glob("*.js")}
    return {module: _with_header(root, module, bodies[module]) for module in _closure(bodies)}


def write(root: Path, texts: Mapping[str, str]) -> None:
    """Replace what the page has."""
    shutil.rmtree(root / PAGE, ignore_errors=True)
    (root / PAGE).mkdir()
    for module, text in texts.items():
        (root / PAGE / f"{module}.js").write_text(text, "utf-8")


def installed_compiler(root: Path) -> Path | None:
    """The one that the lock names; another version might write other bytes."""
    package = root / CLIENT / "node_modules" / "typescript" / "package.json"
    if shutil.which("node") is None or not package.exists():
        return None
    same = json.loads(package.read_text("utf-8"))["version"] == _compiler_version(root)
    return root / CLIENT / "node_modules" / ".bin" / "tsc" if same else None


def install_compiler(root: Path) -> Path:
    """By npm, from the lock."""
    if shutil.which("npm") is None:
        sys.exit(
            "The page's client has changed, and its compiler comes by npm: install nodejs and npm."
        )
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    subprocess.run(["npm", "ci", *quiet], cwd=root / CLIENT, check=True)
    compiler = installed_compiler(root)
    assert compiler is not None, "npm ci has not installed the compiler of package-lock.json"
    return compiler


def _closure(bodies: Mapping[str, str]) -> set[str]:
    """The modules that the page imports, and those that they import."""
    found: set[str] = set()
    waiting = list(MODULES)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _IMPORT.findall(bodies.get(module, ""))
    return found


def _with_header(root: Path, module: str, body: str) -> str:
    source = root / CLIENT / "src" / f"{module}.ts"
    options = root / CLIENT / "tsconfig.json"
    digest = hashlib.sha256()
    for part in (
        source.read_bytes() if source.exists() else b"",
        options.read_bytes(),
        _compiler_version(root).encode(),
        body.encode(),
    ):
        digest.update(hashlib.sha256(part).digest())
    return _HEADER.format(client=CLIENT, module=module, digest=digest.hexdigest()) + body


def _body(text: str) -> str:
    return text.split("\n", 2)[2] if text.count("\n") >= 2 else text


def _compiler_version(root: Path) -> str:
    lock = json.loads((root / CLIENT / "package-lock.json").read_text("utf-8"))
    return str(lock["packages"]["node_modules/typescript"]["version"])


def main() -> int:
    """Write the files where they are out of date; with `--check` say what is."""
    found = check(ROOT, installed_compiler(ROOT))
    if not found:
        return 0
    if "--check" in sys.argv:
        print("\n".join([*found, "run `make docs`"]))
        return 1
    write(ROOT, compiled(ROOT, installed_compiler(ROOT) or install_compiler(ROOT)))
    print(f"{PAGE} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
