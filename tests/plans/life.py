"""Everything that happens to jobs, in one go: for those who look at plans and at times."""

from __future__ import annotations

__all__ = ["life", "runs"]

import uuid
from typing import Any

from repositories.database import Database


def runs(jobs: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """As items of a request."""
    return [{"id": job["id"], "run": job["run"], **more} for job in jobs]


async def life(port: Database, user: str, conversation: str, number: int) -> None:
    """Everything that happens to so many jobs, of which half are chats."""
    worker = {"worker": "w"}
    items = [{"user_id": user, "type": "noop", "input": {}} for _ in range(number)]
    spoken = {"conversation_id": conversation}
    items += [{"user_id": user, "type": "chat", "input": spoken} for _ in range(number)]
    await port.call("post_message", **spoken, user_id=user, content="Why?")
    made = await port.call("create_jobs", request={"jobs": items})
    jobs = runs([answer["job"] for answer in made["jobs"]])
    await port.call("mark_jobs", request={"dispatched": jobs})
    await port.call("claim_jobs", request={**worker, "jobs": jobs})
    more = await port.call(
        "claim_next_jobs",
        request={**worker, "nonce": str(uuid.uuid4()), "types": ["noop", "chat"], "limit": number},
    )
    jobs += runs(more["jobs"])
    await port.call(
        "renew_leases", request={**worker, "jobs": [{**j, "progress": 0.5} for j in jobs]}
    )
    half = len(jobs) // 2
    settled = [{**j, "outcome": "completed", "message": {"content": "x"}} for j in jobs[:half]]
    settled += [{**j, "outcome": "retry"} for j in jobs[half:]]
    await port.call("settle_jobs", request={**worker, "jobs": settled})
    await port.call("mark_jobs", request={"announced": jobs})
    await port.call("sweep_jobs", request={})
    await port.call("cancel_job", job_id=jobs[-1]["id"])
    await port.call("retry_job", job_id=jobs[-1]["id"], expected_run=jobs[-1]["run"] + 1)
