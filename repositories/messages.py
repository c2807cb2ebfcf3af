"""Messages, in the strict order of their conversation."""

from __future__ import annotations

__all__ = ["Message", "MessageRepository", "Posted", "ReadingBack", "UserMessages"]

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from uuid import uuid4

from repositories.conversations import UserConversations
from repositories.database import Database, Filter, Order, Row, is_id
from repositories.errors import NotFound


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``position`` only grows in a conversation: what comes later stands later."""

    id: str
    conversation_id: str
    position: int
    role: str  #: user, assistant or system
    content: str
    status: str = "completed"  #: completed, or cancelled: an answer that was stopped
    user_id: str | None = None  #: who wrote it; None for the assistant
    job_id: str | None = None  #: the chat that answers it, or that it is the answer of
    reply_to: str | None = None  #: the question, of an answer
    usage: dict[str, Any] | None = None  #: tokens, as the model counted
    created_at: str | None = None  #: ISO 8601


@dataclass(frozen=True, slots=True)
class Posted:
    """What ``post_message`` answered: what was stored, and what there is to do about it now."""

    message: Message
    job: Row
    created: bool  #: False: the same post was there already
    dispatch: Sequence[Row] = ()  #: for Redis, as of every function
    cancel: Sequence[Row] = ()  #: ``{id, run}`` of active runs to cancel
    terminal_events: Sequence[Row] = ()  #: of jobs that ended with it, to announce
    accounts: Sequence[Row] = ()


_COLUMNS = Message.__slots__

#: How many messages a page of a history has at most, and how many the first of one that is read back.
MOST = 1000
_FIRST = 50


@dataclass(frozen=True, slots=True)
class UserMessages:
    """The messages of the conversations one user takes part in; others do not exist here."""

    database: Database
    user_id: str

    async def get(self, message_id: str) -> Message:
        """One message; raises ``NotFound``, also for what is no id at all."""
        message = await MessageRepository(self.database).find(message_id)
        if message is not None:
            try:
                await self._conversations.require(message.conversation_id)
            except NotFound:
                message = None
        if message is None:
            raise NotFound("There is no such message.")
        return message

    async def history(
        self,
        conversation_id: str,
        *,
        before_position: int | None = None,
        up_to: str | None = None,
        limit: int = 50,
    ) -> list[Message]:
        """The newest first; raises ``NotFound``.

        ``before_position`` goes on where a page has ended. ``up_to`` is a question: the history is then
        as its answer needs it, whatever was posted while others were being answered. The question comes
        first, later questions are left out, and every answer stands by its own question. ``limit``
        counts what is read: a few less may be answered.
        """
        await self._conversations.require(conversation_id)
        question = await self._of(conversation_id, up_to) if up_to is not None else None
        page = await MessageRepository(self.database).list(
            conversation_id, before_position=before_position, limit=limit, newest_first=True
        )
        if question is None:
            return page
        return _for_question(page, question, whole=before_position is None)

    def back(self, conversation_id: str) -> ReadingBack:
        """The conversation from its newest message back, for a reader that stops when it has enough."""
        return ReadingBack(self.database, self.user_id, conversation_id)

    async def _of(self, conversation_id: str, message_id: str) -> Message:
        message = await MessageRepository(self.database).find(message_id)
        if message is None or message.conversation_id != conversation_id:
            raise NotFound("There is no such message.")
        return message

    @property
    def _conversations(self) -> UserConversations:
        return UserConversations(self.database, self.user_id)


class ReadingBack:
    """A conversation from its newest message back, in few queries.

    Membership is checked once, together with the first page; each further page is four times as long.
    The messages stay in memory: they can be iterated again. Raises ``NotFound``.
    """

    def __init__(self, database: Database, user_id: str, conversation_id: str) -> None:
        self._conversation_id = conversation_id
        self._conversations = UserConversations(database, user_id)
        self._messages = MessageRepository(database)
        self._read: list[Message] = []
        self._size = _FIRST
        self._opened = self._ended = False

    async def open(self) -> None:
        """Read the first page, if the user takes part; once is enough."""
        if not self._opened:
            if not is_id(self._conversation_id):
                raise NotFound("There is no such conversation.")
            require = self._conversations.require(self._conversation_id)
            _, page = await asyncio.gather(require, self._page())
            self._opened = True
            self._add(page)

    async def find(self, message_id: str) -> Message:
        """A message of this conversation; it is requested if it was not read yet."""
        await self.open()
        found = next((message for message in self._read if message.id == message_id), None)
        found = found or await self._messages.find(message_id)
        if found is None or found.conversation_id != self._conversation_id:
            raise NotFound("There is no such message.")
        return found

    async def __aiter__(self) -> AsyncIterator[Message]:
        await self.open()
        yielded = 0
        while True:
            while yielded < len(self._read):
                yield self._read[yielded]
                yielded += 1
            if self._ended:
                return
            self._add(await self._page())

    async def _page(self) -> list[Message]:
        before = self._read[-1].position if self._read else None
        return await self._messages.list(
            self._conversation_id, before_position=before, limit=self._size, newest_first=True
        )

    def _add(self, page: Sequence[Message]) -> None:
        self._read += page
        self._ended = len(page) < self._size
        self._size = min(4 * self._size, MOST)


def _for_question(page: Sequence[Message], question: Message, *, whole: bool) -> list[Message]:
    """The page as the answer to this question needs it; ``whole``: the newest page, which has it first."""
    seen = [
        message
        for message in page
        if message.position < question.position
        or (message.role == "assistant" and message.reply_to != question.id)
    ]
    question_position = {message.id: message.position for message in seen}

    def order(message: Message) -> tuple[int, int]:
        return question_position.get(message.reply_to or "", message.position), message.position

    seen.sort(key=order, reverse=True)
    return [question, *seen] if whole else seen


@dataclass(frozen=True, slots=True)
class MessageRepository:
    """All messages, as the service sees them."""

    database: Database

    async def post(
        self,
        conversation_id: str,
        content: str,
        *,
        user_id: str,
        on_busy: Literal["enqueue", "reject", "interrupt"] = "enqueue",
        options: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        max_cost: str | None = None,
    ) -> Posted:
        """A user's message and the chat that answers it, in one transaction.

        ``options`` go into the chat's input. The same key is answered with the same again; without
        one it gets a key here, so that a call that is repeated posts nothing twice. Raises
        ``Refused`` with the code of ``post_message``.
        """
        answer = await self.database.call(
            "post_message",
            conversation_id=conversation_id,
            content=content,
            on_busy=on_busy,
            options=dict(options or {}),
            idempotency_key=idempotency_key or f"post-{uuid4()}",
            max_cost=max_cost,
            user_id=user_id,
        )
        return Posted(
            message=_message(answer["message"]),
            job=answer["job"],
            created=answer["created"],
            dispatch=answer["dispatch"],
            cancel=answer["cancel"],
            terminal_events=answer["terminal_events"],
            accounts=answer["accounts"],
        )

    async def find(self, message_id: str) -> Message | None:
        """One message, or None, also for what is no id at all."""
        if not is_id(message_id):
            return None
        rows = await self.database.select(
            "messages", columns=_COLUMNS, where=[Filter("id", "eq", message_id)]
        )
        return Message(**rows[0]) if rows else None

    async def list(
        self,
        conversation_id: str,
        *,
        after_position: int | None = None,
        before_position: int | None = None,
        limit: int = 50,
        newest_first: bool = False,
    ) -> list[Message]:
        """Messages in order; the position of the last one is the cursor to go on with."""
        where = [Filter("conversation_id", "eq", conversation_id)]
        if after_position is not None:
            where.append(Filter("position", "gt", after_position))
        if before_position is not None:
            where.append(Filter("position", "lt", before_position))
        rows = await self.database.select(
            "messages",
            columns=_COLUMNS,
            where=where,
            order=[Order("position", descending=newest_first)],
            limit=min(limit, MOST),
        )
        return [Message(**row) for row in rows]

    async def insert(self, message: Message) -> Message:
        """Store a message without a job (an import, a system message); the same id again stays as it is.

        Its position is the database's to give.
        """
        values = asdict(message)
        row = {name: values[name] for name in _GIVEN}
        rows = await self.database.insert("messages", [row], on_conflict=("id",))
        if rows:
            return _message(rows[0])
        there = await self.find(message.id)
        if there is None:
            raise NotFound("There is no such conversation.")
        return there

    async def update(self, message_id: str, content: str) -> Message:
        """Replace the text of a message; raises ``NotFound``."""
        rows = await self.database.update(
            "messages", {"content": content}, where=[Filter("id", "eq", message_id)]
        )
        if not rows:
            raise NotFound("There is no such message.")
        return _message(rows[0])

    async def delete(self, message_id: str) -> None:
        """Remove a message; one that is not there is fine."""
        await self.database.delete("messages", where=[Filter("id", "eq", message_id)])


#: What is given with a message that is inserted; the database knows the rest.
_GIVEN = ("id", "conversation_id", "role", "content", "status", "user_id", "reply_to", "usage")


def _message(row: Row) -> Message:
    return Message(**{name: row[name] for name in _COLUMNS})
