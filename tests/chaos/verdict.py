"""What must be true once all is quiet again."""

from __future__ import annotations

__all__ = ["Verdict", "reached"]

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

from redis.asyncio import Redis

from tests.chaos.load import PRICES, Load
from tests.lifecycle.invariants import INVARIANTS
from uvian_worker.events.envelope import Envelope
from uvian_worker.redis.keys import Keys, job_topic

_QUIET = 90.0  #: seconds until everything that was asked for has to have ended
_KEYS = Keys("uvian")


@dataclass
class Verdict:
    """What was found; ``wrong`` is empty when every promise was kept."""

    statuses: Counter[str]
    charged: Decimal
    wrong: list[str] = field(default_factory=list)


async def reached(load: Load) -> Verdict:
    """Wait until all has ended, and look at every book."""
    statuses = await _ended(load)
    verdict = Verdict(statuses, Decimal(0))
    wrong = verdict.wrong
    if statuses != {"completed": len(load.jobs)}:
        wrong.append(f"not all completed: {dict(statuses)}: {await _others(load)}")
    await _announced(load)
    for sentence, statement in INVARIANTS.items():
        if rows := await load.place.site.execute(statement):
            wrong.append(f"broken: {sentence}: {[dict(row) for row in rows[:3]]}")
    wrong += await _books(load, verdict)
    wrong += await _endings(load)
    wrong += await _texts(load)
    return verdict


async def _ended(load: Load) -> Counter[str]:
    deadline = time.monotonic() + _QUIET
    while True:
        rows = await load.place.site.execute(
            "select status, count(*) from uvian.jobs where id = any($1::uuid[]) group by 1",
            list(load.jobs),
        )
        statuses = Counter({row["status"]: row["count"] for row in rows})
        open_ = statuses["queued"] + statuses["processing"]
        if not open_ or time.monotonic() > deadline:
            return statuses
        await asyncio.sleep(0.5)


async def _others(load: Load) -> list[dict[str, object]]:
    rows = await load.place.site.execute(
        """select id, type, status, run, attempt, error_message from uvian.jobs
           where id = any($1::uuid[]) and status <> 'completed' limit 5""",
        list(load.jobs),
    )
    return [dict(row) for row in rows]


async def _announced(load: Load) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not await load.place.site.execute(
            "select from uvian.job_state where announce_at is not null"
        ):
            return
        await asyncio.sleep(0.2)


async def _books(load: Load, verdict: Verdict) -> list[str]:
    """Each job is settled once, and charged its price once."""
    execute = load.place.site.execute
    wrong = []
    twice = await execute(
        "select job_id from uvian.job_runs where status = 'completed' group by 1 having count(*) > 1"
    )
    if twice:
        wrong.append(f"settled twice: {[str(row['job_id']) for row in twice]}")
    charges = await execute(
        "select job_id, sum(amount) as amount, count(*) from uvian.credit_entries"
        " where kind = 'charge' group by 1"
    )
    verdict.charged = sum((row["amount"] for row in charges), Decimal(0))
    charged = {str(row["job_id"]): (row["amount"], row["count"]) for row in charges}
    for job, kind in load.jobs.items():
        if charged.get(job) != (Decimal(PRICES[kind]), 1):
            wrong.append(f"{kind} {job}: charged {charged.get(job)}")
    wrong += [f"never asked for, and charged: {job}" for job in charged.keys() - load.jobs.keys()]
    concepts = await execute("select job_id from uvian.concepts group by 1 having count(*) > 1")
    if concepts:
        wrong.append(f"two concepts of one job: {[str(row['job_id']) for row in concepts]}")
    return wrong


async def _endings(load: Load) -> list[str]:
    """In what Redis still has, no job ends twice and no topic has a gap."""
    wrong = []
    redis = Redis.from_url(load.place.redis.url)
    try:
        for job in load.jobs:
            entries = await redis.xrange(_KEYS.log(job_topic(job)))
            told = [Envelope.parse(fields[b"e"]) for _, fields in entries]
            if sum(event.ends_job for event in told) > 1:
                wrong.append(f"ends twice: {job}")
            numbers = [event.seq for event in told]
            if numbers != list(range(numbers[0], numbers[0] + len(numbers))) if numbers else False:
                wrong.append(f"a gap: {job}: {numbers}")
    finally:
        await redis.aclose()
    return wrong


async def _texts(load: Load) -> list[str]:
    """Every browser shows every answer as it is stored, to the byte."""
    rows = await load.place.site.execute(
        "select id, conversation_id, content, status from uvian.messages where role = 'assistant'"
    )
    shown = {browser.conversation_id: browser for browser in load.browsers}
    deadline = time.monotonic() + 30
    wrong: list[str] = []
    while time.monotonic() < deadline:
        wrong = []
        for row in rows:
            message = shown[str(row["conversation_id"])].message(str(row["id"]))
            # What ended while its events were lost is read from its row, as the contract says.
            if message.state != "unknown" and (message.raw, message.state) != (
                row["content"].encode(),
                row["status"],
            ):
                wrong.append(f"answer {row['id']}: shown {message.state}, {len(message.raw)} bytes")
        if not wrong:
            break
        await asyncio.sleep(0.5)
    missing = set(load.answers.values()) - {str(row["id"]) for row in rows}
    wrong += [f"answer {id_} was never stored" for id_ in missing]
    return wrong
