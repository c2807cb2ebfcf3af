"""Palettes by a chat model: checked, asked for once more, or replaced by harmonies; told where from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from executors import errors
from executors.imaging.palettes import harmonies
from executors.providers.base import ChatDelta
from executors.stages import palette_generation
from repositories.errors import DataError
from tests.executors.bench import Bench, MemoryJobs, Model, Pictures

ASKED = {
    "logo_description": "a fox",
    "theme_description": "autumn forest",
    "num_palettes": 2,
    "size": 256,
    "seed": 5,
}
FIRST = ["#1d2b1f", "#4a6b3a", "#c8553d", "#e09f3e", "#fff4e0"]
SECOND = ["#22223b", "#4a4e69", "#9a8c98", "#c9ada7", "#f2e9e4"]


def document(*palettes: tuple[str, list[str]]) -> str:
    """What a model that keeps to the form answers."""
    return json.dumps({"palettes": [{"name": n, "colours": c} for n, c in palettes]})


GOOD = document(("Harvest", FIRST), ("Dusk", SECOND))


class Designer:
    """A ``ChatModel`` that answers what the test says, one after the other; it keeps the bill."""

    name = "designer"
    structured = True

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.closed = 0
        self.finish = "stop"

    async def stream(self, messages: Any, **more: Any) -> AsyncGenerator[ChatDelta, None]:
        self.asked.append({"messages": list(messages), **more})
        answer = self.answers.pop(0)
        try:
            await more["request"].save(f"request-{len(self.asked)}")
            if isinstance(answer, Exception):
                raise answer
            for at in range(0, len(answer), 50):
                yield ChatDelta(answer[at : at + 50], model="designer-7b")
            yield ChatDelta(finish_reason=self.finish)  # type: ignore[arg-type]
        finally:
            self.closed += 1


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A generation of two variations."""
    bench = Bench(MemoryJobs(ASKED), Pictures(tmp_path / "images"), Model())
    yield bench
    await bench.pictures.close()


def stored(bench: Bench) -> tuple[list[str], dict[str, Any]]:
    """The names of the palettes that were stored, and what the concept says of them."""
    (concept,) = bench.jobs.concepts
    return [v["name"] for v in concept["variations"]], concept["concept"]["details"]["palettes"]


HARMONIES = [palette.name for palette in harmonies("autumn forest", 2, seed=5)]


async def test_a_model_chooses(bench: Bench) -> None:
    """Its palettes as they are; the concept says whose they are."""
    bench.chat_model = Designer(GOOD)
    settled = await bench.run()
    assert stored(bench) == (["Harvest", "Dusk"], {"source": "model", "model": "designer-7b"})
    assert [v["palette"] for v in settled["output"]["variations"]] == [FIRST, SECOND]
    assert "warnings" not in settled["output"]
    (asked,) = bench.chat_model.asked
    assert "autumn forest" in asked["messages"][-1].content
    palettes = asked["schema"]["properties"]["palettes"]
    assert (palettes["minItems"], palettes["maxItems"]) == (2, 2)
    assert bench.chat_model.closed == 1


@pytest.mark.parametrize("wrapping", ["```json\n{}\n```", "\n {} \n", "```{}```"])
async def test_a_document_in_a_fence(bench: Bench, wrapping: str) -> None:
    """Models without a form of their own like to put one around it."""
    bench.chat_model = Designer(wrapping.replace("{}", GOOD))
    await bench.run()
    assert stored(bench)[1]["source"] == "model"


async def test_names_are_told_apart(bench: Bench) -> None:
    """Two palettes of one name get two."""
    bench.chat_model = Designer(document(("Harvest\u0000  Moon", FIRST), ("Harvest Moon", SECOND)))
    await bench.run()
    assert stored(bench)[0] == ["Harvest Moon", "Harvest Moon 2"]


WRONG = [
    ("Here are your palettes!", "Invalid JSON"),
    ("", "Invalid JSON"),
    (GOOD[:-20], "Invalid JSON"),
    ("{}", "palettes: Field required"),
    ('{"palettes": 7}', "palettes:"),
    (document(("One", FIRST)), "1 palettes instead of 2"),
    (document(("One", FIRST), ("Two", SECOND), ("Three", SECOND)), "3 palettes instead of 2"),
    (document(("One", FIRST), ("Two", SECOND[:4])), "palettes.1.colours"),
    (document(("One", FIRST), ("Two", ["#12", *SECOND[1:]])), "'#12' is not of the form #rrggbb"),
    (document(("One", FIRST), ("Two", ["red", *SECOND[1:]])), "'red' is not of the form #rrggbb"),
    (document(("One", FIRST), ("Two", ["#12345g", *SECOND[1:]])), "is not a colour"),
    (document(("One", FIRST), ("Two", [*SECOND[:4], "#c9ada8"])), "look alike"),
    (document(("One", FIRST), ("Two", ["#6f6f6f", "#7f7f7f", "#8f7f7f", "#8f8f8f", "#8f9fa0"])), "contrast"),
    (document(("One", FIRST), ("Two", FIRST[::-1])), "are the same colours"),
    (document(("One", FIRST), ("", SECOND)), "name has 1 to 80"),
    (GOOD + "x" * 30_000, "no end"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "said"), WRONG)
async def test_what_is_wrong_is_said_once(bench: Bench, answer: str, said: str) -> None:
    """The model hears what was wrong with its answer, and may answer again."""
    bench.chat_model = Designer(answer, GOOD)
    settled = await bench.run()
    if said == "no end":
        assert len(bench.chat_model.asked) == 1, "who has no end is not asked again"
        assert stored(bench)[1]["source"] == "harmony"
        return
    first, second = bench.chat_model.asked
    assert [m.role for m in second["messages"]] == ["system", "user", "assistant", "user"]
    assert second["messages"][2].content == answer
    assert said in second["messages"][3].content
    assert stored(bench)[1] == {"source": "model", "model": "designer-7b"}
    assert "warnings" not in settled["output"]
    assert first["messages"] == second["messages"][:2]


async def test_twice_wrong_is_enough(bench: Bench) -> None:
    """Then it is our harmonies, the concept says why, and the job tells it as a warning."""
    bench.chat_model = Designer("no", document(("One", FIRST)))
    settled = await bench.run()
    assert settled["outcome"] == "completed"
    assert stored(bench) == (
        HARMONIES,
        {"source": "harmony", "model": "designer", "reason": "its answer was of no use."},
    )
    (warning,) = settled["output"]["warnings"]
    assert warning["code"] == "palettes_by_harmony"
    assert warning["message"] == "The model chose no palettes: its answer was of no use."
    assert len(bench.chat_model.asked) == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.ProviderUnavailable(), "The provider is not available at the moment."),
        (errors.ProviderRejected("not about this."), "not about this."),
        (errors.RateLimited(60), "The provider's rate limit is reached."),
        (errors.InvalidInput("no such model."), "no such model."),
    ],
)
async def test_a_model_that_fails_fails_no_job(bench: Bench, error: Exception, reason: str) -> None:
    """It is asked once, and not waited for."""
    bench.chat_model = Designer(error)
    settled = await bench.run()
    assert settled["outcome"] == "completed"
    assert stored(bench) == (
        HARMONIES,
        {"source": "harmony", "model": "designer", "reason": reason},
    )
    assert len(bench.chat_model.asked) == bench.chat_model.closed == 1


async def test_a_theme_that_the_model_refuses(bench: Bench) -> None:
    """A filter's half answer is not asked for again."""
    bench.chat_model = Designer(GOOD)
    bench.chat_model.finish = "content_filter"
    await bench.run()
    assert stored(bench)[1]["reason"] == "it refused the theme."


async def test_a_model_that_hangs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the timeout the stream is closed, and the job goes on."""

    class Hanging(Designer):
        async def stream(self, messages: Any, **more: Any) -> AsyncGenerator[ChatDelta, None]:
            self.asked.append({"messages": messages, **more})
            try:
                yield ChatDelta("{")
                await asyncio.sleep(60)
            finally:
                self.closed += 1

    monkeypatch.setattr(palette_generation, "_TIMEOUT", 0.1)
    bench.chat_model = Hanging()
    assert (await bench.run())["outcome"] == "completed"
    assert stored(bench)[1]["reason"] == "it took too long."
    assert bench.chat_model.closed == 1


async def test_a_bug_is_a_bug(bench: Bench) -> None:
    """Harmonies stand in for a model that fails, and not for code that does."""
    bench.chat_model = Designer(ZeroDivisionError("secret"))
    settled = await bench.run()
    assert settled["error_message"] == "Palette generation failed: an internal error"


async def test_the_offline_voice_is_not_asked(bench: Bench) -> None:
    """Harmonies are the better answer, and no warning."""
    settled = await bench.run()
    assert stored(bench) == (HARMONIES, {"source": "harmony"})
    assert "warnings" not in settled["output"]


async def test_palettes_are_paid_for_once(bench: Bench) -> None:
    """A later run has the same ones; for another theme it asks again."""
    bench.chat_model = Designer(GOOD, document(("Else", FIRST), ("Other", SECOND)))
    bench.jobs.concept_error = DataError("bad")
    await bench.run()
    bench.jobs.concept_error = None
    await bench.run()
    assert stored(bench) == (["Harvest", "Dusk"], {"source": "model", "model": "designer-7b"})
    assert len(bench.chat_model.asked) == 1
    bench.jobs.concepts.clear()
    bench.jobs.input["theme_description"] = "sea"
    await bench.run()
    assert stored(bench)[0] == ["Else", "Other"]


async def test_a_request_is_kept_and_given_back(bench: Bench) -> None:
    """What a vendor was asked by a run that was interrupted is known to the next one."""
    bench.chat_model = Designer(GOOD)
    bench.jobs.checkpoints["palettes_request"] = {"id": "before", "requested": "2 autumn forest"}
    await bench.run()
    assert bench.chat_model.asked[0]["request"].id == "before"
    assert bench.jobs.checkpoints["palettes_request"]["id"] == "request-1"


async def test_a_lease_lost_while_asking(bench: Bench) -> None:
    """No harmony for a job that is another's."""
    bench.chat_model = Designer(GOOD)
    bench.jobs.loses_at_checkpoint = True
    await bench.runner.run("00000000-0000-0000-0000-000000000008", 1)
    assert (bench.jobs.settled, bench.jobs.concepts) == ([], [])
