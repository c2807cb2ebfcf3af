"""Tells how the product's code is laid out, in numbers; `--check` fails where it is out of order.

python scripts/layout.py [CHECKOUT] [--json] [--check]

Product code is what users install: the packages that pyproject.toml names and the TypeScript client.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TYPESCRIPT = Path("clients/typescript/src")
CODE = {".css", ".html", ".js", ".lua", ".py", ".sql", ".ts"}

MOST_FILES = 15  #: in a folder, beside its __init__.py: more is no longer found by reading the tree
MOST_LINES = 400  #: of a file: a longer one has a second subject
LONG_FUNCTION = 40  #: lines; counted, not forbidden
#: Folders that grow by a file with every change, and are read from the last one.
GROWING = {"migrations"}

#: What may be larger, and why. One that need not be here any more is out of order, too.
LARGER = {
    "repositories/sql/functions": "a file for each subject, and `order.txt` lists them",
}

SQL_FUNCTION = re.compile(
    r"^\s*create (?:or replace )?function ([\w.]+)", re.IGNORECASE | re.MULTILINE
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Place(NamedTuple):
    """Something with a size, and where it stands."""

    size: int
    where: str


class Layout:
    """The product's code of one checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        self.packages = [each["include"] for each in project["tool"]["poetry"]["packages"]]
        self.texts = {file: file.read_text(encoding="utf-8") for file in self._files()}
        self.trees = {
            file: ast.parse(text) for file, text in self.texts.items() if file.suffix == ".py"
        }

    def _files(self) -> Iterator[Path]:
        for folder in (*self.packages, TYPESCRIPT):
            for file in sorted((self.root / folder).rglob("*")):
                if file.suffix in CODE and "__pycache__" not in file.parts:
                    yield file

    def name(self, path: Path) -> str:
        """The path as it is written in the project."""
        return path.relative_to(self.root).as_posix()

    def lines(self, *suffixes: str) -> int:
        """Lines of all files of these kinds."""
        return sum(_lines(text) for file, text in self.texts.items() if file.suffix in suffixes)

    def long_files(self) -> list[Place]:
        """Files over the limit, the longest first."""
        sizes = (Place(_lines(text), self.name(file)) for file, text in self.texts.items())
        return sorted((each for each in sizes if each.size > MOST_LINES), reverse=True)

    def full_folders(self) -> list[Place]:
        """Folders with more files than the limit, the fullest first."""
        files = Counter(file.parent for file in self.texts if file.name != "__init__.py")
        full = (
            Place(count, self.name(folder))
            for folder, count in files.items()
            if count > MOST_FILES and folder.name not in GROWING
        )
        return sorted(full, reverse=True)

    def loose_files(self) -> dict[str, int]:
        """Modules that stand in no room, by package."""
        return {
            package: sum(file.parent == self.root / package for file in self.trees) - 1
            for package in self.packages
        }

    def functions(self) -> list[Place]:
        """Every Python function and method with its lines, the longest first."""
        found = (
            Place(
                (node.end_lineno or node.lineno) - node.lineno + 1,
                f"{self.name(file)}::{node.name}",
            )
            for file, tree in self.trees.items()
            for node in ast.walk(tree)
            if isinstance(node, Function)
        )
        return sorted(found, reverse=True)

    def classes(self) -> list[Place]:
        """Every class with the number of its methods, the largest first."""
        found = (
            Place(
                sum(isinstance(each, Function) for each in node.body),
                f"{self.name(file)}::{node.name}",
            )
            for file, tree in self.trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
        )
        return sorted(found, reverse=True)

    def sql_functions(self) -> Counter[str]:
        """How often each SQL function is defined."""
        return Counter(
            name
            for file, text in self.texts.items()
            if file.suffix == ".sql"
            for name in SQL_FUNCTION.findall(text)
        )

    def import_cycle(self) -> list[str]:
        """Modules that import each other in a ring while they are loaded; none where there is no ring."""
        modules = {_module(file.relative_to(self.root)): tree for file, tree in self.trees.items()}
        graph = {
            name: {each for each in _imported(tree) if each in modules and each != name}
            for name, tree in modules.items()
        }
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            return list(error.args[1])
        return []

    def disorder(self) -> list[str]:
        """A sentence for each thing that is out of order."""
        ring = self.import_cycle()
        folders = [each for each in self.full_folders() if each.where not in LARGER]
        files = [each for each in self.long_files() if each.where not in LARGER]
        names = [self.name(file) for file in self.texts]
        here = {large for large in LARGER if any(name.startswith(large) for name in names)}
        excused = here - {each.where for each in (*self.full_folders(), *self.long_files())}
        return [
            *(
                f"{name} is not too large any more: take it from LARGER."
                for name in sorted(excused)
            ),
            *([f"Modules import each other in a ring: {', '.join(ring)}."] if ring else []),
            *(
                f"{name} has {size} files, more than {MOST_FILES}: divide it."
                for size, name in folders
            ),
            *(
                f"{name} has {size} lines, more than {MOST_LINES}: divide it."
                for size, name in files
            ),
        ]

    def figures(self) -> dict[str, Any]:
        """All numbers, by what they count."""
        functions, classes, sql = self.functions(), self.classes(), self.sql_functions()
        return {
            "product files": len(self.texts),
            "product lines": sum(map(_lines, self.texts.values())),
            "Python files": len(self.trees),
            "Python lines": self.lines(".py"),
            "page lines (JavaScript, CSS, HTML)": self.lines(".js", ".css", ".html"),
            "TypeScript lines": self.lines(".ts"),
            "Lua lines": self.lines(".lua"),
            "SQL files": sum(file.suffix == ".sql" for file in self.texts),
            "SQL lines": self.lines(".sql"),
            "SQL functions defined": sql.total(),
            "SQL functions": len(sql),
            "SQL functions defined more than once": sum(times > 1 for times in sql.values()),
            "Python functions": len(functions),
            f"functions over {LONG_FUNCTION} lines": sum(f.size > LONG_FUNCTION for f in functions),
            f"files over {MOST_LINES} lines": self.long_files(),
            f"folders with more than {MOST_FILES} files": self.full_folders(),
            "loose modules per package": self.loose_files(),
            "import cycle": " → ".join(self.import_cycle()) or "none",
            "longest functions": functions[:5],
            "classes with the most methods": classes[:5],
        }  # fmt: skip


def _lines(text: str) -> int:
    return len(text.splitlines())


def _module(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.Module) -> Iterator[str]:
    """What loading a module imports: not what its functions import later, nor what is for types only."""
    for node in _loaded(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _loaded(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.Try):
            yield from _loaded(node.body)
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            yield from _loaded((*node.body, *node.orelse))


def told(figure: Any) -> str:
    """A figure in one line."""
    if isinstance(figure, dict):
        return ", ".join(f"{name} {count}" for name, count in figure.items())
    if isinstance(figure, list):
        return f"{len(figure)}: " + ", ".join(f"{place} {size}" for size, place in figure)
    return figure if isinstance(figure, str) else f"{figure:,}"


def main() -> int:
    """Print what was asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a limit is passed")
    options = parser.parse_args()
    layout = Layout(options.checkout.resolve())
    if options.check:
        disorder = layout.disorder()
        print("\n".join(disorder), end="\n" if disorder else "", file=sys.stderr)
        return 1 if disorder else 0
    figures = layout.figures()
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        print("\n".join(f"{name:<40} {told(figure)}" for name, figure in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
