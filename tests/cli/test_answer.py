"""How an answer is written on a terminal: wrapped between words, harmless, begun again, whole."""

from __future__ import annotations

import io
import random
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.cli.test_watching import event
from uvian_worker.cli.terminal.answer import AnswerView, Wrapped, printable
from uvian_worker.events.job_view import WatchedJob

_TEXT = (
    "A word, then another one; „Grüße“ 漢字かな交じり文 x\n\n"
    + "long" * 12
    + " and a tail of words. " * 3
)
_BACK = re.compile(r"(.*)\x1b\[(\d+)D\x1b\[K", re.DOTALL)


def on_screen(written: str) -> str:
    """What stands there once the cursor has gone back and erased."""
    while (found := _BACK.match(written)) is not None:
        written = found[1][: -int(found[2])] + written[found.end() :]
    return written


@pytest.mark.parametrize("width", [8, 20, 79])
@pytest.mark.parametrize("longest", [1, 3, 200])
def test_words_are_kept_whole_however_they_arrive(width: int, longest: int) -> None:
    """No line is too long, no character is lost, and the pieces make no difference."""
    chance, rest = random.Random(width * longest), _TEXT
    written: list[str] = []
    wrapped = Wrapped(written.append, width)
    while rest:
        size = chance.randint(1, longest)
        wrapped.write(rest[:size])
        rest = rest[size:]
    whole: list[str] = []
    Wrapped(whole.append, width).write(_TEXT)
    screen = on_screen("".join(written))
    assert screen == on_screen("".join(whole))
    assert all(cell_len(line) <= width for line in screen.split("\n"))
    assert "".join(screen.split()) == "".join(_TEXT.split())
    for word in ("another", "„Grüße“", "words."):
        assert word in screen


def test_a_model_does_not_steer_the_terminal() -> None:
    """Control characters and reversed directions are left out; letters of every script stay."""
    assert printable("a\x1b[2Jb\r\b\a\u202ec\td\n") == "a[2Jbc    d\n"
    assert printable("e\u0301 👩‍👧 漢字 क्‍ष") == "e\u0301 👩‍👧 漢字 क्‍ष"


def told(type_: str, seq: int, run: int = 1, **data: Any) -> Any:
    """What happens to the message."""
    return event(f"message.{type_}", seq, run, message_id="m", **data)


def test_an_answer_that_begins_again_says_so() -> None:
    """What was written before stays above; what is stored in the end stands there whole."""
    screen = Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    job = WatchedJob("1", "chat")
    with AnswerView(screen, job) as view:
        for heard in (
            told("started", 1, conversation_id="c", reply_to="q"),
            told("delta", 2, offset=0, text="Half a thou"),
            told("reset", 3, run=2, final=False),
            told("started", 4, run=2, conversation_id="c", reply_to="q"),
            told("delta", 5, run=2, offset=0, text="Another"),
        ):
            job.apply(heard)
            view.changed()
        view.finish("Another thought.")
    assert isinstance(screen.file, io.StringIO)
    lines = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]|\r", "", screen.file.getvalue()).split("\n")
    assert [line.strip() for line in lines if line.strip()][-3:] == [
        "Half a thou",
        "↻ It begins again.",
        "Another thought.",
    ]


def test_elsewhere_an_answer_is_written_once_and_as_it_is() -> None:
    """A pipe gets no line ends that the model did not write."""
    screen = Console(file=io.StringIO(), width=20)
    job = WatchedJob("1", "chat")
    text = "A line that is longer than twenty columns"
    with AnswerView(screen, job) as view:
        job.apply(told("started", 1, conversation_id="c", reply_to="q"))
        job.apply(told("delta", 2, offset=0, text=text[:9]))
        view.changed()
        view.finish(text)
    assert isinstance(screen.file, io.StringIO)
    assert screen.file.getvalue() == f"{text}\n"
