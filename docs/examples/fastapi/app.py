"""An API that makes concepts. Of uvian-worker it needs only the client."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, WebSocket, WebSocketException
from pydantic import BaseModel

from uvian_worker import Client
from uvian_worker.client import JobRefused


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for the life of the process."""
    async with await Client.connect(
        database_url=os.environ["DATABASE_URL"], redis_url=os.environ["REDIS_URL"]
    ) as app.state.uvian:
        yield


app = FastAPI(lifespan=lifespan)
owners: dict[str, str] = {}  # who owns which job: use a table of your own


def signed_in(x_user_id: Annotated[str, Header()]) -> str:
    """The id of the user who calls; check a token here."""
    return x_user_id


User = Annotated[str, Depends(signed_in)]


class NewConcept(BaseModel):
    """What the user wants."""

    logo_description: str
    theme_description: str
    size: int = 1024


@app.post("/concepts", status_code=202)
async def create(
    concept: NewConcept, user: User, idempotency_key: Annotated[str | None, Header()] = None
):
    """Submit a job; the same key submits it once."""
    try:
        job = await app.state.uvian.submit(
            user, "generation", concept.model_dump(), idempotency_key=idempotency_key
        )
    except JobRefused as refused:  # insufficient_credits, too_many_queued, …
        raise HTTPException(422, refused.code) from None
    owners[job.id] = user
    return {"job_id": job.id}


@app.post("/concepts/{job_id}/cancel")
async def cancel(job_id: str, user: User):
    """Cancel a job of the user who calls."""
    try:
        job = await app.state.uvian.cancel(job_id, user_id=user)
    except JobRefused as refused:  # not_found, also for a job of another user
        raise HTTPException(404 if refused.code == "not_found" else 409, refused.code) from None
    return {"status": job.status}


@app.websocket("/concepts/{job_id}/live")
async def live(socket: WebSocket, job_id: str, user: User, cursor: str | None = None):
    """Send the events of a job, all of them or those after the cursor."""
    if owners.get(job_id) != user:
        raise WebSocketException(1008)
    await socket.accept()
    async for event in app.state.uvian.follow(job_id, cursor):
        await socket.send_json(asdict(event))
    await socket.close()
