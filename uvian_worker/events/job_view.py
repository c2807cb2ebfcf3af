"""What the events of one job add up to: for whoever shows a job while it runs."""

from __future__ import annotations

__all__ = ["Picture", "StageSeen", "WatchedJob"]

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from uvian_worker.events.assembler import AssembledMessage, MessageAssembler
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.reader import Expired, Snapshot

#: "3 of 7 variations ready": how a stage says how far it is.
_COUNTED = re.compile(r"\b(\d+) of (\d+)\b")

_ENDED = ("completed", "failed", "cancelled")


@dataclass(slots=True)
class StageSeen:
    """One stage of the latest run."""

    name: str
    label: str
    status: str = "waiting"  #: waiting, running, completed, failed or cancelled
    ms: float | None = None
    began: datetime | None = None
    counted: tuple[int, int] | None = None  #: done, of how many

    def as_document(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "label": self.label, "ms": self.ms, "status": self.status}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is stored."""

    kind: str
    index: int
    path: str
    preview: str
    name: str | None
    palette: tuple[str, ...]

    @property
    def place(self) -> int:
        """The base image first, then the variations in the order of their palettes."""
        return 0 if self.kind == "base" else self.index + 1


@dataclass(slots=True)
class WatchedJob:
    """Give it every event in order; what it knows is true at any moment."""

    id: str
    type: str = ""
    status: str = "queued"
    run: int = 1
    fraction: float = 0.0
    message: str | None = None
    stages: dict[str, StageSeen] = field(default_factory=dict)
    pictures: dict[int, Picture] = field(default_factory=dict)  #: by place
    counts: Counter[str] = field(default_factory=Counter)
    output: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    error_message: str | None = None
    cost: str = "0"
    result_id: str | None = None
    run_at: datetime | None = None  #: when the run that is queued may start
    #: Why it waited again, by the run that followed: what ``job.requeued`` says, and for how many seconds.
    requeues: dict[int, tuple[dict[str, Any], float]] = field(default_factory=dict)
    began: datetime | None = None  #: first event
    ended: datetime | None = None
    _messages: MessageAssembler = field(default_factory=MessageAssembler)

    @property
    def is_over(self) -> bool:
        """Whether nothing will follow."""
        return self.status in _ENDED

    @property
    def answer(self) -> AssembledMessage | None:
        """The message that it writes, as far as it was received."""
        return next(iter(self._messages.messages.values()), None)

    @property
    def ms(self) -> float | None:
        """From its first event to its last one."""
        if self.began is None or self.ended is None:
            return None
        return (self.ended - self.began).total_seconds() * 1000

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """What the job survived."""
        return list((self.output or {}).get("warnings", ()))

    def apply(self, received: Envelope | Snapshot | Expired) -> None:
        """Take in what ``Client.follow`` gives."""
        self._messages.apply(received)
        match received:
            case Envelope():
                self._happened(received)
            case Snapshot(state=state):
                for envelope in state:
                    self._happened(envelope)
            case Expired():
                pass  # the row knows

    def adopt(self, row: dict[str, Any]) -> None:
        """Take what the job's row says, where there are no events any more."""
        self.type, self.status, self.run = row["type"], row["status"], row["run"]
        self.fraction, self.message = row["progress"], row["progress_message"]
        self.output, self.result_id, self.cost = row["output"], row["result_id"], str(row["cost"])
        self.error, self.error_message = row["error"], row["error_message"]
        self.run_at = datetime.fromisoformat(row["run_at"])
        self.began = datetime.fromisoformat(row["created_at"])
        if row["finished_at"]:
            self.ended = datetime.fromisoformat(row["finished_at"])
        self.stages.clear()
        self._finish_stages(row["stages"])

    def expect(self, stages: dict[str, str]) -> None:
        """Stages (label by name) that will come, so that they can be shown before they do."""
        for name, label in stages.items():
            self.stages.setdefault(name, StageSeen(name, label))

    def _happened(self, envelope: Envelope) -> None:
        self.counts[envelope.type] += 1
        at = datetime.fromisoformat(envelope.at)
        self.began = self.began or at
        if envelope.run > self.run:
            self._begin_again(envelope.run)
        data = envelope.data
        match envelope.type:
            case "job.queued" | "job.requeued":
                self.type, self.status = data["job_type"], "queued"
                self.run_at = datetime.fromisoformat(data["run_at"]) if data.get("run_at") else None
                if data.get("reason"):
                    wait = (self.run_at - at).total_seconds() if self.run_at else 0.0
                    self.requeues[envelope.run] = (data["reason"], max(wait, 0.0))
            case "job.started":
                self.type, self.status = data["job_type"], "processing"
            case "job.progress":
                self._progress(data)
            case "stage.started":
                stage = self._stage(data)
                stage.status, stage.began = "running", at
            case "stage.finished":
                stage = self._stage(data)
                stage.status, stage.ms = data["status"], data["ms"]
            case "image.ready":
                self._picture(data)
            case _ if envelope.ends_job:
                self._end(envelope.type.removeprefix("job."), data, at)

    def _progress(self, data: dict[str, Any]) -> None:
        self.fraction, self.message = data["fraction"], data["message"]
        stage = self.stages.get(data["stage"] or "")
        if stage is not None and (counted := _COUNTED.search(self.message or "")):
            stage.counted = (int(counted[1]), int(counted[2]))

    def _stage(self, data: dict[str, Any]) -> StageSeen:
        name = data["stage"]
        stage = self.stages.setdefault(name, StageSeen(name, data["label"]))
        stage.label = data["label"]
        return stage

    def _picture(self, data: dict[str, Any]) -> None:
        picture = Picture(
            data["kind"],
            data["index"],
            data["path"],
            data["preview"],
            data["name"],
            tuple(data["palette"] or ()),
        )
        self.pictures[picture.place] = picture

    def _begin_again(self, run: int) -> None:
        """Another run: stages begin anew, pictures that are stored stay."""
        self.run, self.fraction, self.message = run, 0.0, None
        self.ended = self.output = self.error = self.error_message = None
        for name, stage in self.stages.items():
            self.stages[name] = StageSeen(name, stage.label)

    def _end(self, status: str, data: dict[str, Any], at: datetime) -> None:
        self.status, self.ended, self.cost = status, at, data["cost"]
        self.output, self.result_id = data.get("output"), data.get("result_id")
        self.error, self.error_message = data.get("error"), data.get("error_message")
        if status == "completed":
            self.fraction = 1.0
        self._finish_stages(data["stages"])

    def _finish_stages(self, stages: list[dict[str, Any]]) -> None:
        for stored in stages:
            stage = self._stage(
                {"stage": stored["name"], "label": stored.get("label", stored["name"])}
            )
            stage.status, stage.ms = stored["status"], stored["ms"]
