"""A line to the database that loses requests and replies: nothing is lost, and nothing is twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from executors.base import BaseExecutor, JobContext, JobInput, JobServices
from executors.errors import LeaseLost, ProviderRejected, ProviderUnavailable
from executors.events import TERMINAL_TYPES
from executors.registry import Registry
from executors.running.runner import Runner
from executors.stages.concept_storage import concept_id_of
from repositories.concepts import Concept, UserConcepts, Variation
from repositories.database import Database, Filter, Row
from repositories.errors import NotFound, StatementTooSlow
from repositories.jobs import JobRepository
from tests.executors.running.conftest import Bench, MemorySink
from tests.executors.running.faults import Fault, FaultyDatabase
from tests.lifecycle import invariants

pytestmark = pytest.mark.database


class PaintInput(JobInput):
    """How it shall end."""

    do: Literal["paint", "paint_again", "reject", "steal"] = "paint"


class PaintOutput(BaseModel):
    """What was painted."""

    result_id: str


class Painter(BaseExecutor[PaintInput, PaintOutput]):
    """A small generation: pays, checkpoints what it paid for, stores a concept."""

    type = "painting"
    Input = PaintInput
    Output = PaintOutput
    max_attempts = 2

    def __init__(self) -> None:
        self.paid: Counter[str] = Counter()

    async def execute(self, job: JobContext[PaintInput]) -> PaintOutput:
        if "bought" not in job.checkpoints:
            self.paid[job.job.id] += 1
            await job.checkpoint(bought=True)
            if job.input.do == "paint_again":
                raise ProviderUnavailable
        if job.input.do == "reject":
            raise ProviderRejected
        concept_id = concept_id_of(job.job.id)
        stored = await job.services.concepts.store(
            Concept(concept_id, "a fox", "autumn", "x/y.png", 1, 1, job_id=job.job.id),
            [Variation(str(uuid.uuid4()), 0, "Dawn", ["#000000"], "x/z.png", 1, 1)],
            run=job.job.run,
        )
        if not stored:
            raise LeaseLost
        return PaintOutput(result_id=concept_id)


@dataclass
class Line:
    """A worker on a bad line to the database."""

    faulty: FaultyDatabase
    jobs: JobRepository
    runner: Runner
    painter: Painter
    sink: MemorySink
    user_id: str
    superuser_dsn: str

    async def create(self, *inputs: dict[str, Any]) -> list[str]:
        """Ids of queued jobs."""
        items = [{"user_id": self.user_id, "type": "painting", "input": i} for i in inputs]
        answer = await self.faulty.database.call("create_jobs", request={"jobs": items})
        return [made["job"]["id"] for made in answer["jobs"]]

    async def open_jobs(self) -> list[Row]:
        """Rows that have not ended."""
        return await self.faulty.database.select(
            "jobs", where=[Filter("status", "in", ["queued", "processing"])]
        )

    async def row(self, job_id: str) -> Row:
        """A job's row."""
        (row,) = await self.faulty.database.select("jobs", where=[Filter("id", "eq", job_id)])
        return row

    async def fetch(self, statement: str) -> list[Any]:
        """SQL as a superuser."""
        connection = await asyncpg.connect(self.superuser_dsn)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    async def lease_expires(self) -> None:
        """Every lease is over, and the sweep has been there."""
        await self.fetch("update uvian.sweeps set last_at = now(), hold_until = now()")
        await self.fetch("update uvian.job_leases set expires_at = now() - interval '1 min'")
        await self.faulty.database.call("sweep_jobs", request={})


@pytest.fixture
async def line(
    port: Database, superuser_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Line]:
    """A good line, until its script is set; jobs cost 1, and there is money for all of them."""
    faulty = FaultyDatabase(port, iter(()))
    jobs = JobRepository(faulty, "worker-1", lambda _: None)
    registry = Registry([Painter])
    await jobs.register("0.1.0", registry.descriptions())
    user_id = str(uuid.uuid4())
    sink = MemorySink()
    nothing: Any = None  # a painter uses none
    runner = Runner(
        jobs=jobs,
        registry=registry,
        sink=sink,
        services_of=lambda user: JobServices(
            concepts=UserConcepts(faulty, user, "worker-1"),
            images=nothing,
            image_model=nothing,
            conversations=nothing,
            messages=nothing,
            chat_model=nothing,
            fetcher=nothing,
        ),
        renew_every=0.2,
        stop_grace=0.2,
    )
    monkeypatch.setattr("executors.running.runner.FINAL_SETTLEMENT", 0.5)
    painter = registry.find("painting")
    assert isinstance(painter, Painter)
    line = Line(faulty, jobs, runner, painter, sink, user_id, superuser_dsn)
    await line.fetch(f"insert into auth.users (id) values ('{user_id}')")
    await port.insert("job_prices", [{"type": "painting", "amount": 1}])
    await port.call("grant_credits", user_id=user_id, amount="100000", reference="test")
    await runner.open()
    yield line
    faulty.script = iter(())
    await runner.close()
    await jobs.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batchers try again at once."""
    monkeypatch.setattr("uvian_common.batching.pause_before", lambda _, **__: 0.01)


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
@pytest.mark.usefixtures("hurried")
async def test_lost_requests_and_replies_cost_nothing(line: Line, seed: int) -> None:
    """Whatever call is lost on either way: each job ends once, is paid once, makes one concept."""
    dice = random.Random(seed)
    line.faulty.script = (dice.choices(list(Fault), (4, 1, 2, 1))[0] for _ in itertools.count())
    asked = ["paint", "paint_again", "reject"] * 4
    ids = await line.create(*({"do": do} for do in asked))
    while rows := await line.open_jobs():
        assert {row["status"] for row in rows} == {"queued"}, "a run ended and was not settled"
        await asyncio.gather(*(line.runner.run(row["id"], row["run"]) for row in rows))
    expected = {"paint": "completed", "paint_again": "completed", "reject": "failed"}
    for job_id, do in zip(ids, asked, strict=True):
        row = await line.row(job_id)
        assert (do, row["status"], row["attempt"]) == (do, expected[do], int(do != "paint"))
        endings = [
            e.type for ref, e in line.sink.told if ref.id == job_id and e.type in TERMINAL_TYPES
        ]
        assert endings == [f"job.{row['status']}"]
        assert line.painter.paid[job_id] == 1
    concepts = await line.fetch("select job_id::text, id::text from uvian.concepts")
    made = {row["job_id"]: row["id"] for row in concepts}
    wanted = {j for j, do in zip(ids, asked, strict=True) if do != "reject"}
    assert {job_id for job_id in ids if job_id in made} == wanted
    kinds = await line.fetch("select job_id::text, kind from uvian.credit_entries order by id")
    for job_id, do in zip(ids, asked, strict=True):
        books = [row["kind"] for row in kinds if row["job_id"] == job_id]
        assert books == ["reserve", "release" if do == "reject" else "charge"]
    for sentence, statement in invariants.INVARIANTS.items():
        assert not await line.fetch(statement), sentence


async def test_a_settlement_that_takes_long_keeps_its_lease(line: Line) -> None:
    """Work that is done is not done again because the database is slow to hear of it."""
    entered, gate = line.faulty.hold("settle_jobs")
    (job_id,) = await line.create({})
    work = asyncio.create_task(line.runner.run(job_id, 1))
    await entered.wait()
    await line.fetch("update uvian.job_leases set expires_at = now() - interval '1 s'")
    await line.runner.leases.renew()
    await line.fetch("update uvian.sweeps set last_at = now(), hold_until = now()")
    await line.faulty.database.call("sweep_jobs", request={})
    gate.set()
    await work
    row = await line.row(job_id)
    assert (row["status"], row["run"]) == ("completed", 1)


async def test_a_settlement_too_slow_for_the_server_is_tried_again(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement timeout under load does not throw away what was made and paid for."""
    batcher = line.jobs._batchers["settle"]
    settle, tries = batcher._send, iter([StatementTooSlow("canceling statement")])

    async def slow(items: Any) -> Any:
        if (error := next(tries, None)) is not None:
            raise error
        return await settle(items)

    monkeypatch.setattr(batcher, "_send", slow)
    (job_id,) = await line.create({})
    await line.runner.run(job_id, 1)
    assert (await line.row(job_id))["status"] == "completed"
    assert line.painter.paid[job_id] == 1


async def test_progress_the_database_refuses_costs_nobody_a_lease(line: Line, bench: Bench) -> None:
    """One job's message is not storable: all leases are renewed all the same."""
    del line
    bad, good = await bench.create(do="wait"), await bench.create(do="wait")
    works = [asyncio.create_task(bench.runner.run(job_id, 1)) for job_id in (bad, good)]
    while len(bench.scripted.contexts) < 2:
        await asyncio.sleep(0.01)
    context = next(c for c in bench.scripted.contexts if c.job.id == bad)
    context.track.stages.append({"name": "a\0b"})
    context.progress(0.5)
    await bench.execute("update uvian.job_leases set expires_at = now() - interval '1 s'")
    await bench.runner.leases.renew()
    await bench.execute("update uvian.sweeps set last_at = now(), hold_until = now()")
    await bench.database.call("sweep_jobs", request={})
    assert {(await bench.row(job_id))["status"] for job_id in (bad, good)} == {"processing"}
    context.track.stages.clear()
    bench.scripted.release.set()
    await asyncio.gather(*works)


async def test_a_message_is_made_storable_where_it_is_said(bench: Bench) -> None:
    """U+0000 and half a surrogate pair in a provider's words reach neither row nor event."""
    job_id = await bench.create(do="wait")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    bench.scripted.contexts[0].progress(0.5, "half\0way \ud83d")
    await bench.runner.leases.renew()
    assert (await bench.row(job_id))["progress_message"] == "halfway "
    bench.scripted.release.set()
    await work


async def test_a_renewal_that_hangs_is_given_up_in_time(line: Line) -> None:
    """One call that gets no answer does not cost the leases: the next one comes before they expire."""
    entered, _ = line.faulty.hold("renew_leases")
    await entered.wait()
    line.faulty.gates.clear()
    renewals = line.faulty.calls.count("renew_leases")
    async with asyncio.timeout(5):
        while line.faulty.calls.count("renew_leases") < renewals + 2:
            await asyncio.sleep(0.01)


async def test_a_worker_that_ends_does_not_wait_for_a_database_that_is_away(line: Line) -> None:
    """What cannot be settled is left to its lease; the process ends."""
    (job_id,) = await line.create({})
    line.faulty.script = itertools.repeat(Fault.REFUSED)
    work = asyncio.create_task(line.runner.run(job_id, 1))
    await asyncio.sleep(0)
    assert line.runner.active == 1
    async with asyncio.timeout(12):
        await line.runner.drain(grace=0)
        await work
    assert (await line.row(job_id))["status"] == "queued"


async def test_a_run_that_is_torn_down_twice_is_settled(bench: Bench) -> None:
    """Cancelling the caller again while it settles neither loses the run nor escapes."""
    job_id = await bench.create(do="wait")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    for _ in range(3):
        work.cancel()
        await asyncio.sleep(0)
    await work
    row = await bench.row(job_id)
    assert (row["status"], row["attempt"]) == ("queued", 0)


async def test_an_id_that_no_job_can_have_is_answered(bench: Bench) -> None:
    """Rubbish from the queue is logged, and nobody need look for it again."""
    answered: list[tuple[str, int]] = []
    bench.runner._on_claim_answered = lambda job_id, run: answered.append((job_id, run))
    await bench.runner.run("no-uuid", 1)
    assert answered == [("no-uuid", 1)]
    assert bench.runner.active == 0


@pytest.mark.parametrize(
    ("do", "status"),
    [
        ("cancel_itself", "queued"),
        ("exit", "queued"),
        ("lose_in_group", "processing"),
        ("cancel_in_group", "cancelled"),
        ("swallow_once", "cancelled"),
    ],
)
async def test_endings_that_come_in_disguise(bench: Bench, do: str, status: str) -> None:
    """A cancellation of its own, an exit, an error in a task group or stage: each is what it is."""
    job_id = await bench.create(do=do)
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    if do == "swallow_once":
        bench.runner.cancel(job_id)
    await work
    row = await bench.row(job_id)
    assert row["status"] == status
    if status == "queued":
        assert row["attempt"] == 1  # or it would go on, and pay, for ever
    if do == "swallow_once":
        assert bench.scripted.stopped == ["swallowed", "stopped"]


async def test_an_outcome_whose_details_are_not_storable_fails_the_job(bench: Bench) -> None:
    """Neither a stage's name nor a warning may keep a run from being settled."""
    row = await bench.run(do="bad_stage")
    assert row["status"] == "failed"
    assert row["error"]["code"] == "unstorable_output"


async def test_leases_close_though_a_cancellation_is_swallowed() -> None:
    """asyncio.wait_for of Python 3.11 swallows a cancellation that meets its result."""
    from executors.running.leases import LeaseKeeper

    class Swallowing:
        asked = asyncio.Event()

        async def renew(self, _: object) -> tuple[set[str], set[str]]:
            self.asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            return set(), set()

    jobs = Swallowing()
    keeper = LeaseKeeper(jobs, [], interval=0.01)  # type: ignore[arg-type]
    keeper.start()
    await jobs.asked.wait()
    async with asyncio.timeout(2):
        await keeper.close()


async def test_executors_close_as_far_as_they_were_opened() -> None:
    """A start that fails half way closes what it opened, and one that cannot close stops nobody."""
    said: list[str] = []

    def executor(name: str, *, opens: bool = True) -> type[BaseExecutor[Any, Any]]:
        class Said(BaseExecutor[Any, Any]):
            """Says what happens to it."""

            type = name
            Input = PaintInput
            Output = PaintOutput

            async def execute(self, job: JobContext[Any]) -> Any:
                return None

            async def open(self) -> None:
                said.append(f"open {name}")
                if not opens:
                    raise RuntimeError("no")

            async def close(self) -> None:
                said.append(f"close {name}")
                raise RuntimeError("stuck")

        return Said

    registry = Registry([executor("first"), executor("second"), executor("third", opens=False)])
    runner = Runner(
        jobs=None,  # type: ignore[arg-type]
        registry=registry,
        sink=MemorySink(),
        services_of=lambda _: None,  # type: ignore[arg-type,return-value]
    )
    with pytest.raises(RuntimeError, match="no"):
        await runner.open()
    await runner.close()
    await runner.close()
    assert said == ["open first", "open second", "open third", "close second", "close first"]


async def test_a_concept_of_nobody_is_not_found(line: Line) -> None:
    """What is no id is answered like another user's: there is none."""
    concepts = UserConcepts(line.faulty, line.user_id)
    for hostile in ("", "x", "../x", f"{uuid.uuid4()}'", "a\0b", str(uuid.uuid4()), "urn:uuid:x"):
        with pytest.raises(NotFound):
            await concepts.get(hostile)
