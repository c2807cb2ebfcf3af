"""The refinement, stage by stage: where originals come from, what is preserved, how failures read."""

from __future__ import annotations

import asyncio
import io
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from executors import errors
from executors.events import Event, JobProgress
from executors.imaging.codec import Decoders, Limits, decode
from executors.providers.base import GeneratedImage
from executors.providers.offline.images import LocalImageModel
from executors.refinement import RefinementInput
from executors.stages.concept_storage import concept_id_of
from repositories.errors import DataError, PictureRefused, Refused
from repositories.images import is_image_path
from tests.executors.bench import JOB, USER, Bench, MemoryJobs, Model, Pictures, picture
from tests.executors.fetching.internet import Internet, plain
from tests.executors.imaging.bombs import BOMBS, progressive
from tests.executors.imaging.processes import begun, children, is_alive, until

CONCEPT = str(uuid.UUID(int=21))
PALETTES = [
    ("Night", ["#0b132b", "#1c2541", "#5bc0be", "#f6f7eb"]),
    ("Day", ["#3d2c1e", "#b5482a", "#f2a516", "#fff6e0"]),
]
ASKED = {"concept_id": CONCEPT, "refinement_prompt": "warmer, with a shadow", "seed": 5}


def concept(**changed: Any) -> dict[str, Any]:
    """The row of the original."""
    return {
        "id": CONCEPT,
        "user_id": USER,
        "logo_description": "a fox",
        "theme_description": "autumn forest",
        "image_path": "",
        "width": 256,
        "height": 256,
        "parent_id": None,
        "job_id": None,
        "details": {},
        "created_at": "2026-01-01T00:00:00+00:00",
        **changed,
    }


def variation(position: int, name: str, palette: list[str]) -> dict[str, Any]:
    """The row of one of its variations."""
    return {
        "id": str(uuid.uuid4()),
        "concept_id": CONCEPT,
        "user_id": USER,
        "position": position,
        "name": name,
        "palette": palette,
        "image_path": "x",
        "width": 256,
        "height": 256,
    }


async def refinement(
    folder: Path, model: Any = None, *, original: bytes | None = None, **changed: Any
) -> Bench:
    """A refinement of a stored concept with two palettes."""
    bench = Bench(MemoryJobs(ASKED | changed, "refinement"), Pictures(folder), model or Model())
    stored = await bench.pictures.local.put(USER, original or picture(), "image/png")
    bench.jobs.rows["concepts"] = [concept(image_path=stored.path)]
    bench.jobs.rows["concept_variations"] = [
        variation(at, name, colours) for at, (name, colours) in enumerate(PALETTES)
    ]
    return bench


TOO_LARGE = "the storage does not take a picture that is so large, or of this kind."


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """The same, with a scripted model."""
    bench = await refinement(tmp_path / "images")
    yield bench
    await bench.pictures.close()


def instead_of_the_concept(bench: Bench, **source: str) -> None:
    """The input names another original."""
    del bench.jobs.input["concept_id"]
    bench.jobs.input |= source


# --- what it makes -------------------------------------------------------------------------------


async def test_a_concept_that_remembers_its_original(bench: Bench) -> None:
    """Stored and announced; descriptions and palettes are preserved, the prompt is recorded."""
    settled = await bench.run()
    assert settled["outcome"] == "completed", settled
    assert settled["result_id"] == concept_id_of(JOB)
    output = settled["output"]
    assert (output["concept_id"], output["parent_id"]) == (concept_id_of(JOB), CONCEPT)
    assert output["operations"] == ["polished"]
    assert output["variations"] == []
    assert is_image_path(output["image_path"])
    assert decode(await bench.pictures.get(output["image_path"])).size == (256, 256)
    (stored,) = bench.jobs.concepts
    row = stored["concept"]
    assert (row["parent_id"], row["image_path"]) == (CONCEPT, output["image_path"])
    assert (row["logo_description"], row["theme_description"]) == ("a fox", "autumn forest")
    assert row["details"] == {
        "provider": "scripted",
        "model": "scripted-1",
        "seed": 5,
        "palettes": {
            "source": "original",
            "preserved": [{"name": name, "colours": colours} for name, colours in PALETTES],
        },
        "refinement": {
            "prompt": "warmer, with a shadow",
            "strength": None,
            "provider": "scripted",
            "model": "scripted-1",
            "operations": ["polished"],
        },
    }
    assert stored["variations"] == []
    (told,) = bench.images
    assert (told.kind, told.path) == ("base", output["image_path"])


async def test_what_the_model_is_asked(bench: Bench) -> None:
    """The original as a PNG of its size, the prompt as it was written, and how strongly."""
    bench.jobs.input["strength"] = 0.3
    await bench.run()
    (asked,) = bench.model.asked
    original = asked.pop("original")
    assert original.startswith(b"\x89PNG")
    assert decode(original).tobytes() == decode(picture()).tobytes()
    request = asked.pop("request")
    assert request.id is None
    assert asked == {
        "prompt": "warmer, with a shadow",
        "width": 256,
        "height": 256,
        "strength": 0.3,
        "seed": 5,
    }


async def test_nothing_of_a_file_but_its_pixels_goes_to_a_vendor(tmp_path: Path) -> None:
    """No metadata, nothing that was appended to it."""
    file = io.BytesIO()
    info = Image.Exif()
    info[0x010E] = "taken at home"
    decode(picture()).save(file, "PNG", exif=info)
    bench = await refinement(tmp_path, original=file.getvalue() + b"a secret")
    await bench.run()
    sent = bench.model.asked[0]["original"]
    assert b"taken at home" not in sent
    assert b"a secret" not in sent
    await bench.pictures.close()


async def test_every_stage_is_timed_and_told(bench: Bench) -> None:
    """Four stages in order, their labels for people, and progress that ends at the end."""
    settled = await bench.run()
    assert [(s["name"], s["label"]) for s in settled["stages"]] == [
        ("original_image", "Loading the original"),
        ("image_refinement", "Refining the image"),
        ("refined_image_storage", "Storing refined image"),
        ("concept_storage", "Storing concept"),
    ]
    fractions = [e.fraction for _, e in bench.told if isinstance(e, JobProgress)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    bench.jobs.input["num_palettes"] = 2
    bench.told.clear()
    await bench.run()
    assert [e.fraction for _, e in bench.told if isinstance(e, JobProgress)][-1] == pytest.approx(
        0.95
    )


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_variations_on_request(bench: Bench, count: int) -> None:
    """In the original's palettes first, in their order, then in new ones for its theme."""
    bench.jobs.input["num_palettes"] = count
    settled = await bench.run()
    made = settled["output"]["variations"]
    assert [(v["name"], v["palette"]) for v in made][:2] == PALETTES[:count]
    assert len({tuple(v["palette"]) for v in made}) == len(made) == count
    assert len({v["name"] for v in made}) == count
    (stored,) = bench.jobs.concepts
    assert [v["palette"] for v in stored["variations"]] == [v["palette"] for v in made]
    told = stored["concept"]["details"]["palettes"]
    assert len(told["preserved"]) == 2, "also those that were not asked for"
    assert told.get("added") == ({"source": "harmony"} if count > 2 else None)
    assert sorted((i.kind, i.index) for i in bench.images) == sorted(
        [("base", 0), *(("variation", at) for at in range(count))]
    )


async def test_palettes_are_preserved_over_generations(bench: Bench) -> None:
    """A refined concept without variations hands on the palettes that it was given."""
    preserved = [{"name": name, "colours": colours} for name, colours in PALETTES]
    bench.jobs.rows["concept_variations"] = []
    bench.jobs.rows["concepts"][0]["details"] = {"palettes": {"preserved": preserved}}
    bench.jobs.input["num_palettes"] = 2
    settled = await bench.run()
    assert [v["name"] for v in settled["output"]["variations"]] == ["Night", "Day"]
    assert bench.jobs.concepts[0]["concept"]["details"]["palettes"]["preserved"] == preserved


async def test_palettes_older_than_the_rules(bench: Bench) -> None:
    """Preserved as they are; a variation in them would be refused today, so it gets another."""
    bench.jobs.rows["concept_variations"] = [variation(0, "Grey", ["#777777", "#777778"])]
    bench.jobs.rows["concepts"][0]["details"] = {"palettes": "harmony"}
    bench.jobs.input["num_palettes"] = 1
    settled = await bench.run()
    assert settled["outcome"] == "completed", settled
    assert settled["output"]["variations"][0]["name"] != "Grey"
    details = bench.jobs.concepts[0]["concept"]["details"]
    assert details["palettes"]["preserved"] == [{"name": "Grey", "colours": ["#777777", "#777778"]}]


# --- where originals come from -------------------------------------------------------------------


async def test_a_stored_picture(bench: Bench) -> None:
    """By its path: then the prompt describes it, or what the user says."""
    path = bench.jobs.rows["concepts"][0]["image_path"]
    instead_of_the_concept(bench, image_path=path)
    await bench.run()
    described = {"logo_description": "a whale", "theme_description": "sea"}
    bench.jobs.input |= described | {"num_palettes": 1}
    await bench.run()
    first, second = (stored["concept"] for stored in bench.jobs.concepts)
    assert first["parent_id"] is None
    assert first["logo_description"] == first["theme_description"] == "warmer, with a shadow"
    assert first["details"]["palettes"] == {}
    assert (second["logo_description"], second["theme_description"]) == ("a whale", "sea")
    assert second["details"]["palettes"] == {"source": "harmony"}


async def test_a_picture_on_the_internet(bench: Bench, internet: Internet) -> None:
    """Fetched through the guard, in any format that may be decoded."""
    file = io.BytesIO()
    Image.new("RGB", (300, 200), "#d7263d").save(file, "JPEG")
    internet.pages["/logo.jpg"] = plain(file.getvalue())
    bench.fetcher = internet.fetcher()
    instead_of_the_concept(bench, original_image_url=internet.url("/logo.jpg"))
    assert (await bench.run())["outcome"] == "completed"
    assert (bench.model.asked[0]["width"], bench.model.asked[0]["height"]) == (300, 200)
    await bench.fetcher.close()


@pytest.mark.parametrize(
    ("page", "sentence", "code"),
    [
        (None, "there is nothing at the address", "not_found"),
        (
            plain(b"<html>"),
            "the original cannot be used: the image is in none of the formats",
            "inv",
        ),
        (plain(b"x" * 3000), "the file at the address is larger than 2,000 bytes", "invalid_input"),
        (plain(b"", status="503 Away"), "answers with status 503", "provider_unavailable"),
        (
            plain(b"", "Location: file:///etc/passwd", status="302 Found"),
            "may not be fetched",
            "inv",
        ),
        (
            plain(b"", "Location: http://127.0.0.1/", status="302 Found"),
            "may not be fetched",
            "inv",
        ),
    ],
)
async def test_what_a_url_may_lead_to(
    bench: Bench, internet: Internet, page: bytes | None, sentence: str, code: str
) -> None:
    """The user reads what is wrong with it, and nothing about the network it was fetched from."""
    if page is not None:
        internet.pages["/x"] = page
    bench.fetcher, bench.limits = internet.fetcher(), Limits(bytes=2000)
    instead_of_the_concept(bench, original_image_url=internet.url("/x"))
    settled = await bench.run()
    assert settled["error_message"].startswith("Loading the original failed: ")
    assert sentence in settled["error_message"]
    assert settled["error"]["code"].startswith(code)
    assert settled["error"]["stage"] == "original_image"
    assert settled["outcome"] == ("retry" if code == "provider_unavailable" else "failed")
    assert bench.model.asked == []
    assert internet.intruders == 0
    await bench.fetcher.close()


@pytest.mark.parametrize(
    ("size", "sent"),
    [
        ((3000, 1500), (2048, 1024)),
        ((1500, 4096), (750, 2048)),
        ((16, 16), (16, 16)),
        ((8192, 20), (2048, 16)),
    ],
)
async def test_sizes_of_originals(
    tmp_path: Path, size: tuple[int, int], sent: tuple[int, int]
) -> None:
    """What is larger than a generation can be is made smaller first."""
    file = io.BytesIO()
    Image.new("RGB", size, "#d7263d").save(file, "PNG")
    bench = await refinement(tmp_path, original=file.getvalue())
    assert (await bench.run())["outcome"] == "completed"
    assert (bench.model.asked[0]["width"], bench.model.asked[0]["height"]) == sent
    await bench.pictures.close()


@pytest.mark.parametrize(
    ("original", "reason"),
    [
        (BOMBS["JPEG, 30 MB of nothing"](), "decoding the image takes more time than is allowed"),
        (progressive(64, 64, 500), "the JPEG has more than 100 scans"),
    ],
    ids=["time", "scans"],
)
async def test_an_original_that_is_a_bomb(tmp_path: Path, original: bytes, reason: str) -> None:
    """Its job fails with a sentence, is not tried again, and nobody is asked to refine it."""
    bench = await refinement(tmp_path, original=original)
    settled = await bench.run()
    assert (settled["outcome"], settled["error"]["code"]) == ("failed", "invalid_input")
    assert settled["error_message"] == (
        f"Loading the original failed: the original cannot be used: {reason}"
    )
    assert bench.model.asked == []
    await bench.pictures.close()


async def test_cancelled_while_the_original_is_decoded(tmp_path: Path) -> None:
    """The user's cancel ends the process that has it, whatever that is doing."""
    bench = await refinement(tmp_path, original=progressive(4096, 4096, 80, "RGB"))
    bench.limits, bench.decoders = Limits(seconds=60), Decoders(1)
    before = children(os.getpid())
    running = asyncio.create_task(bench.run())
    pid = await begun(bench.decoders, before)
    bench.runner.cancel(JOB)
    began = time.monotonic()
    assert (await running)["outcome"] == "cancelled"
    await until(lambda: not is_alive(pid))
    assert time.monotonic() - began < 0.5
    bench.decoders.close()
    await bench.pictures.close()


async def test_an_original_too_small(tmp_path: Path) -> None:
    """There is nothing in it to be refined."""
    file = io.BytesIO()
    Image.new("RGB", (15, 100), "#d7263d").save(file, "PNG")
    bench = await refinement(tmp_path, original=file.getvalue())
    settled = await bench.run()
    assert settled["error_message"].endswith("the original is smaller than 16 pixels a side")
    await bench.pictures.close()


# --- how it fails --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        (b"<html>502 Bad Gateway</html>", "retry", "provider_unavailable"),
        (picture()[: len(picture()) // 2], "retry", "provider_unavailable"),
        (progressive(64, 64, 500), "retry", "provider_unavailable"),
        (errors.ProviderRejected("the picture is not allowed."), "failed", "provider_rejected"),
        (errors.ProviderUnavailable(), "retry", "provider_unavailable"),
        (errors.RateLimited(30), "retry", "rate_limited"),
        (ZeroDivisionError("/home/secret"), "retry", "internal_error"),
    ],
)
async def test_whatever_the_provider_does(
    bench: Bench, answer: bytes | Exception, outcome: str, code: str
) -> None:
    """The job ends, names the stage, stores nothing."""
    bench.model.answer = answer
    settled = await bench.run()
    assert (settled["outcome"], settled["error"]["code"]) == (outcome, code)
    assert settled["error_message"].startswith("Refining the image failed: ")
    assert "secret" not in str(settled)
    assert bench.pictures.puts == 0
    assert bench.jobs.concepts == []


@pytest.mark.parametrize(
    ("break_it", "message", "outcome"),
    [
        (
            lambda b: b.jobs.rows["concepts"].clear(),
            "Loading the original failed: What the input refers to does not exist.",
            "failed",
        ),
        (
            lambda b: b.jobs.rows["concepts"][0].update(image_path=f"{USER}/{'0' * 64}.png"),
            "Loading the original failed: What the input refers to does not exist.",
            "failed",
        ),
        (
            lambda b: setattr(b.pictures, "fails", lambda _: PictureRefused("/srv")),
            f"Storing refined image failed: {TOO_LARGE}",
            "failed",
        ),
        (
            lambda b: setattr(b.pictures, "fails", lambda n: RuntimeError("x") if n else None),
            "Creating/storing variations failed: an internal error",
            "retry",
        ),
        (
            lambda b: setattr(b.jobs, "concept_error", Refused("conflict")),
            "Storing concept failed: an internal error",
            "retry",
        ),
        (
            lambda b: setattr(b.jobs, "concept_error", DataError("bad")),
            "Storing concept failed: an internal error",
            "retry",
        ),
    ],
)
async def test_how_each_stage_fails(
    bench: Bench, break_it: Callable[[Bench], None], message: str, outcome: str
) -> None:
    """The user reads which stage failed, and a sentence without secrets; no concept is left."""
    bench.jobs.input["num_palettes"] = 2
    break_it(bench)
    settled = await bench.run()
    assert (settled["outcome"], settled["error_message"]) == (outcome, message)
    assert settled["stages"][-1]["status"] == "failed"
    assert bench.jobs.concepts == []


# --- again ---------------------------------------------------------------------------------------


async def test_a_retry_does_not_pay_again(bench: Bench) -> None:
    """Whatever failed after the refined image was stored: the next run finds it, and the rest."""
    bench.jobs.concept_error = DataError("bad")
    assert (await bench.run())["outcome"] == "retry"
    bench.jobs.concept_error = None
    settled = await bench.run()
    assert settled["outcome"] == "completed"
    assert len(bench.model.asked) == 1
    assert settled["output"]["operations"] == ["polished"]
    assert [s["name"] for s in settled["stages"]][:2] == ["original_image", "image_refinement"]
    assert bench.jobs.concepts[0]["concept"]["details"]["refinement"]["provider"] == "scripted"


async def test_what_is_stored_needs_no_original_any_more(bench: Bench) -> None:
    """The original goes away between two runs: its refinement is finished, without a parent."""
    bench.jobs.concept_error = DataError("bad")
    await bench.run()
    bench.jobs.concept_error = None
    bench.jobs.rows["concepts"].clear()
    settled = await bench.run()
    assert settled["outcome"] == "completed", settled
    assert settled["output"]["parent_id"] is None
    assert [w["code"] for w in settled["output"]["warnings"]] == ["parent_missing"]
    row = bench.jobs.concepts[0]["concept"]
    assert (row["parent_id"], row["logo_description"]) == (None, "a fox")
    assert len(row["details"]["palettes"]["preserved"]) == 2


@pytest.mark.parametrize("damage", ["gone", "truncated"])
async def test_a_stored_image_of_no_use_is_made_again(bench: Bench, damage: str) -> None:
    """Somebody cleaned up, or a disk broke: another run asks the provider instead of giving up."""
    bench.model.answer = picture(300)  # or it would be the original's file
    bench.jobs.concept_error = DataError("bad")
    await bench.run()
    bench.jobs.concept_error = None
    file = bench.pictures.local._root / bench.images[0].path
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    assert (await bench.run())["outcome"] == "completed"
    assert len(bench.model.asked) == 2


@pytest.mark.parametrize(
    "changed", [{"refinement_prompt": "cooler"}, {"strength": 0.1}, {"seed": 6}]
)
async def test_a_changed_input_gets_its_own_image(bench: Bench, changed: dict[str, Any]) -> None:
    """A hand changes what is asked and queues the job again: the old image is not what it asks."""
    bench.jobs.concept_error = DataError("bad")
    await bench.run()
    bench.jobs.concept_error = None
    bench.jobs.input |= changed
    assert (await bench.run())["outcome"] == "completed"
    assert len(bench.model.asked) == 2


class Vendor(Model):
    """A model with requests: it keeps the id before it answers."""

    async def refine(self, **asked: Any) -> GeneratedImage:
        request = asked["request"]
        await request.save(request.id or f"request-{len(self.asked)}")
        request.report("second in the queue")
        return await self.generate(**asked)


async def test_a_vendors_request_is_resumed(tmp_path: Path) -> None:
    """Its id is kept before the result is there, and another run gets it; another prompt does not."""
    bench = await refinement(tmp_path, Vendor())
    bench.model.answer = errors.ProviderUnavailable()
    await bench.run()
    assert bench.jobs.checkpoints["refined_image_request"]["id"] == "request-0"
    await bench.run()
    bench.jobs.input["refinement_prompt"] = "cooler"
    bench.model.answer = picture()
    await bench.run()
    assert [asked["request"].id for asked in bench.model.asked] == [None, "request-0", None]
    messages = [e.message for _, e in bench.told if isinstance(e, JobProgress)]
    assert "second in the queue" in messages
    await bench.pictures.close()


async def test_a_request_that_answers_rubbish_is_not_resumed(tmp_path: Path) -> None:
    """It would answer with the same for ever."""
    bench = await refinement(tmp_path, Vendor())
    bench.model.answer = b"rubbish"
    await bench.run()
    bench.model.answer = picture()
    assert (await bench.run())["outcome"] == "completed"
    assert [asked["request"].id for asked in bench.model.asked] == [None, None]
    await bench.pictures.close()


class Waits(Model):
    """A model whose answer takes for ever: it notes what it is to do with its request when stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[bool] = []

    async def refine(self, **asked: Any) -> GeneratedImage:
        asked["request"].report("second in the queue")
        try:
            await asyncio.Event().wait()
            raise AssertionError
        finally:
            self.left.append(asked["request"].comes_back())


@pytest.mark.parametrize("interrupted", [True, False])
async def test_a_deploy_leaves_the_request_and_a_cancel_does_not(
    tmp_path: Path, interrupted: bool
) -> None:
    """The next run redeems what this one has paid for; nobody redeems what the user cancels."""
    model = Waits()
    bench = await refinement(tmp_path, model)

    def stop(event: Event) -> None:
        if isinstance(event, JobProgress) and event.message == "second in the queue":
            if interrupted:
                bench.runner.interrupt()
            else:
                bench.runner.cancel(JOB)

    bench.on_event = stop
    await bench.run()
    assert model.left == [interrupted]
    await bench.pictures.close()


async def test_a_lease_lost_before_the_vendor_answers(tmp_path: Path) -> None:
    """Another worker has the job: nothing more is paid for, stored, told or settled."""
    bench = await refinement(tmp_path, Vendor())
    bench.jobs.loses_at_checkpoint = True
    await bench.runner.run(JOB, 1)
    assert (bench.jobs.settled, bench.jobs.concepts, bench.model.asked) == ([], [], [])
    assert bench.pictures.puts == 0
    await bench.pictures.close()


async def _stop_at(bench: Bench, position: int, stop: Callable[[], object]) -> None:
    """Run until event number ``position``, and stop there."""

    def count(_: Event) -> None:
        if len(bench.told) == position + 1:
            asyncio.get_running_loop().call_soon(stop)

    bench.on_event = count
    before = asyncio.all_tasks()
    await bench.run()
    assert asyncio.all_tasks() == before, "a task outlives its run"


async def test_cancelled_at_any_event(tmp_path: Path) -> None:
    """Wherever it is stopped: it ends as cancelled, writes nothing more, and the next run succeeds."""
    position = 0
    while True:
        bench = await refinement(tmp_path / str(position), num_palettes=1)
        await _stop_at(bench, position, lambda b=bench: b.runner.cancel(JOB))  # type: ignore[misc]
        settled = bench.jobs.settled[-1]
        await bench.pictures.close()
        if settled["outcome"] == "completed":
            break  # past the last moment at which it can be stopped
        assert settled["outcome"] == "cancelled"
        assert bench.jobs.concepts == []
        assert bench.types[-1] == "job.cancelled"
        assert "failed" not in {s["status"] for s in settled["stages"]}
        position += 1
    assert position >= 12, "the events at which it was stopped"


async def test_interrupted_at_any_event(tmp_path: Path) -> None:
    """A deploy at any moment: the job is queued again, nothing of it is written, and it is finished."""
    for position in range(0, 12, 2):
        bench = await refinement(tmp_path / str(position))
        await _stop_at(bench, position, bench.runner.interrupt)
        assert bench.jobs.settled[-1]["outcome"] == "interrupted"
        assert bench.jobs.concepts == []
        paid, saved = len(bench.model.asked), "refined_image" in bench.jobs.checkpoints
        bench.on_event = lambda _: None
        assert (await bench.run())["outcome"] == "completed"
        assert len(bench.model.asked) == paid + (not saved)
        await bench.pictures.close()


# --- inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"refinement_prompt": "x"},
        {"refinement_prompt": "語" * 2000, "strength": 0},
        {"refinement_prompt": "🦊 👨‍👩‍👧 \u202e", "strength": 1, "seed": 2**31 - 1},
        {"refinement_prompt": 'add the text "Grüße"', "num_palettes": 12},
        {"num_palettes": 0, "strength": None, "seed": None},
    ],
)
async def test_inputs_at_their_limits(tmp_path: Path, changed: dict[str, Any]) -> None:
    """What the schema allows, the real provider and every stage can do."""
    bench = await refinement(tmp_path, LocalImageModel(), **changed)
    settled = await bench.run()
    assert settled["outcome"] == "completed", settled
    assert settled["output"]["operations"]
    assert len(settled["output"]["variations"]) == changed.get("num_palettes", 0)
    await bench.pictures.close()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"refinement_prompt": ""}, "refinement_prompt"),
        ({"refinement_prompt": "x" * 2001}, "refinement_prompt"),
        ({"strength": 1.01}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"num_palettes": 13}, "num_palettes"),
        ({"seed": -1}, "seed"),
        ({"concept_id": "x" * 65}, "concept_id"),
        ({"concept_id": None}, "give exactly one of concept_id, image_path, original_image_url"),
        ({"image_path": "a/b.png"}, "give exactly one of"),
        ({"original_image_url": "https://a.b"}, "give exactly one of"),
        ({"logo_description": "a whale"}, "a concept keeps its own descriptions"),
        ({"size": 512}, "size"),
    ],
)
async def test_inputs_beyond_them(bench: Bench, changed: dict[str, Any], said: str) -> None:
    """What is too much, too little, unknown or contradictory fails at once and asks nobody."""
    bench.jobs.input |= changed
    settled = await bench.run()
    assert (settled["outcome"], settled["error"]["code"]) == ("failed", "invalid_input")
    assert settled["error_message"].startswith(f"Invalid input: {said}")
    assert bench.model.asked == []


def test_the_schema_says_that_there_is_one_original() -> None:
    """Whoever checks an input by its schema refuses what the worker would."""
    rule = RefinementInput.model_json_schema()["oneOf"]
    assert [option["required"] for option in rule] == [
        ["concept_id"],
        ["image_path"],
        ["original_image_url"],
    ]
