"""A chat from its question to the stored answer: every end it can have, what is kept, what is told."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from datetime import timedelta
from decimal import Decimal

import pytest

from executors import errors
from executors.chat import ChatExecutor
from executors.events import JobStarted
from executors.providers.base import ChatDelta, ChatUsage
from repositories.jobs import JobRepository
from tests.chat.conftest import NOTHING, Chats, shown
from tests.chat.model import STOP
from tests.redis_servers import eventually
from uvian_common.answers import answer_id
from uvian_worker.client import JobRefused
from uvian_worker.sweep.outbox import Outbox

pytestmark = pytest.mark.database


async def test_an_answer_is_stored_and_told(chats: Chats) -> None:
    """One message, a reply to its question, with the vendor's usage; the job's result is its id."""
    usage = ChatDelta(finish_reason="stop", usage=ChatUsage(12, 5), model="scripted-1")
    row = await chats.run("Weil: ", "„ß“ ", "🎨", usage)
    question, answer = await chats.messages()
    assert (answer.role, answer.content, answer.status) == (
        "assistant",
        "Weil: „ß“ 🎨",
        "completed",
    )
    assert (answer.reply_to, answer.id) == (question.id, answer_id(row["id"]))
    told = {"prompt_tokens": 12, "completion_tokens": 5, "estimated": False}
    assert answer.usage == told
    assert (row["status"], row["result_id"], row["cost"]) == ("completed", answer.id, 10)
    assert row["output"] == {
        "message_id": answer.id,
        "finish_reason": "stop",
        "model": "scripted-1",
        "usage": told,
    }


async def test_what_is_told_is_in_order_and_ends_together(chats: Chats) -> None:
    """The conversation hears the message alone; the job's topic hears all, the answer before the end."""
    row = await chats.run()
    types = [event.type for event in await chats.log(f"job:{row['id']}")]
    assert [t for t in types if t not in ("message.delta", "job.progress")] == [
        "job.queued",
        "job.started",
        "stage.started",
        "message.started",
        "stage.finished",
        "message.completed",
        "job.completed",
    ]
    log = await chats.log()
    assert log[0].type == "message.started"
    assert log[0].data == {
        "message_id": row["result_id"],
        "conversation_id": chats.conversation_id,
        "role": "assistant",
        "reply_to": row["input"]["message_id"],
    }
    assert {event.type for event in log[1:-1]} == {"message.delta"}
    assert "".join(event.data["text"] for event in log[1:-1]) == "Because so."
    assert log[-1].data == {
        "message_id": row["result_id"],
        "role": "assistant",
        "status": "completed",
        "length": 11,
        "sha256": hashlib.sha256(b"Because so.").hexdigest(),
        "text": "Because so.",
    }


async def test_the_model_is_asked_what_the_user_asked(chats: Chats) -> None:
    """History, system prompt and options; the second answer knows the first."""
    await chats.run()
    options = {"system_prompt": "Be brief.", "model": "m-1", "temperature": 0.5, "max_tokens": 9}
    await chats.run("No.", STOP, job_id=await chats.ask("Really?", options=options))
    assert chats.model.asked[1] == [
        ("system", "Be brief."),
        ("user", "Why?"),
        ("assistant", "Because so."),
        ("user", "Really?"),
    ]
    asked = chats.model.options[1]
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("m-1", 0.5, 9)


async def test_a_question_that_waited_hears_the_answer_before_it(chats: Chats) -> None:
    """Two questions at once: the second is answered as if it had been asked after the first answer."""
    first, second = await chats.ask("What is red?"), await chats.ask("And blue?")
    await chats.run("A colour.", STOP, job_id=first)
    await chats.run("Another.", STOP, job_id=second)
    assert chats.model.asked == [
        [("user", "What is red?")],
        [("user", "What is red?"), ("assistant", "A colour."), ("user", "And blue?")],
    ]


async def test_stop_keeps_what_was_written(chats: Chats) -> None:
    """The partial answer is stored as cancelled, told so, and charged by what there is of it."""
    job_id, work = await chats.begin("One, two,", asyncio.Event())
    assert await chats.client.conversations.stop_answer(
        chats.conversation_id, user_id=chats.user_id
    )
    chats.runner.cancel(job_id)  # what the control message does
    await work
    row = await chats.row(job_id)
    _, answer = await chats.messages()
    assert (answer.content, answer.status) == ("One, two,", "cancelled")
    assert answer.usage is not None
    assert answer.usage["estimated"]
    assert (row["status"], row["result_id"]) == ("cancelled", answer.id)
    assert Decimal(str(row["cost"])) == 1  # a tenth of the price: it is hardly anything
    assert chats.model.closed == 1
    end, job_end = (await chats.log(f"job:{job_id}"))[-2:]
    assert (end.type, end.data["status"], end.data["text"]) == (
        "message.completed",
        "cancelled",
        "One, two,",
    )
    assert job_end.type == "job.cancelled"


async def test_stop_before_the_first_word_keeps_nothing(chats: Chats) -> None:
    """Nothing is stored, nothing is charged, and clients hear that there will be no answer."""
    job_id, work = await chats.begin(asyncio.Event())
    chats.runner.cancel(job_id)
    await work
    row = await chats.row(job_id)
    assert (row["status"], row["result_id"], row["cost"]) == ("cancelled", None, 0)
    assert len(await chats.messages()) == 1
    assert [(e.type, e.data.get("final")) for e in await chats.log()] == [
        ("message.started", None),
        ("message.reset", True),
    ]


async def test_a_chat_that_is_cancelled_in_the_queue_says_so(chats: Chats) -> None:
    """The conversation hears that no answer comes, before the job's end."""
    job_id = await chats.ask()
    await chats.client.conversations.stop_answer(chats.conversation_id)
    await eventually(lambda: _has(chats, "message.reset"))
    assert [e.type for e in await chats.log(f"job:{job_id}")][-2:] == [
        "message.reset",
        "job.cancelled",
    ]


async def test_a_deploy_begins_the_answer_anew(chats: Chats) -> None:
    """Interrupted by SIGTERM: queued again, no attempt burned; the other run voids what was told."""
    client = chats.listen()
    job_id, work = await chats.begin("Half an ans", asyncio.Event())
    await eventually(lambda: [m.text for m in shown(client)] == ["Half an ans"])
    await chats.runner.drain(grace=0)
    await work
    row = await chats.row(job_id)
    assert (row["status"], row["attempt"], row["run"]) == ("queued", 0, 2)
    assert len(await chats.messages()) == 1
    await chats.run("A whole one.", STOP, job_id=job_id, run=2)
    assert [m.content for m in await chats.messages()] == ["Why?", "A whole one."]
    types = [event.type for event in await chats.log()]
    assert [t for t in types if t != "message.delta"] == [
        "message.started",
        "message.reset",
        "message.started",
        "message.completed",
    ]
    await eventually(
        lambda: [(m.text, m.state) for m in shown(client)] == [("A whole one.", "completed")]
    )


async def test_a_timeout_is_retried(chats: Chats, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that takes longer than it may is begun anew, and burns an attempt."""
    monkeypatch.setattr(ChatExecutor, "timeout", timedelta(milliseconds=200))
    row = await chats.run("Half an ans", asyncio.Event())
    assert (row["status"], row["attempt"]) == ("queued", 1)
    assert chats.model.closed == 1
    assert len(await chats.messages()) == 1


async def test_a_provider_that_breaks_off_is_asked_again(chats: Chats) -> None:
    """Three times; then the job has failed, nothing is stored, nothing charged, and clients hear it."""
    job_id = await chats.ask()
    script = ("Half", errors.ProviderUnavailable("the connection was cut."))
    for run in (1, 2):
        await chats.run(*script, job_id=job_id, run=run)
    row = await chats.run(*script, job_id=job_id, run=3)
    assert (row["status"], row["cost"]) == ("failed", 0)
    assert row["error_message"] == "Answering failed: the connection was cut."
    assert len(await chats.messages()) == 1
    last = (await chats.log())[-1]
    assert (last.type, last.data["final"]) == ("message.reset", True)


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        ((errors.ProviderRejected("no."),), "failed", "Answering failed: no."),
        (
            (ChatDelta(finish_reason="content_filter"),),
            "failed",
            "Answering failed: the provider's content filter let nothing through.",
        ),
        (
            (ChatDelta(finish_reason="length"),),
            "failed",
            "Answering failed: the answer is longer than max_tokens allows.",
        ),
        ((STOP,), "queued", None),
        ((" \n", STOP), "queued", None),
        (("cut",), "queued", None),
        ((errors.RateLimited(30),), "queued", None),
        (("x", ZeroDivisionError("secret")), "queued", None),
    ],
)
async def test_answers_that_are_none(
    chats: Chats, script: tuple[str, ...], status: str, message: str | None
) -> None:
    """Refused, filtered, empty or cut: never an empty bubble; what may work later is tried again."""
    row = await chats.run(*script)
    assert (row["status"], row["error_message"]) == (status, message)
    assert len(await chats.messages()) == 1


async def test_a_filtered_answer_is_kept_with_a_warning(chats: Chats) -> None:
    """What the filter let through is the user's; the output says that it was cut."""
    row = await chats.run("As far as th", ChatDelta(finish_reason="content_filter"))
    assert row["status"] == "completed"
    assert [warning["code"] for warning in row["output"]["warnings"]] == ["content_filter"]
    assert (await chats.messages())[1].content == "As far as th"


async def test_an_answer_without_end_is_cut_and_its_connection_closed(chats: Chats) -> None:
    """A million bytes are stored; the model is not listened to any longer."""
    row = await chats.run(*["0123456789" * 1000] * 150, asyncio.Event())
    assert row["output"]["finish_reason"] == "length"
    assert chats.model.closed == 1
    assert len((await chats.messages())[1].content) == 1_000_000


async def test_of_a_long_answer_length_and_hash_are_told(chats: Chats) -> None:
    """Beyond 64 kB the text is not repeated, and who followed has it all the same."""
    client = chats.listen()
    await eventually(lambda: client._cursors)
    text = "漢字 ß 🎨 " * 6000
    job_id = await chats.ask()
    await chats.run(*(text[n : n + 700] for n in range(0, len(text), 700)), STOP, job_id=job_id)
    last = (await chats.log())[-1]
    assert (last.type, last.data["text"]) == ("message.completed", None)
    raw = (await chats.messages())[1].content.encode()
    assert (last.data["length"], last.data["sha256"]) == (len(raw), hashlib.sha256(raw).hexdigest())
    await eventually(lambda: [m.state for m in shown(client)] == ["completed"])
    assert shown(client)[0].raw == raw


async def test_a_strangers_conversation_is_not_found(chats: Chats) -> None:
    """A chat in it cannot be created, and one whose user was removed says nothing there."""
    stranger = str(uuid.uuid4())
    await chats.execute("insert into auth.users (id) values ($1)", uuid.UUID(stranger))
    asked = {"conversation_id": chats.conversation_id}
    with pytest.raises(JobRefused, match="not_found"):
        await chats.client.submit(stranger, "chat", asked)
    job_id = await chats.ask()
    await chats.execute("delete from uvian.conversation_members")
    await chats.runner.run(job_id, 1)
    row = await chats.row(job_id)
    assert (row["status"], row["error"]["code"]) == ("failed", "not_found")
    assert await chats.log() == []
    assert chats.model.asked == []


async def test_a_conversation_that_is_deleted_meanwhile(chats: Chats) -> None:
    """There is nowhere to store the answer: the job ends, and nothing is left of it."""
    release = asyncio.Event()
    job_id, work = await chats.begin("Half", release, STOP)
    await chats.execute("delete from uvian.conversations")
    release.set()
    await work
    row = await chats.row(job_id)
    assert (row["status"], row["result_id"]) == ("completed", None)
    assert (await chats.log())[-1].type == "message.reset"


async def test_a_zombies_tokens_are_refused_and_it_stops_paying(chats: Chats) -> None:
    """Another run has begun: the old one's next piece is fenced, and its connection closed."""
    release = asyncio.Event()
    job_id, work = await chats.begin("Old", release, " words", asyncio.Event(), "never", STOP)
    await chats.execute("update uvian.sweeps set last_at = now(), hold_until = now()")
    await chats.execute("update uvian.job_leases set expires_at = now() - interval '1 min'")
    await chats.database.call("sweep_jobs", request={})
    other = JobRepository(chats.database, "worker-2", lambda _: None)
    assert not isinstance(await other.claim(job_id, 2), str)
    ref = (chats.sink.told[0][0])._replace(run=2)
    await chats.sink.publisher.emit(ref, JobStarted(job_type="chat", worker="worker-2"))
    release.set()
    await work
    assert chats.model.closed == 1
    assert (await chats.row(job_id))["status"] == "processing"
    assert "words" not in str([event.data for event in await chats.log()])
    await other.close()


async def test_a_flush_in_the_middle_heals(chats: Chats) -> None:
    """Redis forgets everything: the next piece is a snapshot, and every client has the whole text."""
    flushed, end = asyncio.Event(), asyncio.Event()
    client = chats.listen()
    _, work = await chats.begin("Before, ", flushed, "after", end, ".", STOP)
    await eventually(lambda: [m.text for m in shown(client)] == ["Before, "])
    await chats.redis.flushall()
    flushed.set()
    await eventually(lambda: [m.text for m in shown(client)] == ["Before, after"])
    late = chats.listen()
    await eventually(lambda: [m.text for m in shown(late)] == ["Before, after"])
    end.set()
    await work
    (stored,) = (await chats.messages())[1:]
    for each in (client, late):
        await eventually(lambda each=each: [m.state for m in shown(each)] == ["completed"])
        assert shown(each)[0].text == stored.content == "Before, after."


async def test_a_lost_announcement_is_told_by_the_sweep(chats: Chats) -> None:
    """The worker died after the settlement: whoever sweeps tells of answer and job, once."""
    row = await chats.run()
    await chats.runner.close()
    await chats.sink.publisher.flush()
    await chats.redis.flushall()
    await chats.execute("update uvian.job_state set announce_at = now()")
    sweep = await chats.database.call("sweep_jobs", request={})
    outbox = Outbox(NOTHING, chats.sink.publisher)
    for _ in range(2):
        outbox.announce(sweep["announce"], lambda _: None)
    assert [event.type for event in await chats.log()] == ["message.completed"]
    assert [event.type for event in await chats.log(f"job:{row['id']}")] == [
        "message.completed",
        "job.completed",
    ]
    assert (await chats.log())[0].data["text"] == "Because so."


async def test_a_vendors_request_is_kept_and_handed_to_the_next_run(chats: Chats) -> None:
    """Where a vendor has request ids, another run can cancel what an earlier one has asked for."""
    job_id, work = await chats.begin("Half", asyncio.Event())
    request = chats.model.options[0]["request"]
    assert request.id is None
    await request.save("vendor-7")
    request.report("waiting for a machine")
    await chats.runner.drain(grace=0)
    await work
    await chats.run(job_id=job_id, run=2)
    assert chats.model.options[1]["request"].id == "vendor-7"
    progress = [e.data for e in await chats.log(f"job:{job_id}") if e.type == "job.progress"]
    assert progress[0]["message"] == "waiting for a machine"


async def test_a_question_that_is_too_long_is_refused_in_words(chats: Chats) -> None:
    """The user reads how long it is; the conversation hears that there is no answer."""
    row = await chats.run(job_id=await chats.ask("word " * 10_000))
    assert row["error"]["code"] == "invalid_input"
    assert row["error_message"].startswith("The question is too long")
    assert [event.type for event in await chats.log()] == ["message.reset"]


async def _has(chats: Chats, type_: str) -> bool:
    return type_ in [event.type for event in await chats.log()]
