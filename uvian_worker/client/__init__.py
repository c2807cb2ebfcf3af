"""What an API imports: submit, cancel, retry, follow.

    async with await Client.connect(database_url=…, redis_url=…) as uvian:
        job = await uvian.submit(user_id, "generation", {"logo_description": …})
        async for event in uvian.follow(job.id):
            await websocket.send_json(event)

It is light (no arq, no models, no imaging) and imports neither ``executors`` nor ``repositories``:
your own packages may have these names.
"""

from __future__ import annotations

__all__ = [
    "Client",
    "Conversations",
    "DatabaseAway",
    "Door",
    "JobHandle",
    "JobRefused",
    "NotSetUp",
    "PostedMessage",
]

from uvian_worker.client.calls import DatabaseAway, JobRefused, NotSetUp
from uvian_worker.client.client import Client
from uvian_worker.client.conversations import Conversations
from uvian_worker.client.handles import Door, JobHandle, PostedMessage
