"""What jobs have made as a folder of pictures, with a page that shows them together."""

from __future__ import annotations

__all__ = ["Shown", "lay_out"]

import html
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from uvian_worker.events.job_view import Picture, StageSeen, WatchedJob

_PAGE = Path(__file__).with_name("contact_sheet.html")
#: Written into the page: a folder that has it is one of ours, and may be tidied up.
_MARK = '<meta name="generator" content="uvian demo">'
_OURS = re.compile(r"\d\d-[a-z0-9-]+\.(png|webp|jpg)")


@dataclass(slots=True)
class Shown:
    """A job that has made pictures, and what is said of it."""

    job: WatchedJob
    words: str  #: what was requested
    theme: str = ""
    original: str | None = None  #: path of the picture that was refined
    ms: float = 0.0  #: from the call that submits to the event that ends, as a client sees it


def lay_out(shown: Sequence[Shown], folder: Path, *, images: Path) -> list[list[Path]]:
    """Copy the pictures of jobs to ``folder`` and write ``index.html``; each one's base image first.

    What an earlier demo left there goes away; files that are not ours stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _tidy(folder)
    copies = _Copies(images, folder)
    sections = [_section(one, copies, first=one is shown[0]) for one in shown]
    (folder / "index.html").write_text(_page(shown, sections, len(copies)), encoding="utf-8")
    return [[copies[p.path] for _, p in sorted(one.job.pictures.items())] for one in shown]


@dataclass(slots=True)
class _Copies:
    """Files by the paths of the store, whose own are named by their content and must keep it."""

    images: Path
    folder: Path
    _files: dict[str, Path] = field(default_factory=dict)

    def add(self, path: str, name: str) -> str:
        """Copy a picture, once; the name of its file."""
        if path not in self._files:
            stored = self.images / path
            file = self.folder / f"{len(self._files):02d}-{name}{stored.suffix}"
            self._files[path] = Path(shutil.copyfile(stored, file))
        return self._files[path].name

    def __getitem__(self, path: str) -> Path:
        return self._files[path]

    def __len__(self) -> int:
        return len(self._files)


def _tidy(folder: Path) -> None:
    page = folder / "index.html"
    if page.exists() and _MARK in page.read_text(encoding="utf-8", errors="replace"):
        for file in folder.iterdir():
            if _OURS.fullmatch(file.name):
                file.unlink()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "variation"


def _section(one: Shown, copies: _Copies, *, first: bool) -> str:
    body = _refined(one, copies) if one.original else _made(one, copies)
    # The first one's words are the title of the page.
    return body if first else f"<h2>{html.escape(one.words)}</h2>\n{body}"


def _made(one: Shown, copies: _Copies) -> str:
    """The base image large, its variations around it."""
    figures = [
        _figure(picture, copies.add(picture.path, _name(picture)), one.words)
        for _, picture in sorted(one.job.pictures.items())
    ]
    return f'<div class="sheet">\n{"".join(figures)}</div>'


def _refined(one: Shown, copies: _Copies) -> str:
    """The original beside what became of it."""
    before = copies.add(one.original or "", "original")
    base, *variations = (picture for _, picture in sorted(one.job.pictures.items()))
    after = copies.add(base.path, "refined")
    done = " · ".join((one.job.output or {}).get("operations", ()))
    more = [_figure(p, copies.add(p.path, _name(p)), one.words) for p in variations]
    return (
        f'<p class="done">{html.escape(done)}</p>\n'
        f'<div class="sheet pair">\n{_plain(before, "Original")}{_plain(after, "Refined")}'
        f"{''.join(more)}</div>"
    )


def _name(picture: Picture) -> str:
    return "base" if picture.kind == "base" else _slug(picture.name or "variation")


def _page(shown: Sequence[Shown], sections: Sequence[str], pictures: int) -> str:
    first = shown[0]
    ids = ", ".join(one.job.id for one in shown)
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        mark=_MARK,
        title=html.escape(first.words),
        theme=html.escape(first.theme),
        sections="\n".join(f"<section>\n{section}\n</section>" for section in sections),
        times="\n".join(_times(one) for one in shown),
        facts=html.escape(f"{pictures} pictures · {'jobs' if len(shown) > 1 else 'job'} {ids}"),
    )


def _figure(picture: Picture, file: str, words: str) -> str:
    name = html.escape(picture.name or "Base image")
    what = html.escape(f"{words}: {picture.name or 'base image'}", quote=True)
    chips = "".join(
        f'<button style="background:{colour}" title="Copy {colour}" data-hex="{colour}"></button>'
        for colour in picture.palette
    )
    strip = f'<div class="chips">{chips}</div>' if chips else ""
    number = "" if picture.kind == "base" else f"<small>{picture.place:02d}</small>"
    return (
        f'<figure><a href="{file}"><img src="{file}" alt="{what}"></a>'
        f"<figcaption><b>{name}</b>{number}</figcaption>{strip}</figure>\n"
    )


def _plain(file: str, name: str) -> str:
    return (
        f'<figure><a href="{file}"><img src="{file}" alt="{name}"></a>'
        f"<figcaption><b>{name}</b></figcaption></figure>\n"
    )


def _times(one: Shown) -> str:
    title = {"generation": "How long the concept took", "refinement": "How long refining it took"}
    heading = title.get(one.job.type, "How long it took")
    return (
        f"<h3><span>{heading}</span><span>{_seconds(one.ms)}</span></h3>\n"
        f"<ol>\n{_stages(list(one.job.stages.values()))}\n</ol>"
    )


def _stages(stages: Sequence[StageSeen]) -> str:
    longest = max((stage.ms or 0 for stage in stages), default=0) or 1
    return "\n".join(
        f"<li><span>{html.escape(stage.label)}</span>"
        f'<i style="--share:{(stage.ms or 0) / longest:.4f}"></i>'
        f"<b>{_seconds(stage.ms or 0)}</b></li>"
        for stage in stages
    )


def _seconds(ms: float) -> str:
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms"
