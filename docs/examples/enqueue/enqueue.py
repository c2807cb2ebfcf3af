"""Make a concept for a user, and print each event until the job has ended."""

import asyncio
import os
import sys

from uvian_worker import Client


async def main(user_id: str) -> None:
    """A second call with the same idempotency key returns the job of the first."""
    wishes = {"logo_description": "A fox", "theme_description": "autumn woods"}
    async with await Client.connect(
        database_url=os.environ["DATABASE_URL"], redis_url=os.environ["REDIS_URL"]
    ) as uvian:
        job = await uvian.submit(user_id, "generation", wishes, idempotency_key="request-1")
        async for event in uvian.follow(job.id):
            print(event.type, event.data)


asyncio.run(main(sys.argv[1]))
