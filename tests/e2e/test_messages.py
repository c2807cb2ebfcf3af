"""Messages put together by the page's own modules, in its own browser."""

from __future__ import annotations

import random
from hashlib import sha256
from typing import Any

import pytest

from tests.e2e.conftest import Visit
from tests.e2e.site import Site
from uvian_worker.events.assembler import MessageAssembler
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.reader import Expired

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]

_ASSEMBLE = """async (histories) => {
  const { MessageAssembler } = await import("/client/messages.js");
  const outcomes = [];
  for (const history of histories) {
    const assembler = new MessageAssembler();
    for (const event of history) {
      if (event === null) { assembler.restart(); continue; }
      const message = assembler.apply(event);
      if (event.type !== "message.completed" || message === null) continue;
      if (!(await message.isWhole())) message.state = "unknown";
    }
    outcomes.push([...assembler.messages.values()].map(m => [m.id, m.state, m.text, m.bytes, m.replyTo]));
  }
  return outcomes;
}"""


async def test_messages_are_put_together_as_python_does_it(site: Site, visit: Visit) -> None:
    """500 histories with gaps, new runs, late starts and wrong hashes: the same states and texts."""
    visitor = await visit()
    page = await visitor.open()
    chance = random.Random(20)
    histories = [_history(chance) for _ in range(500)]
    told = [[None if e is None else _document(e) for e in history] for history in histories]
    assert await page.evaluate(_ASSEMBLE, told) == [_assembled(history) for history in histories]


_WITHOUT_A_DIGEST = """async () => {
  const { MessageAssembler } = await import("/client/messages.js");
  Object.defineProperty(crypto, "subtle", { value: undefined });
  const assembler = new MessageAssembler();
  const data = { message_id: "a", status: "completed", text: "Hi", length: 2, sha256: "" };
  const event = (type, data) => assembler.apply({ type, run: 1, data });
  return [await event("message.completed", data).isWhole(), event("message.rated", { message_id: "b" })];
}"""


async def test_a_page_without_https_believes_the_length(visit: Visit) -> None:
    """There is no SHA-256 then. And a kind of event that is not known yet makes no message."""
    page = await (await visit()).open()
    assert await page.evaluate(_WITHOUT_A_DIGEST) == [True, None]


def _history(chance: random.Random) -> list[Envelope | None]:
    """What a client may hear of two messages; None is that something was missed."""
    history: list[Envelope | None] = []
    texts, run = {"a": "", "b": ""}, 1
    for seq in range(1, chance.randrange(2, 14)):
        name = chance.choice("aab")
        text = texts[name]
        kind = chance.choice(
            ("started", *["delta"] * 6, "snapshot", "reset", "completed", "missed")
        )
        data: dict[str, Any] = {"message_id": name}
        match kind:
            case "missed":
                history.append(None)
                continue
            case "started":
                data["reply_to"], text = f"question of {name}", ""
            case "delta":
                piece = chance.choice(("Grüße", "京都", "🦊", " and ", "\n", "e\u0301"))
                lost = chance.random() < 0.15
                data |= {"offset": len(text.encode()) + (3 if lost else 0), "text": piece}
                text += piece
            case "snapshot":
                text = chance.choice(("", "So far 🦊", text))
                data["text"] = text
            case "reset":
                run += chance.randrange(2)
                data["final"], text = chance.random() < 0.3, ""
            case _:
                hashed = text if chance.random() < 0.8 else f"{text}?"
                shown = text if chance.random() < 0.5 else None
                data |= {"status": chance.choice(("completed", "cancelled")), "text": shown}
                data |= {
                    "length": len(text.encode()),
                    "sha256": sha256(hashed.encode()).hexdigest(),
                }
        texts[name] = text
        history.append(_event(seq, f"message.{kind}", data, run))
    return history


def _event(seq: int, type_: str, data: dict[str, Any], run: int = 1) -> Envelope:
    return Envelope(
        id=f"{'e' * 16}-{seq}-{'c' * 8}",
        seq=seq,
        topic="conversation:1",
        key=f"j:{run}:{seq}",
        type=type_,
        at="2026-01-01T00:00:00Z",
        job_id="j",
        run=run,
        attempt=0,
        data=data,
    )


def _document(event: Envelope) -> dict[str, Any]:
    return {"id": event.id, "type": event.type, "run": event.run, "data": event.data}


def _assembled(history: list[Envelope | None]) -> list[list[Any]]:
    assembler = MessageAssembler()
    for event in history:
        assembler.apply(Expired("conversation:1", "", False) if event is None else event)
    return [
        [each.id, each.state, each.text, len(each.raw), each.reply_to]
        for each in assembler.messages.values()
    ]
