"""The folder that a demo leaves: pictures under names that people can read, and a page."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.test_watching import a_run, event, heard, image
from uvian_worker.events.job_view import WatchedJob
from uvian_worker.local.contact_sheet import Shown, lay_out


def laid_out(job: WatchedJob, folder: Path, *more: Shown) -> list[str]:
    """The names of the files of the pictures."""
    images = folder.parent / "images"
    shown = [Shown(job, "A <fox>", "Rust & cream", ms=812.4), *more]
    paths = [picture.path for one in shown for picture in one.job.pictures.values()]
    for path in [*paths, *(one.original for one in shown if one.original)]:
        stored = images / path
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_bytes(path.encode())
    return [file.name for files in lay_out(shown, folder, images=images) for file in files]


def a_refinement(path: str = "u/refined.png") -> WatchedJob:
    """A job that has refined a picture."""
    return heard(
        [
            event("job.queued", 1, job_type="refinement"),
            image(2, "base", 0, name=None, path=path),
            event(
                "job.completed",
                3,
                output={"operations": ["warmer 70 %", "a <shadow>"]},
                result_id="r",
                stages=[],
                cost="0",
            ),
        ]
    )


def test_pictures_are_named_by_place_and_palette(tmp_path: Path) -> None:
    """The base image comes first, the variations in the order of their palettes."""
    names = laid_out(heard(a_run()), tmp_path / "out")
    assert names == ["00-base.png", "01-day-rose.png", "02-night-rose.png"]
    assert (tmp_path / "out" / "02-night-rose.png").read_bytes() == b"u/variation1.png"


def test_the_page_shows_every_picture_and_what_was_asked(tmp_path: Path) -> None:
    """Links are relative, words are escaped, nothing is loaded from elsewhere."""
    laid_out(heard(a_run()), tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert re.findall(r'<img src="([^"]+)"', page) == [
        "00-base.png",
        "01-day-rose.png",
        "02-night-rose.png",
    ]
    assert "A &lt;fox&gt;" in page
    assert "Rust &amp; cream" in page
    assert "812 ms" in page
    assert "prefers-color-scheme: dark" in page
    assert "http" not in page
    assert "$" not in page


def test_a_second_job_replaces_the_first_and_nothing_else(tmp_path: Path) -> None:
    """``--out`` may be used again; what is not ours stays."""
    out = tmp_path / "out"
    laid_out(heard(a_run()), out)
    (out / "notes.txt").write_text("mine")
    palette = ["#111111", "#ffffff"]
    other = [event("job.queued", 1, job_type="generation"), image(2, "base", 0, name=None)]
    other.append(image(3, "variation", 0, name="Été / 2", palette=palette))
    assert laid_out(heard(other), out) == ["00-base.png", "01-t-2.png"]
    assert sorted(file.name for file in out.iterdir()) == [
        "00-base.png",
        "01-t-2.png",
        "index.html",
        "notes.txt",
    ]


def test_a_folder_that_is_not_ours_is_not_tidied(tmp_path: Path) -> None:
    """A page of somebody else's, and a file that happens to be named like a picture of ours."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "index.html").write_text("<p>mine</p>")
    (out / "07-other.png").write_bytes(b"mine")
    laid_out(heard(a_run()), out)
    assert (out / "07-other.png").read_bytes() == b"mine"


def test_a_refinement_stands_beside_its_original(tmp_path: Path) -> None:
    """With what was done to it; a picture that is shown twice is copied once."""
    made = heard(a_run())
    refined = Shown(a_refinement(), "warmer & <softer>", original=made.pictures[0].path, ms=77)
    names = laid_out(made, tmp_path / "out", refined)
    assert names == ["00-base.png", "01-day-rose.png", "02-night-rose.png", "03-refined.png"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "warmer &amp; &lt;softer&gt;" in page
    assert "warmer 70 % · a &lt;shadow&gt;" in page
    pair = page[page.index('class="sheet pair"') :]
    assert re.findall(r'<img src="([^"]+)"', pair) == ["00-base.png", "03-refined.png"]
    assert page.count("812 ms") == page.count("77 ms") == 1


def test_a_refinement_alone_brings_its_original_along(tmp_path: Path) -> None:
    """The page is complete without the concept that it came from."""
    folder = tmp_path / "out"
    shown = Shown(a_refinement(), "softer", original="u/before.png")
    images = tmp_path / "images"
    (images / "u").mkdir(parents=True)
    for name in ("before", "refined"):
        (images / "u" / f"{name}.png").write_bytes(name.encode())
    assert [[file.name for file in files] for files in lay_out([shown], folder, images=images)] == [
        ["01-refined.png"]
    ]
    assert (folder / "00-original.png").read_bytes() == b"before"
    assert (folder / "index.html").read_text().count("softer") == 2, "title and heading"
