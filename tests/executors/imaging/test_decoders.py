"""The processes that decode: what they may do, how they end, and who notices."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from PIL import Image

from executors.imaging import decoder
from executors.imaging.codec import Decoders, Limits, UnsafeImageError, decode, encode_png
from executors.imaging.decoder import DecoderUnavailable
from tests.executors.imaging.bombs import png, progressive, saved
from tests.executors.imaging.processes import begun, children, cpu, is_alive, until

PICTURE = encode_png(Image.new("RGB", (300, 200), "#2a9d8f")).content
#: Some seconds of work, if nobody interferes.
LONG = progressive(4096, 4096, 80, "RGB")
PATIENT = Limits(seconds=60)


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    """Two processes, that end with the test."""
    decoders = Decoders(2)
    yield decoders
    decoders.close()


async def test_nothing_is_started_before_there_is_a_picture() -> None:
    """A worker without pictures has no such process; one after another share one."""
    decoders, before = Decoders(4), children(os.getpid())
    assert children(os.getpid()) == before
    for _ in range(3):
        assert (await decoders.decode(PICTURE)).size == (300, 200)
    assert children(os.getpid()) - before == set(decoders.idle)
    assert len(decoders.idle) == 1
    decoders.close()
    decoders.close()
    assert children(os.getpid()) == before


async def test_pictures_come_out_whole_whatever_their_size(decoders: Decoders) -> None:
    """Pixels are moved in pieces: the first and the last row of every size are where they were."""
    for width, height in ((1, 1), (1, 5000), (5000, 1), (257, 511), (8192, 40), (1024, 1024)):
        for mode in ("RGB", "RGBA"):
            image = Image.linear_gradient("L").resize((width, height)).convert(mode)
            picture = await decoders.decode(encode_png(image).content)
            assert (picture.mode, picture.size) == (mode, image.size)
            assert picture.tobytes() == image.tobytes()


async def test_a_decoder_has_nothing_of_ours(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No setting, no key, no file, no connection; it cannot open one, nor write, nor leave a core."""
    monkeypatch.setenv("UVIAN_SUPABASE_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/secret")
    await decoders.decode(PICTURE)
    (pid,) = decoders.idle
    folder = Path(f"/proc/{pid}")
    assert b"secret" not in (folder / "environ").read_bytes()
    kinds = {fd.name: str(fd.readlink()).partition(":")[0] for fd in (folder / "fd").iterdir()}
    assert {kinds[name] for name in "014"} == {"pipe"}
    assert (kinds["2"], kinds["3"], len(kinds)) == (
        "/dev/null",
        "/memfd",
        5,
    )
    limits = (folder / "limits").read_text()
    for name, most in (("open files", 5), ("file size", 0), ("core file size", 0)):
        assert limits.partition(f"Max {name}")[2].split()[:2] == [str(most)] * 2


@pytest.mark.parametrize(
    ("kind", "modes"),
    [
        ("PNG", "1 L LA P RGB RGBA I;16"),
        ("JPEG", "1 L RGB CMYK"),
        ("MPO", "L RGB CMYK"),
        ("WEBP", "L LA P RGB RGBA"),
        ("GIF", "1 L LA P RGB RGBA"),
    ],
)
async def test_every_mode_of_every_format(kind: str, modes: str, decoders: Decoders) -> None:
    """Nothing that Pillow needs for a picture is missing in a process that can open no file."""
    for mode in modes.split():
        image = Image.linear_gradient("L").resize((20, 10))
        image = image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
        options = {"append_images": [image], "save_all": True} if kind == "MPO" else {}
        content = saved(image, kind, exif=_lying(), **options)
        picture = await decoders.decode(content)
        assert picture.mode in ("RGB", "RGBA")
        assert picture.size == ((20, 10) if kind == "GIF" else (10, 20))


def _lying() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("orientation", range(10))
async def test_every_orientation(orientation: int, decoders: Decoders) -> None:
    """As Pillow's own reading of the EXIF has it; nonsense is upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.linear_gradient("L").resize((20, 10)).convert("RGB")
    expected = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turned = image.transpose(expected[orientation]) if orientation in expected else image
    for kind in ("PNG", "JPEG", "WEBP"):
        content = saved(image, kind, exif=exif, lossless=True)
        picture = await decoders.decode(content)
        assert picture.size == turned.size
        if kind != "JPEG":
            assert picture.tobytes() == turned.tobytes()


async def test_a_neighbour_does_not_notice(decoders: Decoders) -> None:
    """While one picture burns its time, the event loop turns and other pictures are decoded."""
    await asyncio.gather(decoders.decode(PICTURE), decoders.decode(PICTURE))
    bomb = asyncio.create_task(decoders.decode(LONG, PATIENT))
    await asyncio.sleep(0.1)
    waits = []
    for _ in range(20):
        began = time.perf_counter()
        await decoders.decode(PICTURE)
        waits.append(time.perf_counter() - began)
    assert not bomb.done()
    bomb.cancel()
    assert sorted(waits)[18] < 0.25


async def test_one_user_has_half_of_them() -> None:
    """Who sends one bomb after another waits for his own: there is always a process for others."""
    decoders = Decoders(2)
    bombs = [asyncio.create_task(decoders.decode(LONG, PATIENT, user_id="a")) for _ in range(5)]
    await asyncio.sleep(0)
    for _ in range(3):
        assert (await decoders.decode(PICTURE, user_id="b")).size == (300, 200)
    assert not any(task.done() for task in bombs)
    for task in bombs:
        task.cancel()
    await asyncio.gather(*bombs, return_exceptions=True)
    assert (await decoders.decode(PICTURE, user_id="a")).size == (300, 200)
    decoders.close()


async def test_cancelled_at_once(decoders: Decoders) -> None:
    """Whoever gives a picture up ends the process that has it; the next picture gets another."""
    others = children(os.getpid())
    task = asyncio.create_task(decoders.decode(LONG, PATIENT))
    pid = await begun(decoders, others)
    task.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not is_alive(pid))
    assert time.monotonic() - began < 0.5
    assert (await decoders.decode(PICTURE)).size == (300, 200)
    assert pid not in decoders.idle


async def test_on_the_loop_of_a_worker() -> None:
    """uvloop, in whatever thread, with other children of the same process: each gets its own ending."""

    async def on_uvloop() -> None:
        decoders, others = Decoders(2), children(os.getpid())
        for _ in range(3):
            task = asyncio.create_task(decoders.decode(LONG, PATIENT))
            pid = await begun(decoders, others)
            other = await asyncio.create_subprocess_exec("true")
            assert (await decoders.decode(PICTURE)).size == (300, 200)
            task.cancel()
            assert await other.wait() == 0
            await until(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
        decoders.close()

    await asyncio.to_thread(uvloop.run, on_uvloop())


async def test_cancelled_while_it_waits_its_turn() -> None:
    """What is given up in the queue is never begun, and nobody else's picture ends with it."""
    decoders = Decoders(1)
    first = asyncio.create_task(decoders.decode(png(2000, 2000)))
    waiting = [asyncio.create_task(decoders.decode(LONG, PATIENT)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    assert (await first).size == (2000, 2000)
    assert (await asyncio.wait_for(decoders.decode(PICTURE), 5)).size == (300, 200)
    decoders.close()


async def test_closing_ends_what_is_being_decoded() -> None:
    """A worker that stops does not wait for a bomb."""
    decoders, others = Decoders(1), children(os.getpid())
    task = asyncio.create_task(decoders.decode(LONG, PATIENT))
    await begun(decoders, others)
    began = time.monotonic()
    await asyncio.to_thread(decoders.close)
    assert time.monotonic() - began < 0.5
    assert children(os.getpid()) == others
    with pytest.raises(Exception, match="ended"):
        await task
    with pytest.raises(DecoderUnavailable):
        decoders.decode_blocking(PICTURE)


async def test_killed_by_somebody_else(decoders: Decoders) -> None:
    """Idle or in the middle of a picture: another process has it, and nobody is told."""
    await decoders.decode(PICTURE)
    (idle,) = decoders.idle
    os.kill(idle, signal.SIGKILL)
    assert (await decoders.decode(PICTURE)).size == (300, 200)
    others = children(os.getpid())
    task = asyncio.create_task(decoders.decode(png(4000, 4000)))
    await asyncio.sleep(0.02)
    for pid in children(os.getpid()) & others:
        os.kill(pid, signal.SIGKILL)
    assert (await task).size == (4000, 4000)
    assert idle not in decoders.idle


async def test_killed_again_and_again(decoders: Decoders) -> None:
    """The second time the picture is to blame: a kernel short of memory ends what takes most."""
    others = children(os.getpid())
    task = asyncio.create_task(decoders.decode(LONG, PATIENT))
    for _ in range(2):
        pid = await begun(decoders, others)
        os.kill(pid, signal.SIGKILL)
        await until(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
    with pytest.raises(UnsafeImageError, match="cannot be decoded within the limits"):
        await task


async def test_a_decoder_that_is_silent(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that uses no time and never answers is replaced after a while."""
    await decoders.decode(PICTURE)
    (pid,) = decoders.idle
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(decoder, "_DEADLINE_SECONDS", 0.3)
    assert (await decoders.decode(PICTURE)).size == (300, 200)
    assert not is_alive(pid)


@pytest.mark.parametrize("answer", ["RGB 100000 100000", "P 4 4", "", "RGB -1 -1", "nonsense"])
def test_a_decoder_that_lies(
    answer: str, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes one over from inside gets nothing but his picture refused."""
    program = (
        "import os; os.write(1, b'ready'.ljust(256)); os.read(0, 999);"
        f"os.write(1, b'{answer}'.ljust(256))"
    )
    monkeypatch.setattr(decoder, "_PROGRAM", program)
    with pytest.raises(UnsafeImageError, match="cannot be decoded"):
        decoders.decode_blocking(PICTURE)


def test_a_machine_that_starts_none(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no fault of the picture; the reason is for the log."""
    monkeypatch.setattr(decoder, "_PATHS", ("/nowhere",))
    with pytest.raises(DecoderUnavailable, match="No module named"):
        decoders.decode_blocking(PICTURE)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DecoderUnavailable, match="No such file"):
        decoders.decode_blocking(PICTURE)
    monkeypatch.undo()
    assert decoders.decode_blocking(PICTURE).size == (300, 200)


_OWNER = """
import sys
from executors.imaging.codec import Decoders, Limits
decoders = Decoders(2)
decoders.decode_blocking(open(sys.argv[1], "rb").read())
print(*decoders.idle, flush=True)
decoders.decode_blocking(open(sys.argv[2], "rb").read(), Limits(seconds=60))
"""


@pytest.mark.parametrize("busy", [False, True])
async def test_none_outlives_its_worker(tmp_path: Path, busy: bool) -> None:
    """A worker that is killed leaves none behind, idle or in the middle of a picture."""
    (tmp_path / "picture").write_bytes(PICTURE)
    (tmp_path / "bomb").write_bytes(LONG)
    second = tmp_path / ("bomb" if busy else "picture")
    script = _OWNER if busy else _OWNER + "sys.stdin.read()\n"
    owner = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "picture", second],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    with owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        at_work = cpu(pid)
        if busy:
            await until(lambda: cpu(pid) > at_work + 0.2)
        owner.kill()
    began = time.monotonic()
    await until(lambda: not is_alive(pid), 5)
    assert time.monotonic() - began < 0.5


def test_from_a_thread_that_may_wait() -> None:
    """Scripts and commands decode through the same door."""
    assert decode(PICTURE).size == (300, 200)
    with pytest.raises(UnsafeImageError, match="scans"):
        decode(progressive(64, 64, 500))
