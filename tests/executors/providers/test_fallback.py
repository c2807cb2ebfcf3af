"""Several models in place of one."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest

from executors.errors import (
    AccountRefused,
    ExecutorError,
    InvalidInput,
    LeaseLost,
    ProviderFailed,
    ProviderRejected,
    ProviderUnavailable,
    RateLimited,
)
from executors.providers.base import (
    ChatDelta,
    ChatMessage,
    GeneratedImage,
    VendorRequest,
)
from executors.providers.fallback import FallbackChatModel, FallbackImageModel
from executors.providers.openai import OpenAIChatModel
from executors.providers.transport import pending_requests
from tests.executors.providers.asking import Asking
from tests.executors.providers.conftest import ONCE, MakeOpenAIClient
from tests.executors.providers.lab import faults
from tests.executors.providers.lab.faults import Fault
from tests.executors.providers.lab.server import Lab
from tests.executors.providers.models import chat_model, image_model

QUESTION = [ChatMessage("user", "Hi")]


class Scripted:
    """Both kinds of model: says its words, then raises its error, if it has one."""

    structured = True

    def __init__(self, name: str, error: ExecutorError | None = None, *words: str) -> None:
        self.name = name
        self.error = error
        self.words = words
        self.asked: list[dict[str, Any]] = []
        self.closed = False

    async def stream(self, messages: Any, **asked: Any) -> AsyncGenerator[ChatDelta, None]:
        self.asked.append(asked)
        try:
            for word in self.words:
                yield ChatDelta(word)
            if self.error is not None:
                raise self.error
            yield ChatDelta("", "stop", model=self.name)
        finally:
            self.closed = True

    async def generate(self, **asked: Any) -> GeneratedImage:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return GeneratedImage(b"", self.name, "m")

    refine = generate


async def said(model: FallbackChatModel) -> list[ChatDelta]:
    """All of an answer."""
    return [delta async for delta in model.stream(QUESTION)]


GOES_ON = [
    ProviderUnavailable("away"),
    RateLimited(5),
    AccountRefused("no money"),
    ProviderFailed("broken"),
]
STOPS = [ProviderRejected("no"), InvalidInput("no"), LeaseLost()]


@pytest.mark.parametrize("error", GOES_ON, ids=lambda e: type(e).__name__)
async def test_an_outage_goes_on_to_the_next(error: ExecutorError) -> None:
    """Away, busy, or not paid for: the next one answers, alone."""
    first, second = Scripted("a", error), Scripted("b", None, "Hello")
    deltas = await said(FallbackChatModel([first, second]))
    assert [d.text for d in deltas] == ["Hello", ""]
    made = await FallbackImageModel([first, second]).generate(subject="s", theme="t", size=1)
    assert made.provider == "b"
    changed = await FallbackImageModel([first, second]).refine(
        original=b"", prompt="p", width=1, height=1
    )
    assert changed.provider == "b"


@pytest.mark.parametrize("error", STOPS, ids=lambda e: type(e).__name__)
async def test_a_refusal_does_not(error: ExecutorError) -> None:
    """Nobody shops around for a vendor that does not mind."""
    second = Scripted("b", None, "Hello")
    with pytest.raises(type(error)):
        await said(FallbackChatModel([Scripted("a", error), second]))
    with pytest.raises(type(error)):
        await FallbackImageModel([Scripted("a", error), second]).generate(
            subject="s", theme="t", size=1
        )
    assert second.asked == []


async def test_an_answer_is_one_vendors() -> None:
    """Once text was passed on, its vendor's fault is the answer's."""
    first, second = Scripted("a", ProviderUnavailable("cut"), "Hel"), Scripted("b", None, "Hello")
    heard = []

    async def listen() -> None:
        async for delta in FallbackChatModel([first, second]).stream(QUESTION):
            heard.append(delta.text)  # noqa: PERF401 - until it breaks

    with pytest.raises(ProviderUnavailable):
        await listen()
    assert (heard, second.asked) == (["Hel"], [])


async def test_a_models_name_is_its_vendors() -> None:
    """The next vendor has no model of that name: it answers with its own."""
    first, second = Scripted("a", RateLimited(1)), Scripted("b", None, "Hello")
    models = FallbackChatModel([first, second])
    async for _ in models.stream(QUESTION, model="gpt", temperature=0.1):
        pass
    assert (first.asked[0]["model"], second.asked[0]["model"]) == ("gpt", None)
    assert second.asked[0]["temperature"] == 0.1


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([RateLimited(30), RateLimited(5), RateLimited(9)], 5.0),
        ([ProviderUnavailable("x"), RateLimited(9)], 9.0),
        ([RateLimited(9), ProviderUnavailable("x")], 9.0),
        ([ProviderUnavailable("x"), AccountRefused("y")], ProviderUnavailable),
        ([AccountRefused("x"), AccountRefused("y")], AccountRefused),
        ([ProviderUnavailable("x"), ProviderRejected("y")], ProviderRejected),
    ],
)
async def test_when_all_fail_the_most_hopeful_error_is_told(
    errors: list[ExecutorError], expected: Any
) -> None:
    """Who comes back first, else who may come back, else why nobody will."""
    models = [Scripted(str(i), error) for i, error in enumerate(errors)]
    with pytest.raises(ExecutorError) as caught:
        await said(FallbackChatModel(models))
    if isinstance(expected, float):
        assert isinstance(caught.value, RateLimited)
        assert caught.value.retry_after == expected
    else:
        assert type(caught.value) is expected


async def test_a_form_is_filled_in_by_who_can() -> None:
    """With a schema those are passed over who speak prose alone; without, they are as good as any."""
    prose, forms = Scripted("a", None, "Hello"), Scripted("b", None, "{}")
    prose.structured = False
    models = FallbackChatModel([prose, forms])
    assert models.structured
    deltas = [delta async for delta in models.stream(QUESTION, schema={"type": "object"})]
    assert deltas[0].text == "{}"
    assert (await said(models))[0].text == "Hello"


async def test_closing_it_closes_who_answers() -> None:
    """Cancelling reaches the vendor through the fallback."""
    first, second = Scripted("a", RateLimited(1)), Scripted("b", None, "Hel", "lo")
    answer = FallbackChatModel([first, second]).stream(QUESTION)
    await anext(answer)
    await answer.aclose()
    assert second.closed


async def test_who_was_paid_already_is_asked_first() -> None:
    """A request that an earlier run has sent to the second vendor is resumed there."""
    first, second = Scripted("a"), Scripted("b")
    models = FallbackImageModel([first, second])
    kept: list[str] = []

    async def keep(id_: str) -> None:
        kept.append(id_)

    request = VendorRequest(id="b:77", save=keep)
    made = await models.generate(subject="s", theme="t", size=1, request=request)
    assert (made.provider, first.asked) == ("b", [])
    own = second.asked[0]["request"].at("b")
    assert own.id == "77"
    await own.save("78")
    await own.save("")
    assert kept == ["b:78", ""]
    assert request.at("a").id is None


async def test_two_real_ones(lab: Lab, openai_client: MakeOpenAIClient) -> None:
    """A vendor that answers errors, a next one that answers: what is heard is the second's alone."""
    lab.script(faults.ErrorInside(after=0), key="first")
    lab.script(faults.Status(500), key="third")
    models = [
        OpenAIChatModel(openai_client(retry_budget=ONCE), model=m) for m in ("third", "first", "b")
    ]
    deltas = await said(FallbackChatModel(models))
    assert "".join(d.text for d in deltas).startswith("You said: Hi")
    assert deltas[-1].model == "b-2026"


LATER = ["fal", "runpod"]  #: vendors that give a request id first
AWAY = [faults.Status(503), faults.Status(401), faults.Status(429, headers={"Retry-After": "40"})]


def pictures(lab: Lab, session: aiohttp.ClientSession, *names: str) -> FallbackImageModel:
    """Real ones, in that order."""
    return FallbackImageModel([image_model(name, lab, session) for name in names])


def calls(lab: Lab) -> list[str]:
    """What was asked, looks at a request aside."""
    return [a.route for a in lab.asked if not a.route.endswith((".status", ".stream"))]


async def drawn(model: FallbackImageModel, asking: Asking) -> GeneratedImage:
    """One picture."""
    return await model.generate(subject="s", theme="t", size=64, request=asking.request)


@pytest.mark.parametrize("vendor", LATER)
@pytest.mark.parametrize("fault", AWAY, ids=lambda fault: str(fault.status))
async def test_a_request_in_the_queue_is_called_off_before_the_next_is_asked(
    lab: Lab, session: aiohttp.ClientSession, vendor: str, fault: Fault
) -> None:
    """Nobody pays two vendors for one picture, and no later run comes back for what was given up."""
    lab.script(faults.Waiting())
    lab.script(fault, key=f"{vendor}.status", forever=True)
    asking = Asking()
    made = await drawn(pictures(lab, session, vendor, "openai"), asking)
    sent, called_off, *then = calls(lab)
    assert (made.provider, called_off) == ("openai", f"{vendor}.cancel")
    assert sent in {"fal.submit", "runpod.run"}
    assert then[0].startswith("openai.")
    assert len(asking.history) == 2
    assert asking.saved == ""


@pytest.mark.parametrize("vendor", LATER)
async def test_the_last_one_keeps_its_request(
    lab: Lab, session: aiohttp.ClientSession, vendor: str
) -> None:
    """Nobody else is asked: a later run comes back for what is paid, and to whom it was paid."""
    lab.script(faults.Status(500), key="openai.images", forever=True)
    lab.script(faults.Status(503), key=f"{vendor}.status", forever=True)
    asking = Asking()
    with pytest.raises(ProviderUnavailable):
        await drawn(pictures(lab, session, "openai", vendor), asking)
    assert f"{vendor}.cancel" not in calls(lab)
    lab.script(None, key=f"{vendor}.status")
    before = len(lab.asked)
    made = await drawn(pictures(lab, session, "openai", vendor), asking)
    assert made.provider == vendor
    assert not {a.route for a in lab.asked[before:]} & {"openai.images", "fal.submit", "runpod.run"}


async def test_a_later_run_that_gives_up_calls_off_too(
    lab: Lab, session: aiohttp.ClientSession
) -> None:
    """The request of an earlier run is asked for first, wherever its vendor stands in the order."""
    lab.script(faults.Waiting(), key="fal.submit")
    lab.script(faults.Status(503), key="fal.status", forever=True)
    asking = Asking()
    with pytest.raises(ProviderUnavailable):
        await drawn(pictures(lab, session, "fal"), asking)
    assert (await drawn(pictures(lab, session, "openai", "fal"), asking)).provider == "openai"
    assert calls(lab)[:2] == ["fal.submit", "fal.cancel"]
    assert asking.saved == ""


@pytest.mark.parametrize("fault", [faults.Silence(), faults.Status(500), faults.Html()])
async def test_a_call_that_fails_to_call_off_holds_nobody_up(
    lab: Lab, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """It is tried for a moment; then the next one is asked all the same."""
    monkeypatch.setattr(pending_requests, "_CANCEL_SECONDS", 0.3)
    lab.script(faults.Waiting())
    lab.script(faults.Status(401), key="fal.status", forever=True)
    lab.script(fault, key="fal.cancel", forever=True)
    asking, began = Asking(), time.monotonic()
    assert (await drawn(pictures(lab, session, "fal", "openai"), asking)).provider == "openai"
    assert asking.saved == ""
    assert time.monotonic() - began < 10


async def test_a_chat_that_is_given_up_is_called_off_and_forgotten(
    lab: Lab, session: aiohttp.ClientSession
) -> None:
    """Before its first word the next one may answer; a later run asks them in their order."""
    lab.script(faults.Waiting())
    lab.script(faults.Status(503), key="runpod.stream", forever=True)
    asking = Asking()
    model = FallbackChatModel([chat_model(name, lab, session) for name in ("runpod", "openai")])
    text = "".join([d.text async for d in model.stream(QUESTION, request=asking.request)])
    assert text.startswith("You said: Hi")
    assert calls(lab) == ["runpod.run", "runpod.cancel", "openai.chat"]
    assert asking.saved == ""
