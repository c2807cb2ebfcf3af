"""Whatever a picture is made of: what it costs is bounded, and it ends in a sentence."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from executors.imaging.codec import Decoders, Limits, UnsafeImageError
from tests.executors.imaging.bombs import BOMBS, LADEN, comments, png, progressive

SLOW = partial(progressive, 4096, 2048, 80, "RGB")


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    """One process, that ends with the test."""
    decoders = Decoders(1)
    yield decoders
    decoders.close()


def cpu_of_children() -> float:
    """Seconds, of those that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def peak_memory(pid: int) -> int:
    """Megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
def test_what_a_picture_may_cost(make: Callable[[], bytes], decoders: Decoders) -> None:
    """Refused or decoded: within its CPU time (and that of a start) and its memory."""
    content = make()
    before = cpu_of_children()
    with contextlib.suppress(UnsafeImageError):
        assert decoders.decode_blocking(content).mode in ("RGB", "RGBA")
    for pid in decoders.idle:
        assert peak_memory(pid) < 400
    decoders.close()
    assert cpu_of_children() - before < Limits().seconds + 0.4


@pytest.mark.parametrize(
    ("make", "limits", "reason"),
    [
        (partial(comments, 200_000), Limits(), "more than 100,000 parts"),
        (SLOW, Limits(seconds=0.25), "more time than is allowed"),
        (partial(progressive, 64, 64, 500), Limits(), "more than 100 scans"),
        (partial(png, 400, 400), Limits(pixels=4000), "too large to decode"),
        (BOMBS["PNG, 300,000 texts"], Limits(), "more than 100,000 parts"),
    ],
    ids=["comments", "scans in time", "scans", "pixels", "texts"],
)
def test_a_bomb_is_refused_with_a_sentence(
    make: Callable[[], bytes], limits: Limits, reason: str, decoders: Decoders
) -> None:
    """The kernel's verdict and ours read alike, and the next picture is decoded."""
    with pytest.raises(UnsafeImageError, match=reason):
        decoders.decode_blocking(make(), limits)
    assert decoders.decode_blocking(png(64, 64)).size == (64, 64)


def test_small_pictures_have_less_time_than_large_ones(decoders: Decoders) -> None:
    """A picture of 64 pixels a side costs a quarter of a second at most."""
    before = cpu_of_children()
    with pytest.raises(UnsafeImageError):
        decoders.decode_blocking(BOMBS["JPEG, 30 MB of nothing"]())
    decoders.close()
    assert cpu_of_children() - before < 0.25 + 0.3


def test_memory_has_an_end(decoders: Decoders) -> None:
    """What would take more than the limits foresee is refused, and the process is of use again."""
    limits = Limits(pixels=64 * 64, bytes=1 << 20)
    bomb = png(64, 64, data=BOMBS["PNG, 64 MB for 64 pixels a side"]()[:1000])
    with contextlib.suppress(UnsafeImageError):
        decoders.decode_blocking(bomb, limits)
    (pid,) = decoders.idle
    space = Path(f"/proc/{pid}/limits").read_text().partition("Max address space")[2].split()[0]
    assert limits.memory < int(space) < limits.memory + (256 << 20)
    assert decoders.decode_blocking(png(64, 64), limits).size == (64, 64)


@pytest.mark.parametrize(("make", "turned"), LADEN.values(), ids=LADEN)
def test_metadata_may_be_large(make: Callable[[], bytes], turned: bool, decoders: Decoders) -> None:
    """Megabytes of texts and profiles cost nothing: they are dropped, and the picture is upright."""
    picture = decoders.decode_blocking(make())
    assert picture.size == ((20, 40) if turned else (40, 20))
    red, green, blue = picture.convert("RGB").getpixel((3, 3))  # type: ignore[misc]
    assert max(abs(red - 0xD7), abs(green - 0x26), abs(blue - 0x3D)) < 5
    assert picture.info == {}
