"""The folder that a demo leaves: pictures under names that people can read, and a page."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.test_watching import a_run, event, heard, image
from uvian_worker.contact_sheet import lay_out
from uvian_worker.watching import WatchedJob

_ASKED = {"logo_description": "A <fox>", "theme_description": "Rust & cream", "size": 64}


def laid_out(job: WatchedJob, folder: Path) -> list[str]:
    """The names of the files in the folder, the pictures' first."""
    images = folder.parent / "images"
    for picture in job.pictures.values():
        stored = images / picture.path
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_bytes(picture.path.encode())
    files = lay_out(job, folder, images=images, asked=_ASKED, ms=812.4)
    return [file.name for file in files]


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
