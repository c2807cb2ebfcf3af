"""The jobs' life through the functions of the schema: claim, renew, settle, sweep."""

from __future__ import annotations

__all__ = ["ClaimedJob", "Followups", "JobRepository", "Settlement"]

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from repositories.batching import batcher
from repositories.database import Database, Filter, Order, Row
from uvian_common.backoff import pause_before
from uvian_common.batching import Batcher


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job this worker holds, as the database gave it."""

    id: str
    user_id: str
    type: str
    run: int
    attempt: int  #: attempts burned so far
    max_attempts: int
    input: dict[str, Any]
    created_at: str  #: ISO 8601
    checkpoints: dict[str, Any]
    parent_id: str | None
    cancel_requested: bool
    models: list[str] | None = None  #: what the operator allows of the type, the first as default
    max_tokens: int | None = None  #: … at most
    system_prompt: str | None = None  #: … in place of the job's own


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a run ended in the database; ``settled`` is False when the job was not this worker's any more."""

    settled: bool
    status: str = ""
    attempt: int = 0
    cost: str = "0"
    next: Row | None = None  #: queued: the next run as dispatch needs it, until that has begun
    message: Row | None = None  #: a chat's answer as it is stored now: id, length, sha256, …


@dataclass(frozen=True, slots=True)
class Followups:
    """What a call to the database requires of Redis: runs to dispatch, balances to publish."""

    dispatch: Sequence[Row] = ()
    accounts: Sequence[Row] = ()


@dataclass(slots=True)
class JobRepository:
    """All jobs, as one worker process sees them. ``followups`` is called with what calls require of Redis."""

    database: Database
    worker: str
    followups: Callable[[Followups], None]
    lease_seconds: float = 15.0
    _batchers: dict[str, Batcher[Row, Row]] = field(init=False)

    def __post_init__(self) -> None:
        self._batchers = {
            "claim": batcher("claim_jobs", self._claim),
            "settle": batcher("settle_jobs", self._settle),
            "checkpoint": batcher("save_checkpoints", self._checkpoint),
            "announced": batcher("mark_jobs", self._announced),
        }

    async def claim(self, job_id: str, run: int) -> ClaimedJob | str:
        """The job, now this worker's; or the reason why not."""
        answer = await self._batchers["claim"].submit({"id": job_id, "run": run})
        return _claimed(answer) if answer["claimed"] else str(answer["reason"])

    async def claim_next(self, types: Sequence[str], limit: int, nonce: str) -> list[ClaimedJob]:
        """Up to ``limit`` due jobs without a queue; the same ``nonce`` is answered the same again."""
        answer = await self.database.call(
            "claim_next_jobs",
            request={
                "worker": self.worker,
                "nonce": nonce,
                "types": list(types),
                "limit": limit,
                "lease_seconds": self.lease_seconds,
            },
        )
        return [_claimed(row) for row in answer["jobs"]]

    async def renew(self, running: Sequence[Mapping[str, Any]]) -> tuple[set[str], set[str]]:
        """Renew ``{id, run, stage?, progress?, message?}``; the ids that are lost, and those to cancel."""
        answer = await self.database.call(
            "renew_leases",
            request={
                "worker": self.worker,
                "lease_seconds": self.lease_seconds,
                "jobs": list(running),
            },
        )
        return set(answer["lost"]), set(answer["cancel"])

    async def checkpoint(self, job_id: str, run: int, checkpoints: Mapping[str, Any]) -> bool:
        """Save what need not be done again; False when the job is no longer this worker's."""
        answer = await self._batchers["checkpoint"].submit(
            {"id": job_id, "run": run, "checkpoints": dict(checkpoints)}
        )
        return bool(answer["saved"])

    async def register_file(self, job_id: str, run: int, path: str) -> bool:
        """Say that this file is about to be stored; False when the job is no longer this worker's.

        One that is being removed at this moment is waited for: it would be gone afterwards.
        """
        item = {"id": job_id, "run": run, "checkpoints": {}, "files": [path]}
        for tries in itertools.count():
            answer = await self._batchers["checkpoint"].submit(item)
            if not answer.get("busy"):
                return bool(answer["saved"])
            await asyncio.sleep(pause_before(tries))
        raise AssertionError  # it counts without an end

    async def settle(self, settlement: Mapping[str, Any]) -> Settlement:
        """End a run: ``{id, run, outcome, …}`` as in ``settle_jobs``."""
        answer = await self._batchers["settle"].submit(dict(settlement))
        if not answer["settled"]:
            return Settlement(settled=False)
        return Settlement(
            settled=True,
            status=answer["status"],
            attempt=answer["attempt"],
            cost=answer["cost"],
            next=answer["next"],
            message=answer.get("message"),
        )

    async def announced(self, job_id: str, run: int) -> None:
        """The terminal event of this run has been published."""
        await self._batchers["announced"].submit({"id": job_id, "run": run})

    async def register(self, release: str, types: Sequence[Mapping[str, Any]]) -> None:
        """Make this worker and its types known."""
        await self.database.call(
            "register_worker",
            request={"worker": self.worker, "release": release, "types": list(types)},
        )

    async def retire(self) -> None:
        """This worker stops in good order."""
        await self.database.call("retire_worker", request={"worker": self.worker})

    async def find(self, job_id: str) -> Row | None:
        """One job's whole row."""
        rows = await self.database.select("jobs", where=[Filter("id", "eq", job_id)])
        return rows[0] if rows else None

    async def history(self, job_id: str) -> list[Row]:
        """How each of its runs waited, ran and ended, the oldest first; a run that goes on is not in it."""
        return await self.database.select(
            "job_runs", where=[Filter("job_id", "eq", job_id)], order=[Order("run")]
        )

    async def list(
        self,
        *,
        user_id: str | None = None,
        status: str | None = None,
        type: str | None = None,  # noqa: A002 - the column's name
        limit: int = 20,
    ) -> list[Row]:
        """The newest jobs first."""
        wanted = {"user_id": user_id, "status": status, "type": type}
        return await self.database.select(
            "jobs",
            where=[Filter(name, "eq", value) for name, value in wanted.items() if value],
            order=[Order("created_at", descending=True), Order("id")],
            limit=limit,
        )

    async def close(self) -> None:
        """Send what the batchers hold."""
        await asyncio.gather(*(each.close() for each in self._batchers.values()))

    async def _claim(self, items: Sequence[Row]) -> Sequence[Row]:
        answer = await self.database.call(
            "claim_jobs",
            request={
                "worker": self.worker,
                "lease_seconds": self.lease_seconds,
                "jobs": list(items),
            },
        )
        return list(answer["jobs"])

    async def _settle(self, items: Sequence[Row]) -> Sequence[Row]:
        answer = await self.database.call(
            "settle_jobs", request={"worker": self.worker, "jobs": list(items)}
        )
        self.followups(Followups(answer["dispatch"], answer["accounts"]))
        return list(answer["jobs"])

    async def _checkpoint(self, items: Sequence[Row]) -> Sequence[Row]:
        answer = await self.database.call(
            "save_checkpoints", request={"worker": self.worker, "jobs": list(items)}
        )
        return list(answer["jobs"])

    async def _announced(self, items: Sequence[Row]) -> Sequence[Row]:
        await self.database.call("mark_jobs", request={"announced": list(items)})
        return [{} for _ in items]


def _claimed(row: Row) -> ClaimedJob:
    return ClaimedJob(
        id=row["id"],
        user_id=row["user_id"],
        type=row["type"],
        run=row["run"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"] or 1,
        input=row["input"],
        created_at=row["created_at"],
        checkpoints=row["checkpoints"],
        parent_id=row["parent_id"],
        cancel_requested=row["cancel_requested"],
        models=row["models"],
        max_tokens=row["max_tokens"],
        system_prompt=row["system_prompt"],
    )
