"""An image store that is away is waited for, on both stores: nothing is lost, paid twice or burned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from executors.errors import StorageUnavailable
from executors.generation import GenerationExecutor
from executors.refinement import RefinementExecutor
from repositories import outages
from repositories.errors import Misconfigured, PictureRefused, StoreAway, Unavailable
from repositories.images import ImageStore
from repositories.local import LocalImages
from repositories.outages import Outage, StoreRetries
from repositories.supabase import SupabaseImages, connect_supabase
from tests.executors.bench import Bench, MemoryJobs, Model, Pictures
from tests.executors.test_generation import ASKED

#: So long may a job run here, instead of five minutes. The longest outage below is longer by as much
#: as the job can bear in real time: what is beyond one deadline is the same again.
DEADLINE = 1.5


@dataclass
class Shop:
    """A generation on one of the stores, and how to take that away."""

    bench: Bench
    away: Callable[[], object]
    back: Callable[[], object]


@dataclass
class Place:
    """A store, and how to take it away."""

    open: Callable[[AsyncExitStack], ImageStore]
    away: Callable[[], object]
    back: Callable[[], object]


@pytest.fixture(params=["local", pytest.param("supabase", marks=pytest.mark.database)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Each of the two stores."""
    if request.param == "local":
        return _drive(tmp_path)
    platform = request.getfixturevalue("platform")

    def open_(stack: AsyncExitStack) -> ImageStore:
        client = connect_supabase(platform.url, platform.secret_key)
        stack.push_async_callback(client.close)
        return SupabaseImages(client, timeout=0.5)

    faults = platform.faults
    return Place(open_, lambda: faults.down("storage"), lambda: faults.up("storage"))


@pytest.fixture
async def shop(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shop]:
    """Deadlines and pauses are as much shorter as the outages are."""
    monkeypatch.setattr(outages, "_LONGEST", 0.05)
    monkeypatch.setattr(outages, "_FIRST", 0.02)
    for executor in (GenerationExecutor, RefinementExecutor):
        monkeypatch.setattr(executor, "timeout", timedelta(seconds=DEADLINE))
    async with AsyncExitStack() as stack:
        store = place.open(stack)
        stack.push_async_callback(store.close)
        asked = {**ASKED, "num_palettes": 2}
        bench = Bench(MemoryJobs(asked), Pictures(tmp_path / "unused"), Model())
        bench.pictures.local = store  # type: ignore[assignment]
        yield Shop(bench, place.away, place.back)


def _drive(folder: Path) -> Place:
    place, elsewhere = folder / "images", folder / "unmounted"
    place.mkdir()
    store = LocalImages(place)
    store._device = place.stat().st_dev  # as if something had been stored before
    return Place(lambda _: store, lambda: place.rename(elsewhere), lambda: elsewhere.rename(place))


async def until_ended(bench: Bench) -> list[dict[str, Any]]:
    """Every settlement of the job; a run that is given back comes back a moment later."""
    settled = [await bench.run()]
    while settled[-1]["outcome"] in ("retry", "interrupted"):
        await asyncio.sleep(0.05)
        settled.append(await bench.run())
    return settled


@pytest.mark.parametrize("outage", [0.03, 0.3, 1.5 * DEADLINE], ids=["6 s", "60 s", "20 min"])
async def test_whatever_an_outage_takes(shop: Shop, outage: float) -> None:
    """No job is lost, no attempt burned, nothing missing, and all of it is charged once."""
    shop.away()
    asyncio.get_running_loop().call_later(outage, shop.back)
    settled = await until_ended(shop.bench)
    assert settled[-1]["outcome"] == "completed"
    assert "warnings" not in settled[-1]["output"]
    assert len(settled[-1]["output"]["variations"]) == 2
    given_back = settled[:-1]
    assert [item for item in given_back if item["burn"]] == []
    assert {item["error"]["code"] for item in given_back} <= {"storage_unavailable"}
    # Only a run that has begun before it was known asks the provider in vain.
    assert len(shop.bench.model.asked) <= 1 + outage / DEADLINE


async def test_it_goes_away_at_every_moment(shop: Shop) -> None:
    """After each event in turn, for a while: the job completes in that run, whole."""
    position = 0
    while position < 40:
        bench = shop.bench
        bench.begin(MemoryJobs({**ASKED, "num_palettes": 2}))
        bench.told.clear()
        seen = 0

        def strike(_: object, position: int = position) -> None:
            nonlocal seen
            if seen == position:
                shop.away()
                asyncio.get_running_loop().call_later(0.1, shop.back)
            seen += 1

        bench.on_event = strike
        settled = await bench.run()
        assert settled["outcome"] == "completed", (position, settled)
        assert "warnings" not in settled["output"]
        await asyncio.sleep(0.12)
        position = position + 5 if seen > position else 40


async def test_a_shutdown_while_it_is_away(shop: Shop) -> None:
    """The job is given back at once, and burns nothing."""
    shop.away()
    running = asyncio.ensure_future(shop.bench.run())
    await asyncio.sleep(0.5)
    shop.bench.runner.interrupt()
    assert (await running)["outcome"] == "interrupted"
    shop.back()
    assert (await until_ended(shop.bench))[-1]["outcome"] == "completed"


async def test_a_cancellation_while_it_is_away(shop: Shop) -> None:
    """… ends the job, which is not charged for what nobody got."""
    shop.away()
    running = asyncio.ensure_future(shop.bench.run())
    await asyncio.sleep(0.5)
    shop.bench.runner.cancel("00000000-0000-0000-0000-000000000008")
    settled = await running
    shop.back()
    assert (settled["outcome"], settled["charge"]) == ("cancelled", 0.0)


async def test_who_waits_says_so(
    shop: Shop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the job's progress, for its user; in the log one line for each change, for the operator."""
    shop.away()
    monkeypatch.setattr(outages, "_REMARKABLE", 0.1)
    asyncio.get_running_loop().call_later(1.2, shop.back)
    with caplog.at_level(logging.INFO, "uvian.images"):
        await until_ended(shop.bench)
    said = [getattr(event, "message", None) for _, event in shop.bench.told]
    assert "Waiting for the storage of pictures" in said
    lines = [r.getMessage() for r in caplog.records if r.name == "uvian.images"]
    assert ["away" in line for line in lines] == [True, False]


async def test_a_refinement_waits_for_its_original(shop: Shop) -> None:
    """Reading is waited for as writing is: the original is not missing while the store is away."""
    await until_ended(shop.bench)
    path = shop.bench.images[0].path
    shop.bench.begin(MemoryJobs({"image_path": path, "refinement_prompt": "bluer"}, "refinement"))
    shop.away()
    asyncio.get_running_loop().call_later(0.3, shop.back)
    settled = await until_ended(shop.bench)
    assert settled[-1]["outcome"] == "completed"
    assert not [item for item in settled[:-1] if item["burn"]]


async def test_what_only_the_operator_can_mend(shop: Shop) -> None:
    """It is waited for as well, to the deadline; then an attempt burns, so that it ends some day."""
    shop.bench.pictures.fails = lambda _: Misconfigured("no bucket: make one")
    settled = await shop.bench.run()
    assert (settled["outcome"], settled["burn"]) == ("retry", True)
    assert settled["error"]["code"] == "storage_misconfigured"
    assert settled["error_message"] == (
        "The storage for pictures is not set up right; its operator has been told."
    )
    assert "bucket" not in str(settled)


async def test_a_picture_that_always_fails_is_no_outage(shop: Shop) -> None:
    """While the store serves others, a call that fails is to blame itself: an attempt burns."""
    shop.bench.pictures.fails = lambda n: Unavailable("timed out") if n >= 2 else None

    async def others() -> None:
        while True:
            shop.bench.outage.worked()
            await asyncio.sleep(0.001)

    noise = asyncio.ensure_future(others())
    settled = await shop.bench.run()
    noise.cancel()
    assert (settled["error"]["code"], settled["burn"]) == ("timeout", True)


async def test_lost_replies_lose_no_variation(shop: Shop) -> None:
    """Every third answer of the store is lost: the concept is whole, and nothing is stored twice."""
    shop.bench.pictures.fails = lambda n: Unavailable("reply lost") if n % 3 else None
    settled = await shop.bench.run()
    assert settled["outcome"] == "completed"
    assert "warnings" not in settled["output"]


class Clock:
    """Time that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_who_has_not_begun_comes_back_later() -> None:
    """While it is away one run at a time tries, later each time; the others are told when to come."""
    clock = Clock()
    outage = Outage(clock)
    outage.require()
    trials: list[float] = []
    told: list[float] = []
    outage.failed(Unavailable("away"))
    for _ in range(1200):  # twenty minutes
        try:
            outage.require()
        except StoreAway as away:
            told.append(away.retry_after)
        else:
            trials.append(clock.now - 100)
        clock.now += 1
    assert trials[:5] == [1, 2, 4, 8, 16]
    assert len(trials) < 50
    assert (min(told), max(told)) == (1, 30)
    assert max(b - a for a, b in pairwise(trials)) == 30
    outage.worked()
    outage.require()


async def test_an_answer_is_an_answer_also_when_it_is_no() -> None:
    """A picture that is refused is not sent again, and the store is known to be there."""
    retries = StoreRetries()
    retries.outage.failed(Unavailable("away"))
    asked = 0

    async def refuse() -> None:
        nonlocal asked
        asked += 1
        raise PictureRefused("too large")

    with pytest.raises(PictureRefused):
        await retries.call(refuse)
    assert asked == 1
    assert not retries.outage.is_away


def test_its_error_is_a_sentence() -> None:
    """For people, without a word about the machine."""
    assert str(StorageUnavailable()) == "the storage is not available at the moment."
