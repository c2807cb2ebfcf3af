"""A question and its answer: posted, followed until it has ended, stopped when somebody wishes."""

from __future__ import annotations

from uvian_common.tasks import cancel_until_done

__all__ = ["Answered", "Talk"]

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console

from repositories.database import Filter
from repositories.errors import NotFound, RepositoryError
from repositories.messages import Message, UserMessages
from uvian_worker.cli.connect import Site
from uvian_worker.cli.errors import ExitCode, Fault
from uvian_worker.cli.lookup import refusal
from uvian_worker.cli.terminal.answer import AnswerView
from uvian_worker.client import JobRefused, PostedMessage
from uvian_worker.events.job_view import WatchedJob
from uvian_worker.events.reader import Expired

OnBusy = Literal["enqueue", "reject", "interrupt"]

_SILENCE = 5.0  #: seconds after which somebody wonders what the question waits for


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a question."""

    conversation_id: str
    posted: PostedMessage
    job: WatchedJob
    stored: Message | None  #: the answer; None where there is nothing of it
    stopped: bool  #: by Ctrl-C

    def as_document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "conversation_id": self.conversation_id,
            "message_id": self.posted.id,
            "answer_id": self.stored and self.stored.id,
            "job_id": self.posted.job.id,
            "status": self.job.status,
            "text": self.stored and self.stored.content,
            "usage": self.stored and self.stored.usage,
            "cost": self.job.cost,
            "error": self.job.error,
        }


@dataclass(slots=True)
class Talk:
    """One user in one conversation, which is made with the first question."""

    site: Site
    user_id: str
    conversation_id: str | None
    on_busy: OnBusy
    options: dict[str, Any] = field(default_factory=dict)
    is_empty: bool = False  #: it was made here, and no question was sent in it yet

    async def leave(self) -> None:
        """No more questions come: a conversation that was made for nothing is deleted."""
        if not self.is_empty or self.conversation_id is None:
            return
        with contextlib.suppress(Fault, JobRefused, RepositoryError):  # what was said before counts
            if not await self.history(1):  # nor has anybody written in it from elsewhere
                await self.site.client.conversations.delete(
                    self.conversation_id, user_id=self.user_id
                )

    async def history(self, limit: int) -> list[Message]:
        """What was said last, in its order. Raises ``Fault`` where the user takes no part."""
        if self.conversation_id is None:
            return []
        try:
            newest = await UserMessages(self.site.database, self.user_id).history(
                self.conversation_id, limit=limit
            )
        except NotFound as error:
            raise self._no_conversation() from error
        return newest[::-1]

    async def ask(self, question: str, screen: Console) -> Answered:
        """Post a question and show its answer while it is written; Ctrl-C stops it.

        Raises ``Fault`` for what the database refuses.
        """
        conversation_id = self.conversation_id or await self._begin(question)
        posted = await self._post(conversation_id, question)
        job = WatchedJob(posted.job.id, "chat")
        with AnswerView(screen, job) as view:
            stopped = await self._answer(job, view)
            stored = await self._stored(posted.answer_id)
            view.finish(None if stored is None else stored.content)
        return Answered(conversation_id, posted, job, stored, stopped)

    async def _begin(self, question: str) -> str:
        title = " ".join(question.split())[:80]
        try:
            made = await self.site.client.conversations.create(self.user_id, title=title)
        except JobRefused as refused:
            raise refusal(refused, user=self.user_id) from refused
        self.conversation_id, self.is_empty = made, True
        return made

    async def _post(self, conversation_id: str, question: str) -> PostedMessage:
        was_empty, self.is_empty = self.is_empty, False  # also where nobody knows what became of it
        try:
            return await self.site.client.conversations.post(
                self.user_id,
                conversation_id,
                question,
                on_busy=self.on_busy,
                options=self.options,
            )
        except JobRefused as refused:
            self.is_empty = was_empty
            if refused.code == "not_found":
                raise self._no_conversation() from refused
            raise refusal(refused, type_="chat", user=self.user_id) from refused

    async def _answer(self, job: WatchedJob, view: AnswerView) -> bool:
        """Follow it to its end; whether Ctrl-C has stopped it."""
        wish = asyncio.Event()
        beside = [
            asyncio.ensure_future(self._stop_on(wish, job)),
            asyncio.ensure_future(self._explain_silence(job, view)),
        ]
        try:
            with _ctrl_c(wish):
                await self._follow(job, view)
        finally:
            await cancel_until_done(*beside)
        return wish.is_set() and job.status == "cancelled"

    async def _follow(self, job: WatchedJob, view: AnswerView) -> None:
        async for received in self.site.client.follow(job.id):
            if isinstance(
                received, Expired
            ):  # the log does not reach back far enough: the row knows
                rows = await self.site.database.select("jobs", where=[Filter("id", "eq", job.id)])
                job.adopt(rows[0])
            job.apply(received)
            view.changed()
            if job.is_over:
                return

    async def _stop_on(self, wish: asyncio.Event, job: WatchedJob) -> None:
        """This answer and no other: before it others may be written."""
        await wish.wait()
        with contextlib.suppress(JobRefused):  # it has ended meanwhile
            await self.site.client.cancel(job.id, user_id=self.user_id)

    async def _explain_silence(self, job: WatchedJob, view: AnswerView) -> None:
        await asyncio.sleep(_SILENCE)
        if job.status != "queued":
            return
        rows = await self.site.database.select(
            "jobs", columns=("its_turn",), where=[Filter("id", "eq", job.id)]
        )
        if rows and not rows[0]["its_turn"]:
            view.note("Waiting for the answer before it. Ctrl-C takes the question back.")
        else:
            view.note("Waiting for a worker (uvian worker). Ctrl-C gives up.")

    async def _stored(self, answer_id: str) -> Message | None:
        try:
            return await UserMessages(self.site.database, self.user_id).get(answer_id)
        except NotFound:
            return None

    def _no_conversation(self) -> Fault:
        return Fault(
            f"There is no conversation {self.conversation_id} of this user.",
            ExitCode.REFUSED,
            hint="Leave --conversation out to begin one, or name its user: --user …",
        )


@contextlib.contextmanager
def _ctrl_c(wish: asyncio.Event) -> Iterator[None]:
    """The first Ctrl-C is a wish; the second ends the command, as elsewhere."""
    before = signal.getsignal(signal.SIGINT)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine always runs in a task

    def interrupt() -> None:
        if wish.is_set():
            task.cancel()
        wish.set()

    try:
        loop.add_signal_handler(signal.SIGINT, interrupt)
    except (NotImplementedError, RuntimeError, ValueError):  # not here: Ctrl-C ends the command
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
