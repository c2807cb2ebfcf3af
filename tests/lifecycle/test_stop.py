"""Stop: the answer that is being written ends, what it has is kept, and who waits is next."""

from __future__ import annotations

import asyncio

import pytest

from repositories import errors
from tests.lifecycle.invariants import broken
from tests.lifecycle.world import World

pytestmark = pytest.mark.database


async def test_who_runs_is_asked_and_who_waits_goes_on(world: World) -> None:
    """One answer is stopped, not the conversation."""
    user = await world.user()
    conversation = await world.conversation(user)
    running, waiting = [(await world.post(conversation, user))["job"] for _ in range(2)]
    claim = await world.claim(running)
    answer = await world.service.call("stop_answer", conversation_id=conversation, user_id=user)
    assert answer["stopped"] == [running["id"]]
    assert answer["cancel"] == [{"id": running["id"], "run": 1}]
    assert (answer["terminal_events"], answer["dispatch"]) == ([], [])
    assert (await world.renew(claim))["cancel"] == [running["id"]]
    settled = await world.settlement(running, "cancelled", message={"content": "Because th"})
    assert [d["id"] for d in settled["dispatch"]] == [waiting["id"]]
    assert await broken(world) == {}


async def test_an_answer_that_has_not_begun_ends_at_once(world: World) -> None:
    """It is announced, its credits are back, and the next in line is dispatched."""
    await world.type("chat", price=2)
    user = await world.user(10)
    conversation = await world.conversation(user)
    first, second = [(await world.post(conversation, user))["job"] for _ in range(2)]
    answer = await world.service.call("stop_answer", conversation_id=conversation)
    assert [(e["id"], e["status"]) for e in answer["terminal_events"]] == [
        (first["id"], "cancelled")
    ]
    assert [d["id"] for d in answer["dispatch"]] == [second["id"]]
    assert [a["balance"] for a in answer["accounts"]] == ["8.000000"]
    assert await broken(world) == {}


async def test_stopping_nothing_is_fine(world: World) -> None:
    """Twice, too late, or before anything was asked."""
    user = await world.user()
    conversation = await world.conversation(user)
    nothing: dict[str, list[object]] = {
        "stopped": [],
        "cancel": [],
        "terminal_events": [],
        "dispatch": [],
        "accounts": [],
    }
    assert await world.service.call("stop_answer", conversation_id=conversation) == nothing
    job = (await world.post(conversation, user))["job"]
    await world.claim(job)
    for _ in range(2):
        answer = await world.service.call("stop_answer", conversation_id=conversation)
        assert answer["stopped"] == [job["id"]]
    await world.settlement(job, "cancelled")
    assert await world.service.call("stop_answer", conversation_id=conversation) == nothing


async def test_a_stop_that_names_its_chat_stops_no_other(world: World) -> None:
    """Asked again after it has ended, or too late, the next in line goes on."""
    user = await world.user()
    conversation = await world.conversation(user)
    first, second = [(await world.post(conversation, user))["job"] for _ in range(2)]
    await world.claim(first)

    async def stop(job_id: str, conversation_id: str = conversation) -> list[str]:
        answer = await world.service.call(
            "stop_answer", conversation_id=conversation_id, user_id=user, job_id=job_id
        )
        return list(answer["stopped"])

    assert await stop(second["id"]) == []  # not its turn
    assert await stop(first["id"]) == [first["id"]]
    await world.settlement(first, "cancelled", message={"content": "Beca"})
    assert await stop(first["id"]) == [
        first["id"]
    ]  # as before: whoever asks again is told the same
    await world.claim(second)
    assert await stop(first["id"], await world.conversation(user)) == []  # another conversation's
    await world.settlement(second, "completed", output={}, message={"content": "Because."})
    assert await stop(second["id"]) == []  # too late
    assert await broken(world) == {}


async def test_only_who_takes_part_may_stop(world: World) -> None:
    """A stranger's conversation is not found; another member's answer may be stopped."""
    one, two, stranger = [await world.user() for _ in range(3)]
    conversation = await world.conversation(one, two)
    job = (await world.post(conversation, one))["job"]
    with pytest.raises(errors.Refused, match="no such conversation"):
        await world.service.call("stop_answer", conversation_id=conversation, user_id=stranger)
    answer = await world.service.call("stop_answer", conversation_id=conversation, user_id=two)
    assert answer["stopped"] == [job["id"]]


async def test_stops_and_posts_at_once(world: World) -> None:
    """Whatever meets: every chat ends or waits its turn, and nobody waits for ever."""
    user = await world.user()
    conversation = await world.conversation(user)
    for _ in range(10):
        await asyncio.gather(
            *(world.post(conversation, user) for _ in range(4)),
            *(world.service.call("stop_answer", conversation_id=conversation) for _ in range(4)),
        )
    assert await broken(world) == {}
