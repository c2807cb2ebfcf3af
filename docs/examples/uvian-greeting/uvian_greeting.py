"""A job type of your own: a greeting, written line by line."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, Field

from executors.base import BaseExecutor, JobContext, JobInput
from executors.errors import InvalidInput

GREETINGS = {"en": "Hello", "de": "Hallo", "fr": "Bonjour", "ja": "こんにちは"}


class GreetingInput(JobInput):
    """What the user wants; other fields in the input are refused."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    language: str = "en"
    lines: Annotated[int, Field(ge=1, le=100)] = 1


class GreetingOutput(BaseModel):
    """What the row stores and `job.completed` carries."""

    lines: list[str]


class GreetingExecutor(BaseExecutor[GreetingInput, GreetingOutput]):
    """Greets somebody, line by line."""

    type = "greeting"
    Input = GreetingInput
    Output = GreetingOutput
    timeout = timedelta(seconds=30)
    max_attempts = 3

    async def execute(self, job: JobContext[GreetingInput]) -> GreetingOutput:
        """Write the lines; a run after a crash continues where the last one was."""
        word = GREETINGS.get(job.input.language)
        if word is None:
            # The user reads this; it is not tried again.
            raise InvalidInput(f"language: one of {', '.join(GREETINGS)}")
        async with job.stage("writing", weight=1, label="Writing the greeting") as stage:
            lines = list(job.checkpoints.get("lines", ()))
            while len(lines) < job.input.lines:
                await asyncio.sleep(0.01)  # here you would call a model
                lines.append(f"{word}, {job.input.name}!")
                await job.checkpoint(lines=lines)
                stage.progress(len(lines) / job.input.lines, f"{len(lines)} lines written")
        return GreetingOutput(lines=lines)
