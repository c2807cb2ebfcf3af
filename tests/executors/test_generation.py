"""The generation, stage by stage: what it makes, what it survives, and how each failure reads."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from executors import errors
from executors.events import Event, StageFinished
from executors.generation import GenerationInput
from executors.imaging.codec import Limits, decode
from executors.providers.offline.images import LocalImageModel
from executors.stages import palette_generation, palette_variations
from executors.stages.concept_storage import concept_id_of
from repositories.errors import DataError, PictureRefused, Refused, Unavailable
from repositories.images import is_image_path
from tests.executors.bench import JOB, USER, Bench, MemoryJobs, Model, Pictures, picture

ASKED = {
    "logo_description": "a fox",
    "theme_description": "autumn forest",
    "num_palettes": 3,
    "size": 256,
    "seed": 5,
}

TOO_LARGE = "the storage does not take a picture that is so large, or of this kind."


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A generation of three small variations."""
    bench = Bench(MemoryJobs(ASKED), Pictures(tmp_path / "images"), Model())
    yield bench
    await bench.pictures.close()


async def test_a_concept_with_its_variations(bench: Bench) -> None:
    """Base image and variations are stored, announced and written as one concept."""
    settled = await bench.run()
    assert settled["outcome"] == "completed"
    assert settled["result_id"] == concept_id_of(JOB)
    output = settled["output"]
    assert (output["width"], output["height"]) == (256, 256)
    assert "warnings" not in output
    paths = [output["image_path"], *(v["image_path"] for v in output["variations"])]
    assert len(set(paths)) == 4
    for path in paths:
        assert is_image_path(path)
        assert path.startswith(f"{USER}/")
        assert decode(await bench.pictures.get(path)).size == (256, 256)
    (stored,) = bench.jobs.concepts
    assert stored["concept"]["image_path"] == paths[0]
    assert stored["concept"]["details"]["seed"] == 5
    assert [v["image_path"] for v in stored["variations"]] == paths[1:]
    assert [v["position"] for v in stored["variations"]] == [0, 1, 2]
    assert sorted((i.kind, i.index) for i in bench.images) == [
        ("base", 0),
        ("variation", 0),
        ("variation", 1),
        ("variation", 2),
    ]
    assert {i.path for i in bench.images} == set(paths)
    assert all(i.preview.startswith("data:image/") for i in bench.images)


async def test_every_stage_is_timed_and_told(bench: Bench) -> None:
    """Five stages, each begun and finished once; storing the base image overlaps the palettes."""
    settled = await bench.run()
    names = [stage["name"] for stage in settled["stages"]]
    assert sorted(names) == [
        "base_image",
        "base_image_storage",
        "concept_storage",
        "palette_generation",
        "palette_variations",
    ]
    assert all(s["status"] == "completed" and s["ms"] >= 0 for s in settled["stages"])
    begun = [event.type for _, event in bench.told]
    first_end = begun.index("stage.finished", begun.index("stage.finished") + 1)
    assert begun[:first_end].count("stage.started") == 3
    assert bench.types[-1] == "job.completed"


async def test_a_picture_is_announced_when_it_is_stored_not_before(bench: Bench) -> None:
    """Whoever hears of a picture can fetch it at once."""
    missing: list[str] = []

    def look(event: Event) -> None:
        path = getattr(event, "path", None)
        if path is not None and not (bench.pictures.local._root / path).exists():
            missing.append(path)

    bench.on_event = look
    await bench.run()
    assert len(bench.images) == 4
    assert missing == []


@pytest.mark.parametrize("failing", [{1}, {2}, {3}, {1, 3}])
async def test_variations_that_fail_become_warnings(bench: Bench, failing: set[int]) -> None:
    """What succeeded is kept, in order; what failed is named, with its palette."""
    bench.pictures.fails = lambda n: PictureRefused("disk") if n in failing else None
    settled = await bench.run()
    assert settled["outcome"] == "completed"
    kept = [v["index"] for v in settled["output"]["variations"]]
    lost = [warning["index"] for warning in settled["output"]["warnings"]]
    assert len(kept) == 3 - len(failing)
    assert sorted(kept + lost) == [0, 1, 2]
    assert kept == sorted(kept)
    assert all(
        w["code"] == "variation_failed" and w["palette"] for w in settled["output"]["warnings"]
    )
    assert "disk" not in str(settled["output"])
    (stored,) = bench.jobs.concepts
    assert [v["position"] for v in stored["variations"]] == kept


def _png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(header))
        + body
        + struct.pack(">I", zlib.crc32(body))
    )


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        (b"", "retry", "provider_unavailable"),
        (b"<html>502 Bad Gateway</html>", "retry", "provider_unavailable"),
        (picture()[: len(picture()) // 2], "retry", "provider_unavailable"),
        (_png(100_000, 100_000), "retry", "provider_unavailable"),
        (errors.ProviderRejected("the picture is not allowed."), "failed", "provider_rejected"),
        (errors.ProviderUnavailable(), "retry", "provider_unavailable"),
        (errors.RateLimited(30), "retry", "rate_limited"),
        (errors.InvalidInput("no such style."), "failed", "invalid_input"),
        (ZeroDivisionError("/home/secret"), "retry", "internal_error"),
        (MemoryError(), "retry", "internal_error"),
    ],
)
async def test_whatever_the_provider_does(
    bench: Bench, answer: bytes | Exception, outcome: str, code: str
) -> None:
    """Garbage, half a picture, a bomb or any error: the job ends, names the stage, stores nothing."""
    bench.model.answer = answer
    settled = await bench.run()
    assert (settled["outcome"], settled["error"]["code"]) == (outcome, code)
    assert settled["error_message"].startswith("Base concept generation failed: ")
    assert settled["error"]["stage"] == "base_image"
    assert "secret" not in str(settled)
    assert bench.pictures.puts == 0
    assert bench.jobs.concepts == []
    assert [s["status"] for s in settled["stages"]] == ["failed"]


def _from(first: int, error: Exception) -> Callable[[int], Exception | None]:
    return lambda number: error if number >= first else None


def _raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("break_it", "message", "stage", "outcome"),
    [
        (
            lambda b, _: setattr(b.pictures, "fails", _from(0, PictureRefused("/srv"))),
            f"Storing base image failed: {TOO_LARGE}",
            "base_image_storage",
            "failed",
        ),
        (
            lambda _, m: m.setattr(
                palette_generation, "harmonies", _raises(errors.ProviderRejected("no palettes."))
            ),
            "Palette generation failed: no palettes.",
            "palette_generation",
            "failed",
        ),
        (
            lambda b, _: setattr(b.pictures, "fails", _from(1, PictureRefused("/srv"))),
            f"Creating/storing variations failed: {TOO_LARGE}",
            "palette_variations",
            "failed",
        ),
        (
            lambda _, m: m.setattr(palette_variations, "_drawn", _raises(MemoryError())),
            "Creating/storing variations failed: an internal error",
            "palette_variations",
            "retry",
        ),
        (
            lambda b, _: setattr(b.jobs, "concept_error", Refused("conflict")),
            "Storing concept failed: an internal error",
            "concept_storage",
            "retry",
        ),
        (
            lambda b, _: setattr(b.jobs, "concept_error", DataError("bad")),
            "Storing concept failed: an internal error",
            "concept_storage",
            "retry",
        ),
    ],
)
async def test_how_each_stage_fails(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[Bench, pytest.MonkeyPatch], None],
    message: str,
    stage: str,
    outcome: str,
) -> None:
    """The user reads which stage failed, and a sentence without secrets; no concept is left."""
    break_it(bench, monkeypatch)
    settled = await bench.run()
    assert (settled["outcome"], settled["error_message"]) == (outcome, message)
    assert settled["error"]["stage"] == stage
    assert next(s for s in settled["stages"] if s["name"] == stage)["status"] == "failed"
    assert bench.jobs.concepts == []


async def test_a_retry_does_not_pay_again(bench: Bench) -> None:
    """Whatever failed after the base image was stored: the next run finds it."""
    bench.pictures.fails = _from(1, RuntimeError("x"))
    assert (await bench.run())["outcome"] == "retry"
    bench.pictures.fails = lambda _: None
    first = bench.images[0].path
    settled = await bench.run()
    assert settled["outcome"] == "completed"
    assert settled["output"]["image_path"] == first
    assert len(bench.model.asked) == 1
    assert settled["output"]["variations"][0]["width"] == 256
    assert bench.jobs.concepts[0]["concept"]["details"]["provider"] == "scripted"


@pytest.mark.parametrize("damage", ["gone", "truncated"])
async def test_a_stored_base_image_of_no_use_is_drawn_again(bench: Bench, damage: str) -> None:
    """Somebody cleaned up, or a disk broke: another run asks the provider instead of giving up."""
    bench.pictures.fails = _from(1, RuntimeError("x"))
    await bench.run()
    bench.pictures.fails = lambda _: None
    file = bench.pictures.local._root / bench.images[0].path
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    settled = await bench.run()
    assert settled["outcome"] == "completed"
    assert len(bench.model.asked) == 2
    assert decode(await bench.pictures.get(settled["output"]["image_path"])).size == (256, 256)


async def test_a_base_image_that_is_being_removed_is_drawn_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job failed an hour ago and runs again in that moment: the new row would name nothing."""
    bench.pictures.fails = _from(1, RuntimeError("x"))
    await bench.run()
    bench.pictures.fails = lambda _: None
    path, register = bench.images[0].path, bench.jobs.register_file
    bench.jobs.files.clear()

    async def removed_first(job: str, run: int, wanted: str) -> bool:
        if path not in bench.jobs.files:  # it is waited for, by whoever says that it is needed
            await bench.pictures.delete([path])
        return await register(job, run, wanted)

    monkeypatch.setattr(bench.jobs, "register_file", removed_first)
    settled = await bench.run()
    assert settled["outcome"] == "completed"
    assert await bench.pictures.get(settled["output"]["image_path"])


async def test_a_changed_input_gets_its_own_picture(bench: Bench) -> None:
    """A hand changes what is asked and queues the job again: the old picture is not what it asks."""
    bench.pictures.fails = _from(1, RuntimeError("x"))
    await bench.run()
    bench.pictures.fails = lambda _: None
    bench.jobs.input["logo_description"] = "a whale"
    assert (await bench.run())["outcome"] == "completed"
    assert [asked["subject"] for asked in bench.model.asked] == ["a fox", "a whale"]


async def test_the_limits_are_the_operators(bench: Bench) -> None:
    """A picture of more pixels than the settings allow is refused before it is decoded."""
    bench.limits = Limits(pixels=255 * 255)
    settled = await bench.run()
    assert "pixels" in settled["error_message"]


async def test_cancelled_at_any_event(tmp_path: Path) -> None:
    """Wherever it is stopped: it ends as cancelled, writes nothing more, and the next run succeeds."""
    position = 0
    while True:
        bench = Bench(MemoryJobs(ASKED), Pictures(tmp_path / str(position)), Model())
        await _stop_at(bench, position, lambda b=bench: b.runner.cancel(JOB))  # type: ignore[misc]
        settled = bench.jobs.settled[-1]
        if settled["outcome"] == "completed":
            break  # past the last moment at which it can be stopped
        assert settled["outcome"] == "cancelled"
        assert bench.jobs.concepts == []
        assert bench.types[-1] == "job.cancelled"
        assert "failed" not in {s["status"] for s in settled["stages"]}
        paid, saved = len(bench.model.asked), "base_image" in bench.jobs.checkpoints
        bench.on_event = lambda _: None
        assert (await bench.run())["outcome"] == "completed"
        assert len(bench.model.asked) == paid + (not saved)
        await bench.pictures.close()
        position += 1
    await bench.pictures.close()
    assert position >= 12, "the events at which it was stopped"


async def test_interrupted_at_any_event(tmp_path: Path) -> None:
    """A deploy at any moment: the job is queued again, and nothing of it is written."""
    for position in range(0, 14, 2):
        bench = Bench(MemoryJobs(ASKED), Pictures(tmp_path / str(position)), Model())
        await _stop_at(bench, position, bench.runner.interrupt)
        assert bench.jobs.settled[-1]["outcome"] == "interrupted"
        assert bench.jobs.concepts == []
        await bench.pictures.close()


async def _stop_at(bench: Bench, position: int, stop: Callable[[], object]) -> None:
    """Run until event number ``position``, and stop there."""

    def count(_: Event) -> None:
        if len(bench.told) == position + 1:
            # Not inside of the emit: whoever stops a job is another task.
            asyncio.get_running_loop().call_soon(stop)

    bench.on_event = count
    before = asyncio.all_tasks()
    await bench.run()
    assert asyncio.all_tasks() == before, "a task outlives its run"


async def test_a_lease_lost_at_the_checkpoint_ends_it_there(bench: Bench) -> None:
    """Another worker has the job: nothing more is stored, told or settled."""
    bench.jobs.loses_at_checkpoint = True
    await bench.runner.run(JOB, 1)
    assert bench.jobs.settled == []
    assert bench.jobs.concepts == []
    assert bench.images == []
    assert bench.pictures.puts == 1
    finished = [e for _, e in bench.told if isinstance(e, StageFinished)]
    assert "failed" not in {event.status for event in finished}


async def test_a_lease_lost_at_the_concept_stores_none(bench: Bench) -> None:
    """The last write is fenced too, and its run ends without a word."""

    def lose(event: Event) -> None:
        if getattr(event, "stage", "") == "concept_storage":
            bench.jobs.held = False

    bench.on_event = lose
    await bench.runner.run(JOB, 1)
    assert bench.jobs.settled == []
    assert bench.jobs.concepts == []
    assert "job.completed" not in bench.types


async def test_a_database_that_goes_away_while_the_concept_is_stored(bench: Bench) -> None:
    """All the work is done: the write is repeated until the database is back, no attempt burns."""
    bench.jobs.concept_error = Unavailable("connection refused")

    def comes_back(event: Event) -> None:
        if getattr(event, "stage", "") == "concept_storage":
            asyncio.get_running_loop().call_later(0.1, setattr, bench.jobs, "concept_error", None)

    bench.on_event = comes_back
    assert (await bench.run())["outcome"] == "completed"
    assert len(bench.jobs.concepts) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"logo_description": "x", "theme_description": "y"},
        {"logo_description": "ä" * 2000, "theme_description": "語" * 2000},
        {"logo_description": "🦊 a fox 👨‍👩‍👧", "theme_description": "🍂🔥 \u202e autumn"},
        {"num_palettes": 1},
        {"num_palettes": 12},
        {"size": 257, "style": "", "seed": 0},
        {"style": "s" * 200, "seed": 2**31 - 1},
    ],
)
async def test_inputs_at_their_limits(tmp_path: Path, changed: dict[str, Any]) -> None:
    """What the schema allows, the real provider and every stage can do."""
    jobs = MemoryJobs(ASKED | changed)
    bench = Bench(jobs, Pictures(tmp_path), LocalImageModel())
    settled = await bench.run()
    assert settled["outcome"] == "completed", settled
    variations = settled["output"]["variations"]
    assert len(variations) == jobs.input["num_palettes"]
    assert len({v["image_path"] for v in variations}) == len(variations)
    assert settled["output"]["width"] == jobs.input["size"]
    await bench.pictures.close()


async def test_the_largest_picture(tmp_path: Path) -> None:
    """2048 pixels a side, in two palettes."""
    jobs = MemoryJobs(ASKED | {"size": 2048, "num_palettes": 2})
    bench = Bench(jobs, Pictures(tmp_path), LocalImageModel())
    assert (await bench.run())["output"]["width"] == 2048
    await bench.pictures.close()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"logo_description": ""}, "logo_description"),
        ({"logo_description": "  \n "}, "logo_description"),
        ({"logo_description": "x" * 2001}, "logo_description"),
        ({"theme_description": None}, "theme_description"),
        ({"num_palettes": 0}, "num_palettes"),
        ({"num_palettes": 13}, "num_palettes"),
        ({"num_palettes": "many"}, "num_palettes"),
        ({"size": 255}, "size"),
        ({"size": 2049}, "size"),
        ({"size": 1e308}, "size"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"style": "x" * 201}, "style"),
        ({"user_id": USER}, "user_id"),
        ({"image_path": "../../etc/passwd"}, "image_path"),
    ],
)
async def test_inputs_beyond_them(bench: Bench, changed: dict[str, Any], field: str) -> None:
    """What is too much, too little or unknown fails at once, names the field and asks nobody."""
    bench.jobs.input |= changed
    settled = await bench.run()
    assert (settled["outcome"], settled["error"]["code"]) == ("failed", "invalid_input")
    assert settled["error_message"].startswith(f"Invalid input: {field}")
    assert bench.model.asked == []


def test_no_field_of_the_input_names_a_row_or_a_file() -> None:
    """A generation cannot be pointed at another user's data; a field that could needs its test."""
    assert set(GenerationInput.model_fields) == {
        "logo_description",
        "theme_description",
        "num_palettes",
        "size",
        "style",
        "seed",
    }
    with pytest.raises(ValidationError):
        GenerationInput.model_validate({**ASKED, "concept_id": USER})


@pytest.mark.parametrize(
    "path",
    [
        f"{USER[:-1]}9/{'0' * 64}.png",
        f"{USER}/../{USER[:-1]}9/{'0' * 64}.png",
        f"{USER}//{'0' * 64}.png",
        f"{USER}%2f{'0' * 64}.png",
        f"{USER}/{'0' * 64}.png\0",
        f"{USER}/{'0' * 64}.png\n",
        f"/{USER}/{'0' * 64}.png",
        f"{USER}\\{'0' * 64}.png",
        f"{USER.upper()}/{'A' * 64}.png",
        "file:///etc/passwd",
        "",
    ],
)
async def test_a_checkpoint_never_leads_to_another_users_picture(bench: Bench, path: str) -> None:
    """A path that is not the job's user's is as good as missing, wherever it comes from."""
    file = bench.pictures.local._root / f"{USER[:-1]}9" / f"{'0' * 64}.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(picture())
    await bench.run()  # for a checkpoint that is true but for its path
    bench.jobs.held, bench.jobs.run = False, 2
    assert len(bench.model.asked) == 1
    bench.jobs.checkpoints["base_image"] |= {
        "path": path,
        "provider": "theirs",
        "model": "theirs-1",
        "seed": 1,
    }
    settled = await bench.run()
    assert settled["outcome"] == "completed"
    assert len(bench.model.asked) == 2
    assert settled["output"]["image_path"].startswith(f"{USER}/")
