"""README.md is short, works where PyPI shows it, and shows code that is tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.test_pages import anchors

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: Where a page, a folder and a picture of the project are shown.
ADDRESS = re.compile(r"https://github\.com/uvian/uvian-worker/(blob|tree|raw)/main/([^#]+)(?:#.*)?")
LINKS = [*re.findall(r"\]\(([^)]+)\)", README), *re.findall(r'(?:src|href)="([^"]+)"', README)]


def test_it_is_read_in_one_go() -> None:
    """Two hundred lines at most; the pages have the rest."""
    assert len(README.splitlines()) <= 200


def test_every_link_works_on_pypi() -> None:
    """PyPI knows no files of ours: every link and every picture is an absolute address."""
    assert LINKS
    assert [link for link in LINKS if not link.startswith("https://")] == []


def test_links_to_our_repository_lead_somewhere() -> None:
    """Each names a file, a folder or a picture that exists; pictures are linked as raw files."""
    ours = [link for link in LINKS if "github.com/uvian/uvian-worker" in link]
    assert len(ours) > 10
    for link in ours:
        match = ADDRESS.fullmatch(link)
        assert match is not None, link
        kind, path = match.groups()
        assert (ROOT / path).exists(), link
        assert (kind == "tree") == (ROOT / path).is_dir(), link
        assert (kind == "raw") == (Path(path).suffix in {".svg", ".png", ".webp"}), link


def test_headings_that_are_linked_exist() -> None:
    """A link into a page names one of its headings."""
    for link in LINKS:
        match = ADDRESS.fullmatch(link)
        if match is not None and "#" in link:
            page = (ROOT / match[2]).read_text(encoding="utf-8")
            assert link.partition("#")[2] in anchors(page), link


@pytest.mark.parametrize(
    ("language", "path"),
    [
        ("python", "docs/examples/enqueue/enqueue.py"),
        ("ts", "clients/typescript/examples/submit.ts"),
    ],
)
def test_the_code_for_an_api_is_an_example_that_runs(language: str, path: str) -> None:
    """Word for word: one is run by tests/examples, the other is compiled with the client."""
    code = (ROOT / path).read_text(encoding="utf-8")
    assert f"```{language}\n{code}```" in README


def test_the_executor_is_a_shortened_example() -> None:
    """Nothing but lines of the example that is run, in their order."""
    example = ROOT / "docs/examples/uvian-greeting/uvian_greeting.py"
    lines = iter(example.read_text(encoding="utf-8").splitlines())
    (shown,) = re.findall(r"^```python\n(class .*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in shown.splitlines():
        assert line in lines, line
