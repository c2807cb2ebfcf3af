"""The answer of a chat is stored by its settlement: once, as it ended, and told by whoever announces."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from decimal import Decimal
from typing import Any

import pytest

from repositories import errors
from repositories.database import Filter
from tests.adapters import over_postgres_only
from tests.lifecycle.invariants import broken
from tests.lifecycle.world import World
from uvian_common.answers import answer_id

pytestmark = [pytest.mark.database, over_postgres_only]

TEXT = "Weil: „ß“ 🎨\n"


@pytest.fixture
async def user(world: World) -> str:
    """Somebody who pays 10 credits for a chat."""
    await world.type("chat", price=10)
    return await world.user(100)


@pytest.fixture
async def conversation(world: World, user: str) -> str:
    """Their conversation."""
    return await world.conversation(user)


@pytest.fixture
async def posted(world: World, user: str, conversation: str) -> dict[str, Any]:
    """A question, whose chat is running."""
    posted = await world.post(conversation, user)
    assert (await world.claim(posted["job"]))["claimed"]
    return posted


def told(job_id: str, content: str, status: str = "completed", **more: Any) -> dict[str, Any]:
    """How an answer is told of."""
    return {
        "id": answer_id(job_id),
        "role": "assistant",
        "status": status,
        "length": len(content.encode()),
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        **more,
    }


async def test_an_answers_id_is_the_jobs(world: World) -> None:
    """The same in Python and in SQL, a UUID of version 8."""
    for _ in range(50):
        job_id = str(uuid.uuid4())
        found = await world.hand.fetchval("select uvian._answer_id($1::uuid)", job_id)
        assert found == answer_id(job_id)
        assert (uuid.UUID(found).version, uuid.UUID(found).variant) == (8, uuid.RFC_4122)


async def test_a_settlement_stores_the_answer(
    world: World, posted: dict[str, Any], conversation: str
) -> None:
    """With usage, as a reply, in the next position; the job's result is its id."""
    job = posted["job"]
    item = {
        "content": TEXT,
        "usage": {"completion_tokens": 5},
        "reply_to": posted["message"]["id"],
    }
    answer = await world.settle(job, output={"a": 1}, result_id=str(uuid.uuid4()), message=item)
    question, row = await world.messages(conversation)
    assert answer["message"] == told(
        job["id"], TEXT, conversation_id=conversation, reply_to=question["id"]
    )
    assert (row["id"], row["position"], row["role"]) == (answer_id(job["id"]), 2, "assistant")
    assert (row["content"], row["status"], row["usage"]) == (
        TEXT,
        "completed",
        {"completion_tokens": 5},
    )
    assert (row["job_id"], row["reply_to"], row["user_id"]) == (job["id"], question["id"], None)
    assert (await world.row(job))["result_id"] == row["id"]


async def test_nobody_chooses_where_an_answer_goes(
    world: World, posted: dict[str, Any], conversation: str
) -> None:
    """Id, conversation, role and status are the job's; a reply to elsewhere is none."""
    stranger = await world.user(100)
    elsewhere = await world.post(await world.conversation(stranger), stranger)
    item = {
        "id": str(uuid.uuid4()),
        "conversation_id": elsewhere["message"]["conversation_id"],
        "role": "system",
        "status": "cancelled",
        "user_id": stranger,
        "content": TEXT,
        "reply_to": elsewhere["message"]["id"],
    }
    await world.settle(posted["job"], message=item)
    row = (await world.messages(conversation))[-1]
    assert (row["id"], row["role"]) == (answer_id(posted["job"]["id"]), "assistant")
    assert (row["status"], row["user_id"], row["reply_to"]) == ("completed", None, None)
    assert len(await world.messages(elsewhere["message"]["conversation_id"])) == 1


async def test_the_question_is_the_jobs_unless_the_worker_says(
    world: World, posted: dict[str, Any], conversation: str
) -> None:
    """``message_id`` of the input, without a word from the worker."""
    await world.settle(posted["job"], message={"content": TEXT})
    assert (await world.messages(conversation))[-1]["reply_to"] == posted["message"]["id"]


async def test_an_answer_is_stored_once_whoever_repeats_it(
    world: World, posted: dict[str, Any], conversation: str
) -> None:
    """At once and again: the first is stored, the same for ever; a zombie stores nothing."""
    answers = await asyncio.gather(
        *(world.settle(posted["job"], message={"content": str(n)}) for n in range(6))
    )
    assert all(answer == answers[0] for answer in answers)
    assert len(await world.messages(conversation)) == 2
    assert answers[0]["message"]["length"] == 1
    assert not (await world.settle(posted["job"], worker="w2", message={"content": "z"}))["settled"]
    assert await world.settle(posted["job"], "failed") == answers[0]
    assert len(await world.messages(conversation)) == 2


async def test_an_overtaken_run_stores_nothing(
    world: World, posted: dict[str, Any], conversation: str
) -> None:
    """Its lease expired, another run has the job: what it says comes too late."""
    await world.expire(posted["job"])
    await world.sweep()
    late = await world.settle(posted["job"], message={"content": "late"})
    assert (late["settled"], late.get("status")) == (False, None)
    await world.make_due(posted["job"])
    again = await world.claim({**posted["job"], "run": 2}, "w2")
    await world.settle(again, worker="w2", message={"content": "in time"})
    assert [m["content"] for m in await world.messages(conversation)][1:] == ["in time"]


@pytest.mark.parametrize("outcome", ["failed", "retry", "interrupted", "not_mine"])
async def test_only_what_ends_well_or_is_cancelled_is_kept(
    world: World, posted: dict[str, Any], conversation: str, outcome: str
) -> None:
    """A run that fails, or is to run again, leaves no text behind."""
    answer = await world.settle(posted["job"], outcome, message={"content": TEXT})
    assert answer.get("message") is None
    assert len(await world.messages(conversation)) == 1


async def test_a_cancelled_answer_is_kept_and_paid_for_pro_rata(
    world: World, posted: dict[str, Any], user: str, conversation: str
) -> None:
    """As far as it was written; never more than was reserved."""
    await world.cancel(posted["job"])
    answer = await world.settle(
        posted["job"], "cancelled", charge=0.25, message={"content": "Bec", "usage": {"n": 1}}
    )
    assert (answer["cost"], answer["message"]["status"]) == ("2.500000", "cancelled")
    assert (await world.messages(conversation))[-1]["status"] == "cancelled"
    assert (await world.row(posted["job"]))["result_id"] == answer["message"]["id"]
    assert await world.account(user) == (Decimal("97.5"), Decimal(0))


@pytest.mark.parametrize("message", [None, {"content": ""}, {"content": None}, {}])
async def test_who_kept_nothing_pays_nothing(
    world: World, posted: dict[str, Any], user: str, conversation: str, message: Any
) -> None:
    """A chat that was cancelled before its first word, whatever its worker would charge."""
    item = {} if message is None else {"message": message}
    answer = await world.settle(posted["job"], "cancelled", charge=0.25, **item)
    assert (answer["cost"], answer["message"]) == ("0.000000", None)
    assert await world.account(user) == (Decimal(100), Decimal(0))
    assert len(await world.messages(conversation)) == 1


async def test_an_interrupted_chat_that_was_to_be_cancelled_is(
    world: World, posted: dict[str, Any], conversation: str
) -> None:
    """Its worker stops before it hears of the request: what it has is kept as cancelled."""
    await world.cancel(posted["job"])
    answer = await world.settle(posted["job"], "interrupted", message={"content": "Bec"})
    assert (answer["status"], answer["message"]["status"]) == ("cancelled", "cancelled")
    assert (await world.messages(conversation))[-1]["content"] == "Bec"


async def test_another_run_replaces_the_answer_in_its_place(
    world: World, posted: dict[str, Any], user: str, conversation: str
) -> None:
    """A cancelled chat that is retried: same id, same position, the new text."""
    await world.cancel(posted["job"])
    await world.settle(posted["job"], "cancelled", charge=0.25, message={"content": "Bec"})
    later = await world.post(conversation, user, "And?")
    await world.answered(later["job"], "So.")
    retried = await world.retry(posted["job"], 1)
    await world.answered(retried["job"], "Because.")
    said = [(m["position"], m["content"], m["status"]) for m in await world.messages(conversation)]
    assert said == [
        (1, "Why?", "completed"),
        (2, "Because.", "completed"),
        (3, "And?", "completed"),
        (4, "So.", "completed"),
    ]


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
async def test_another_run_that_has_no_answer_leaves_the_old_one(
    world: World, posted: dict[str, Any], conversation: str, outcome: str
) -> None:
    """It was paid for; the settlement says what is stored, so that clients are told."""
    await world.settle(posted["job"], message={"content": "Because."})
    await world.hand.execute(
        "update uvian.jobs set status = 'queued' where id = $1", posted["job"]["id"]
    )
    again = await world.claim({**posted["job"], "run": 2})
    answer = await world.settle(again, outcome, error={"code": "x"}, error_message="X.")
    assert answer["message"]["sha256"] == hashlib.sha256(b"Because.").hexdigest()
    assert answer["cost"] == "0.000000"
    assert [m["content"] for m in await world.messages(conversation)] == ["Why?", "Because."]
    assert await broken(world) == {}


async def test_jobs_of_other_types_store_no_message(world: World) -> None:
    """Whatever their settlement carries; and their answer does not speak of one."""
    job = await world.started(await world.user())
    answer = await world.settle(job, message={"content": TEXT})
    assert "message" not in answer
    assert await world.hand.fetchval("select count(*) from uvian.messages") == 0


@pytest.mark.parametrize("bad", ["a\u0000b", "\ud800", "x" * 1_048_577])
async def test_a_text_that_cannot_be_stored_is_a_data_error(
    world: World, posted: dict[str, Any], conversation: str, bad: str
) -> None:
    """The batcher finds the item at fault; the job is still there to be failed."""
    with pytest.raises(errors.DataError):
        await world.settle(posted["job"], message={"content": bad})
    assert len(await world.messages(conversation)) == 1
    assert (await world.settle(posted["job"], "failed"))["status"] == "failed"


async def test_many_answers_are_stored_in_one_call(world: World, user: str) -> None:
    """Each in its conversation, as its own ending says."""
    conversations = [await world.conversation(user) for _ in range(6)]
    jobs = [(await world.post(conversation, user))["job"] for conversation in conversations]
    await world.claim_all(jobs)
    outcomes = ["completed", "cancelled", "failed"] * 2
    answer = await world.call(
        "settle_jobs",
        worker="w1",
        jobs=[
            {"id": job["id"], "run": 1, "outcome": outcome, "message": {"content": str(n)}}
            for n, (job, outcome) in enumerate(zip(jobs, outcomes, strict=True))
        ],
    )
    assert [a["status"] for a in answer["jobs"]] == outcomes
    stored = [
        [(m["content"], m["status"]) for m in await world.messages(conversation)][1:]
        for conversation in conversations
    ]
    assert stored == [
        [("0", "completed")],
        [("1", "cancelled")],
        [],
        [("3", "completed")],
        [("4", "cancelled")],
        [],
    ]


# ─── told ────────────────────────────────────────────────────────────────────────────────────────


async def announced(world: World) -> dict[str, dict[str, Any]]:
    """What a sweep would announce now, by job."""
    await world.hand.execute(
        "update uvian.job_state set announce_at = now() where announce_at is not null"
    )
    return {ending["id"]: ending for ending in (await world.sweep())["announce"]}


async def test_the_sweep_announces_the_answer_too(
    world: World, posted: dict[str, Any], conversation: str
) -> None:
    """Everything that message.completed needs: length, hash, and the text."""
    job_id = posted["job"]["id"]
    await world.settle(posted["job"], message={"content": TEXT})
    ending = (await announced(world))[job_id]
    assert ending["conversation_id"] == conversation
    assert ending["message"] == told(
        job_id,
        TEXT,
        text=TEXT,
        conversation_id=conversation,
        reply_to=posted["message"]["id"],
    )


@pytest.mark.parametrize(("length", "is_told"), [(65_536, True), (65_538, False)])
async def test_a_long_answer_is_announced_without_its_text(
    world: World, posted: dict[str, Any], length: int, is_told: bool
) -> None:
    """Up to 64 kB in bytes; beyond that the row is read."""
    text = "ü" * (length // 2)
    await world.settle(posted["job"], message={"content": text})
    message = (await announced(world))[posted["job"]["id"]]["message"]
    assert (message["length"], message["text"]) == (length, text if is_told else None)


async def test_a_chat_without_an_answer_is_announced_so(
    world: World, posted: dict[str, Any], conversation: str
) -> None:
    """The reader then voids what was shown: message.reset, final. A job that is no chat has neither."""
    await world.settle(posted["job"], "failed", error={"code": "x"}, error_message="X.")
    other = await world.started(await world.user())
    await world.settle(other)
    endings = await announced(world)
    ending = endings[posted["job"]["id"]]
    assert (ending["conversation_id"], ending["message"]) == (conversation, None)
    assert (endings[other["id"]]["conversation_id"], endings[other["id"]]["message"]) == (
        None,
        None,
    )


async def test_an_answer_that_was_deleted_is_no_longer_told(
    world: World, posted: dict[str, Any]
) -> None:
    """What is told is what is stored now."""
    await world.settle(posted["job"], message={"content": TEXT})
    await world.service.delete(
        "messages", where=[Filter("id", "eq", answer_id(posted["job"]["id"]))]
    )
    assert (await announced(world))[posted["job"]["id"]]["message"] is None
