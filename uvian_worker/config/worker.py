"""Settings of a worker: how many jobs, how long, and what it shows of itself."""

from __future__ import annotations

__all__ = ["WorkerProcessSettings"]

import os
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from uvian_worker.config.setting_types import LogLevel, Seconds


class WorkerProcessSettings(BaseModel):
    """Worker: how many jobs it runs, and how long each step may take."""

    max_jobs: Annotated[int, Field(ge=1, le=1000)] = 20
    """Jobs that run at a time in one worker process."""
    chat_history_tokens: Annotated[int, Field(ge=100)] = 8_000
    """Tokens of a conversation that are sent with a question: the model's window less its longest answer."""
    cpu_threads: Annotated[int, Field(ge=1, le=64)] = min(os.cpu_count() or 1, 8)
    """Threads for image work, and processes for decoding pictures from outside."""
    health_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Serve `/health/live` and `/health/ready` on this port; 0 picks a free one."""
    health_host: str = "127.0.0.1"
    """Address of the health endpoint; in a container `0.0.0.0`, or `::` for IPv6 and IPv4."""
    log_level: LogLevel = "INFO"
    """How much is logged."""
    log_format: Literal["text", "json"] = "text"
    """One line of text, or one JSON object, per record."""
    lease: Seconds = 15.0
    """How long a job stays with a worker that does not renew its lease."""
    renew_every: Seconds = 5.0
    """How often leases are renewed."""
    sweep_every: Seconds = 2.0
    """How often the sweep looks for lost jobs."""
    drain_grace: Annotated[float, Field(ge=0)] = 20.0
    """How long running jobs may finish after SIGTERM before they are interrupted and queued again."""
    stop_grace: Seconds = 5.0
    """How long an executor may take to stop."""

    @model_validator(mode="after")
    def _leases_outlast_a_lost_renewal(self) -> Self:
        if self.lease < 2 * self.renew_every + self.sweep_every:
            raise ValueError(
                f"UVIAN_LEASE ({self.lease:g} s) must be at least twice UVIAN_RENEW_EVERY plus "
                f"UVIAN_SWEEP_EVERY ({2 * self.renew_every + self.sweep_every:g} s): one lost "
                "renewal must not cost a job"
            )
        if self.sweep_every > 5:
            raise ValueError(
                "UVIAN_SWEEP_EVERY must be at most 5 s: a sweep 10 s old counts as an outage"
            )
        return self
