"""What the pages name is there: paths, headings, the rooms on the map."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = ("uvian_common", "uvian_worker", "executors", "repositories")
#: Pages that tell of the past.
HISTORY = {"CHANGELOG.md"}
#: A path of the repository in the running text: `uvian_worker/queue`, `tests/docs/test_pages.py`.
_PATH = re.compile(
    r"`((?:uvian_common|uvian_worker|executors|repositories|tests|docs|scripts|clients|benchmarks)"
    r"/[\w./-]+)`"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_in_the_text_exists(page: Path) -> None:
    """A file that is moved or renamed takes its pages along."""
    if page.name in HISTORY:
        return
    text = page.read_text("utf-8").partition("\n## Refused")[0]  # what was refused was never there
    named = {path for path in _PATH.findall(text) if "NNNN" not in path}
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_heading_that_is_linked_exists(page: Path) -> None:
    """In the page itself, and in others."""
    for path, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)]+)\)", page.read_text("utf-8")):
        target = page.parent / path if path else page
        if target.suffix == ".md":
            assert anchor in anchors(target.read_text("utf-8")), f"{path}#{anchor}"


def anchors(page: str) -> set[str]:
    """What GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_map_has_every_room() -> None:
    """Each folder of the product stands on it with one line, and nothing else does."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    match = re.search(r"^## The map\n+```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert match is not None
    assert sorted(_drawn(match[1])) == sorted(_rooms())


def _drawn(tree: str) -> list[str]:
    found: list[str] = []
    above: list[str] = []
    for indent, name in re.findall(r"^( *)(\w+)/ +\S", tree, re.MULTILINE):
        above = [*above[: len(indent) // 2], name]
        found.append("/".join(above))
    return found


def _rooms() -> list[str]:
    """Folders of code and SQL down to the third level; what lies deeper is one subject."""
    folders = (path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.*"))
    found = {folder.relative_to(ROOT) for folder in folders if folder.name != "__pycache__"}
    return sorted({"/".join(folder.parts[:2]) for folder in found} | _deeper(found))


def _deeper(found: set[Path]) -> set[str]:
    """Rooms within rooms: of the gateway, the commands, the queue, and what providers share."""
    within = {"uvian_worker/gateway", "uvian_worker/cli", "uvian_worker/queue"}
    shared = {"executors/providers/transport", "executors/providers/offline"}
    names = {"/".join(folder.parts[:3]) for folder in found if len(folder.parts) > 2}
    return {name for name in names if name.rpartition("/")[0] in within} | shared
