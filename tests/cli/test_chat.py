"""``uvian chat``: typed at a terminal, asked by a script, refused."""

from __future__ import annotations

import signal
from pathlib import Path

import orjson
import pytest

from tests.adapters import over_postgres_only
from tests.cli.conftest import Programs, Uvian
from uvian_worker.cli.errors import ExitCode

_ROOT = Path(__file__).parents[2]
_NOBODY = "00000000-0000-4000-8000-0000000000aa"
_SHORT = '{"pieces": 5, "pause": 0}'
_LONG = '{"pieces": 4000, "pause": 0.02}'


def start_worker(programs: Programs) -> None:
    """A real worker, whose model talks as it is asked to."""
    worker = programs.start("arq", "tests.processes.settings.WorkerSettings", PYTHONPATH=str(_ROOT))
    worker.says("at a time")


def said(uvian: Uvian) -> list[tuple[str, str]]:
    """Role and status of all messages, in their order."""
    rows = uvian.sql("select role, status from uvian.messages order by position")
    return [(row["role"], row["status"]) for row in rows]


@pytest.mark.processes
def test_a_conversation_at_the_terminal(uvian: Uvian, programs: Programs) -> None:
    """Words come while the answer is written; Ctrl-C stops it and keeps them; Ctrl-D ends with 0."""
    start_worker(programs)
    chat = programs.on_terminal("chat", "--user", uvian.user_id)
    chat.says("> ")
    chat.types(f"{_SHORT}\r")
    chat.says(" tokens")
    chat.says("> ", times=2)
    chat.types(f"{_LONG}\r")
    chat.says('"pause": 0.02}')
    chat.writes(200)
    assert "stopped" not in chat.output
    chat.types("\x03")
    chat.says("○ stopped")
    chat.says("> ", times=3)
    assert "stored as far as it was written" in chat.output
    chat.types(f"{_SHORT}\r")
    chat.says(" tokens", times=3)
    chat.says("> ", times=4)
    chat.types("\x04")
    assert chat.ends() == 0, chat.output
    assert "Traceback" not in chat.output
    question, stopped = ("user", "completed"), ("assistant", "cancelled")
    answer = ("assistant", "completed")
    assert said(uvian) == [question, answer, question, stopped, question, answer]
    (row,) = uvian.sql(
        "select id, (select count(*) from uvian.conversations) from uvian.conversations"
    )
    assert f"uvian chat --conversation {row['id']}" in chat.output

    again = programs.on_terminal("chat", "--user", uvian.user_id, "--conversation", str(row["id"]))
    again.says("Ctrl-D ends.")
    assert "(stopped)" in again.output
    assert again.output.count(_SHORT) == 2
    again.says("> ", times=4)  # three questions that were, and the prompt
    assert again.is_left() == 0, again.output


@over_postgres_only
@pytest.mark.processes
def test_a_script_gets_one_document_and_the_ending_as_exit_code(
    uvian: Uvian, programs: Programs
) -> None:
    """What it says of the answer is what is stored; a pipe gets the answer and nothing else."""
    start_worker(programs)
    asked = ("chat", _SHORT, "--user", uvian.user_id)
    document = uvian.document(*asked, "--json")
    (stored,) = uvian.sql("select * from uvian.messages where role = 'assistant'")
    assert document == {
        "conversation_id": str(stored["conversation_id"]),
        "message_id": str(stored["reply_to"]),
        "answer_id": str(stored["id"]),
        "job_id": str(stored["job_id"]),
        "status": "completed",
        "text": stored["content"],
        "usage": orjson.loads(stored["usage"]),
        "cost": document["cost"],
        "error": None,
    }
    goes_on = ("--conversation", document["conversation_id"])
    piped = uvian("chat", "--user", uvian.user_id, *goes_on, stdin=_SHORT)
    assert piped.exit_code == 0, piped.output
    rows = uvian.sql(
        "select content from uvian.messages where role = 'assistant' order by position"
    )
    assert piped.stdout.rstrip("\n") == rows[-1]["content"].rstrip("\n")
    assert " tokens" in piped.stderr
    failed = uvian("chat", "no JSON", "--user", uvian.user_id, "--json")
    assert failed.exit_code == ExitCode.JOB_FAILED
    told = orjson.loads(failed.stdout)
    assert (told["status"], told["text"], told["answer_id"]) == ("failed", None, None)
    assert told["error"]["code"]


@over_postgres_only
@pytest.mark.processes
def test_without_a_worker_the_question_says_that_it_waits(uvian: Uvian, programs: Programs) -> None:
    """So does one behind it; one that would not wait is refused; Ctrl-C takes a question back."""
    first = programs.uvian("chat", "hello", "--user", uvian.user_id)
    first.says("Waiting for a worker")
    (row,) = uvian.sql("select id from uvian.conversations")
    here = ("--user", uvian.user_id, "--conversation", str(row["id"]))
    refused = uvian("chat", "hello?", *here, "--on-busy", "reject")
    assert refused.exit_code == ExitCode.REFUSED
    assert "is being answered" in refused.stderr
    assert "--on-busy" in refused.stderr
    second = programs.uvian("chat", "hello?", *here)
    second.says("Waiting for the answer before it")
    for program in (second, first):
        program.process.send_signal(signal.SIGINT)
        assert program.ends() == ExitCode.INTERRUPTED, program.output
        assert "○ stopped, nothing of it was written" in program.output
    rows = uvian.sql("select status from uvian.jobs")
    assert [row["status"] for row in rows] == ["cancelled", "cancelled"]


@pytest.mark.database
def test_what_cannot_be_asked_is_said_in_a_sentence(uvian: Uvian) -> None:
    """Each with the next step, and nothing is stored."""
    me = ("--user", uvian.user_id)
    for words, code, sentence in (
        (("chat", " ", *me), ExitCode.USAGE, "Nothing is asked."),
        (("chat", "a", "--conversation", "x", *me), ExitCode.USAGE, "'x' is not the id of a"),
        (
            ("chat", "a", "--conversation", _NOBODY, *me),
            ExitCode.REFUSED,
            "There is no conversation",
        ),
        (("chat", "a", "--user", _NOBODY), ExitCode.REFUSED, "no such user"),
        (("chat", "a"), ExitCode.USAGE, "Whose job is it?"),
    ):
        result = uvian(*words)
        assert result.exit_code == code, (words, result.output)
        assert sentence in result.stderr
        assert "→" in result.stderr
    assert said(uvian) == []


@pytest.mark.database
def test_a_question_that_cannot_be_paid_for_is_refused(uvian: Uvian) -> None:
    """The sentence says what it costs and how credits are granted; no empty conversation is left."""
    uvian.sql("insert into uvian.job_prices (type, amount) values ('chat', 5)")
    result = uvian("chat", "hello", "--user", uvian.user_id)
    assert result.exit_code == ExitCode.REFUSED
    assert "credits" in result.stderr
    assert f"uvian credits grant {uvian.user_id}" in " ".join(result.stderr.split())
    assert uvian.sql("select id from uvian.conversations") == []


@over_postgres_only
@pytest.mark.processes
def test_a_refused_question_at_the_terminal_may_be_followed_by_another(
    uvian: Uvian, programs: Programs
) -> None:
    """In the same conversation; left without one that was taken, here or elsewhere, it was never there."""
    start_worker(programs)
    uvian.sql("insert into uvian.job_prices (type, amount) values ('chat', 5)")
    for kept, asked in enumerate(("nowhere", "here", "elsewhere")):
        chat = programs.on_terminal("chat", "--user", uvian.user_id)
        chat.says("> ")
        chat.types(f"{_SHORT}\r")
        chat.says("uvian credits grant")
        chat.says("> ", times=2)
        if asked != "nowhere":
            assert uvian("credits", "grant", uvian.user_id, "9").exit_code == ExitCode.OK
        if asked == "here":
            chat.types(f"{_SHORT}\r")
            chat.says(" tokens")
            chat.says("> ", times=3)
        elif asked == "elsewhere":
            (row,) = uvian.sql(
                "select id from uvian.conversations order by created_at desc limit 1"
            )
            there = ("--user", uvian.user_id, "--conversation", str(row["id"]))
            assert uvian("chat", _SHORT, *there).exit_code == ExitCode.OK
        chat.types("\x04")
        assert chat.ends() == 0, chat.output
        assert len(uvian.sql("select id from uvian.conversations")) == kept
        assert ("To go on:" in chat.output) is (asked == "here")
    assert said(uvian).count(("assistant", "completed")) == 2
