"""A concept as a folder of pictures with a page that shows them together."""

from __future__ import annotations

__all__ = ["lay_out"]

import html
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from uvian_worker.watching import Picture, StageSeen, WatchedJob

_PAGE = Path(__file__).with_name("contact_sheet.html")
#: Written into the page: a folder that has it is one of ours, and may be tidied up.
_MARK = '<meta name="generator" content="uvian demo">'
_OURS = re.compile(r"\d\d-[a-z0-9-]+\.(png|webp|jpg)")


def lay_out(
    job: WatchedJob, folder: Path, *, images: Path, asked: Mapping[str, Any], ms: float
) -> list[Path]:
    """Copy the pictures of a job to ``folder`` and write ``index.html``; the base image comes first.

    What an earlier job left there goes away; files that are not ours stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _tidy(folder)
    files = {
        picture: _copied(picture, images, folder) for _, picture in sorted(job.pictures.items())
    }
    (folder / "index.html").write_text(_page(job, files, asked, ms), encoding="utf-8")
    return list(files.values())


def _tidy(folder: Path) -> None:
    page = folder / "index.html"
    if page.exists() and _MARK in page.read_text(encoding="utf-8", errors="replace"):
        for file in folder.iterdir():
            if _OURS.fullmatch(file.name):
                file.unlink()


def _copied(picture: Picture, images: Path, folder: Path) -> Path:
    """A copy: the store's own files are named by their content, and must keep it."""
    stored = images / picture.path
    name = "base" if picture.kind == "base" else _slug(picture.name or "variation")
    return Path(shutil.copyfile(stored, folder / f"{picture.place:02d}-{name}{stored.suffix}"))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "variation"


def _page(
    job: WatchedJob, files: Mapping[Picture, Path], asked: Mapping[str, Any], ms: float
) -> str:
    figures = [_figure(picture, file.name, asked) for picture, file in files.items()]
    size = asked["size"]
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        mark=_MARK,
        title=html.escape(asked["logo_description"]),
        theme=html.escape(asked["theme_description"]),
        base=figures[0],
        variations="\n".join(figures[1:]),
        stages=_stages(list(job.stages.values())),
        total=_seconds(ms),
        facts=html.escape(f"{len(files)} pictures · {size} px square · job {job.id}"),
    )


def _figure(picture: Picture, file: str, asked: Mapping[str, Any]) -> str:
    name = html.escape(picture.name or "Base image")
    what = html.escape(f"{asked['logo_description']}: {picture.name or 'base image'}", quote=True)
    chips = "".join(
        f'<button style="background:{colour}" title="Copy {colour}" data-hex="{colour}"></button>'
        for colour in picture.palette
    )
    strip = f'<div class="chips">{chips}</div>' if chips else ""
    number = "" if picture.kind == "base" else f"<small>{picture.place:02d}</small>"
    return (
        f'<figure><a href="{file}"><img src="{file}" alt="{what}"></a>'
        f"<figcaption><b>{name}</b>{number}</figcaption>{strip}</figure>"
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
