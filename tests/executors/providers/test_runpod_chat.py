"""Chats by RunPod's own API: polled, put in order, cancelled when nobody listens."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from executors.errors import (
    AccountRefused,
    ExecutorError,
    LeaseLost,
    ProviderRejected,
    ProviderUnavailable,
    RateLimited,
)
from executors.providers.base import ChatDelta, ChatMessage, ChatUsage
from executors.providers.runpod import RunPodChatModel, runpod_vendor
from executors.providers.transport.http import RetryBudget, Timeouts, VendorClient
from tests.executors.providers.asking import Asking
from tests.executors.providers.conftest import ONCE
from tests.executors.providers.lab import faults
from tests.executors.providers.lab.faults import Failed, Fault, Status
from tests.executors.providers.lab.runpod import BASE, RunPodLab, Shape
from tests.executors.providers.lab.server import LAB_KEY, Lab

QUESTION = [ChatMessage("system", "Be kind."), ChatMessage("user", "How do you do?")]
ANSWER = "You said: How do you do? 🦊 — that is all."

SHAPES: list[Shape] = [
    "tokens",
    "delta",
    "choice text",
    "text",
    "texts",
    "numbered",
    "old tokens",
    "bare",
]


@pytest.fixture
def runpod_lab(lab: Lab) -> RunPodLab:
    """Its RunPod."""
    (found,) = (vendor for vendor in lab.vendors if isinstance(vendor, RunPodLab))
    return found


@pytest.fixture
def make(lab: Lab, session: aiohttp.ClientSession) -> Callable[..., RunPodChatModel]:
    """Models in the laboratory."""

    def make(retry_budget: RetryBudget = ONCE, timeouts: Timeouts | None = None) -> RunPodChatModel:
        vendor = runpod_vendor("lab-endpoint", lab.url + BASE, SecretStr(LAB_KEY))
        client = VendorClient(session, vendor, retry_budget=retry_budget, timeouts=timeouts)
        return RunPodChatModel(client, poll_every=0.001)

    return make


@pytest.fixture
def model(make: Callable[..., RunPodChatModel]) -> RunPodChatModel:
    """One that asks once."""
    return make()


async def said(
    model: RunPodChatModel, asking: Asking | None = None, **asked: Any
) -> list[ChatDelta]:
    """All that it answers."""
    request = (asking or Asking()).request
    return [delta async for delta in model.stream(QUESTION, request=request, **asked)]


async def failure(model: RunPodChatModel, asking: Asking | None = None) -> ExecutorError:
    """What it raised."""
    with pytest.raises(ExecutorError) as caught:
        await said(model, asking)
    return caught.value


def count(lab: Lab, what: str) -> int:
    """How often that was asked."""
    return sum(asked.route == f"runpod.{what}" for asked in lab.asked)


async def test_an_answer(lab: Lab, model: RunPodChatModel) -> None:
    """Run, saved, polled chunk by chunk; usage and finish reason at its end."""
    asking = Asking()
    deltas = await said(model, asking, temperature=0.3, max_tokens=50)
    assert "".join(delta.text for delta in deltas) == ANSWER
    assert len(deltas) > 3
    assert deltas[-1] == ChatDelta("", "stop", ChatUsage(6, 11))
    assert lab.asked[0].path == f"{BASE}/lab-endpoint/run"
    assert lab.asked[0].body == {
        "input": {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "How do you do?"},
            ],
            "stream": True,
            "sampling_params": {"max_tokens": 50, "temperature": 0.3},
        },
        "policy": {"executionTimeout": 600_000, "ttl": 1_200_000},
    }
    assert asking.history == ["runpod:lab-1-u1"]
    assert asking.told == ["Waiting in the queue of RunPod", "RunPod is at work"]
    assert count(lab, "cancel") == 0


@pytest.mark.parametrize("collects", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
async def test_every_form_of_text(
    model: RunPodChatModel, runpod_lab: RunPodLab, shape: Shape, collects: bool
) -> None:
    """Each worker has its own, and may give all pieces once more in the end."""
    runpod_lab.shape, runpod_lab.collects = shape, collects
    assert "".join(delta.text for delta in await said(model)) == ANSWER


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        ("tokens", faults.Repeated()),
        ("tokens", faults.Shuffled()),
        ("numbered", faults.Repeated()),
    ],
)
async def test_pieces_with_a_place_are_put_in_order(
    lab: Lab, model: RunPodChatModel, runpod_lab: RunPodLab, shape: Shape, fault: Fault
) -> None:
    """Twice, or too early: each is passed on once, in its turn."""
    runpod_lab.shape = shape
    lab.script(fault, key="runpod.run")
    assert "".join(delta.text for delta in await said(model)) == ANSWER


async def test_a_numbered_piece_that_comes_too_late(
    lab: Lab, model: RunPodChatModel, runpod_lab: RunPodLab
) -> None:
    """What belongs behind it was passed on already: the answer is not one."""
    runpod_lab.shape = "numbered"
    lab.script(faults.Shuffled(), key="runpod.run")
    assert "broke off in the middle" in (await failure(model)).message


@pytest.mark.parametrize("fault", [faults.Repeated(), faults.Shuffled()])
async def test_pieces_without_a_place_are_checked_in_the_end(
    lab: Lab, model: RunPodChatModel, runpod_lab: RunPodLab, fault: Fault
) -> None:
    """Nobody can order them, but a worker that collects them says what the answer was."""
    runpod_lab.shape, runpod_lab.collects = "text", True
    lab.script(fault, key="runpod.run")
    assert "broke off in the middle" in (await failure(model)).message


async def test_a_tail_that_the_stream_lost(
    model: RunPodChatModel, runpod_lab: RunPodLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the worker has collected completes the answer."""
    runpod_lab.collects = True
    next_ = runpod_lab._next
    monkeypatch.setattr(
        runpod_lab, "_next", lambda request: next_(request)[: 0 if request.given > 4 else 2]
    )
    assert "".join(delta.text for delta in await said(model)) == ANSWER


async def test_a_gap_is_no_answer(
    model: RunPodChatModel, runpod_lab: RunPodLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece that never comes: what is behind it is not passed on."""
    next_ = runpod_lab._next

    def without_the_fifth(request: Any) -> Any:
        return [item for item in next_(request) if item["output"]["usage"]["output"] != 5]

    monkeypatch.setattr(runpod_lab, "_next", without_the_fifth)
    heard: list[str] = []

    async def listen() -> None:
        async for delta in model.stream(QUESTION):
            heard.append(delta.text)  # noqa: PERF401 - until it breaks

    with pytest.raises(ProviderUnavailable):
        await listen()
    assert "".join(heard) == "You said: How do"


async def test_a_cold_start_is_no_fault(
    lab: Lab, make: Callable[..., RunPodChatModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer in the queue than an answer may take to begin: the user is told why."""
    monkeypatch.setattr("executors.providers.runpod.endpoint._COLD_START", 0.05)
    lab.script(faults.Waiting(24), key="runpod.run")
    asking = Asking()
    deltas = await said(make(timeouts=Timeouts(first_byte=1.0, idle=1.0)), asking)
    assert "".join(delta.text for delta in deltas) == ANSWER
    assert "RunPod is starting a worker, which can take minutes" in asking.told


async def test_an_answer_that_was_cut_by_its_limit(model: RunPodChatModel) -> None:
    """Whoever has used all tokens has not said all."""
    deltas = await said(model, max_tokens=3)
    assert deltas[-1].finish_reason == "length"


@pytest.mark.parametrize(
    ("fault", "expected", "words"),
    [
        (Failed(), ProviderUnavailable, "has failed to answer"),
        (Failed("TIMED_OUT"), ProviderUnavailable, "longer than it is allowed"),
        (Failed("CANCELLED"), ProviderUnavailable, "dropped the request"),
        (faults.Forgotten(), ProviderUnavailable, "dropped the request"),
        (faults.ErrorInside(code="BadRequestError"), ProviderRejected, "refuses the request"),
        (Status(401), AccountRefused, "refuses the key"),
        (Status(404), ProviderRejected, "does not know"),
        (Status(413), ProviderRejected, "too large"),
        (Status(429, headers={"Retry-After": "7"}), RateLimited, "rate limit"),
        (Status(429), RateLimited, "rate limit"),
        (Status(500), ProviderUnavailable, "internal fault"),
        (faults.Html(), ProviderUnavailable, "cannot be read"),
        (faults.Cut(), ProviderUnavailable, "broke off"),
        (faults.Endless(), ProviderUnavailable, "larger answer"),
    ],
)
async def test_faults_and_what_they_are(
    lab: Lab, model: RunPodChatModel, fault: Fault, expected: type[ExecutorError], words: str
) -> None:
    """Each fault is one error, in a sentence for the user."""
    lab.script(fault, key="runpod.run")
    error = await failure(model)
    assert type(error) is expected
    assert words in error.message


async def test_text_before_a_failure_is_passed_on(lab: Lab, model: RunPodChatModel) -> None:
    """What was said was said; then comes the error."""
    lab.script(Failed(), key="runpod.run")
    heard: list[str] = []

    async def listen() -> None:
        async for delta in model.stream(QUESTION):
            heard.append(delta.text)  # noqa: PERF401 - until it breaks

    with pytest.raises(ProviderUnavailable):
        await listen()
    assert heard == ["You said:"]
    assert count(lab, "cancel") == 0  # it has ended by itself


async def test_no_trace_and_no_key_is_told(
    lab: Lab, model: RunPodChatModel, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a worker's failure its kind and sentence go to the log, and nothing to the user."""
    caplog.set_level(logging.DEBUG)
    lab.script(Failed("ValueError", message=f"boom {LAB_KEY}"), key="runpod.run")
    error = await failure(model)
    assert "ValueError" in str(error.__cause__)
    everything = f"{error} {error.__cause__} {caplog.text}"
    for secret in ("Traceback", "handler.py", "lab-worker-6444", LAB_KEY):
        assert secret not in everything


@pytest.mark.parametrize("first_word", [False, True])
async def test_a_worker_that_falls_silent(
    lab: Lab,
    make: Callable[..., RunPodChatModel],
    runpod_lab: RunPodLab,
    monkeypatch: pytest.MonkeyPatch,
    first_word: bool,
) -> None:
    """At work and without a word for too long: given up, and cancelled."""
    lab.script(faults.Silence(after=2), key="runpod.run")
    if not first_word:
        monkeypatch.setattr(runpod_lab, "_next", lambda _: [])
    error = await failure(make(timeouts=Timeouts(first_byte=0.6, idle=0.4)))
    assert "said nothing" in error.message
    assert count(lab, "cancel") == 1


async def test_a_chat_that_is_run_again(lab: Lab, model: RunPodChatModel) -> None:
    """The request of the earlier run is cancelled, and a new one is sent."""
    lab.script(faults.Waiting(), key="runpod.run")
    asking = Asking()
    earlier = model.stream(QUESTION, request=asking.request)
    waits = asyncio.ensure_future(anext(earlier))
    async with asyncio.timeout(30):
        while not asking.told:
            await asyncio.sleep(0.002)
    kept = asking.saved  # as after a kill
    deltas = await said(model, again := Asking(kept))
    assert "".join(delta.text for delta in deltas) == ANSWER
    assert [a.path for a in lab.asked if a.route == "runpod.cancel"] == [
        f"{BASE}/lab-endpoint/cancel/lab-1-u1"
    ]
    assert again.history == ["runpod:lab-2-u1"]
    with pytest.raises(ProviderUnavailable):
        await waits


async def test_a_request_whose_id_cannot_be_saved_is_cancelled(
    lab: Lab, model: RunPodChatModel
) -> None:
    """The job is another worker's: nothing of this run may be paid for."""
    asking = Asking()
    asking.lost = True
    with pytest.raises(LeaseLost):
        await said(model, asking)
    assert (count(lab, "run"), count(lab, "cancel")) == (1, 1)


@pytest.mark.parametrize(
    "when",
    [
        {"runpod.run": faults.Slow(0.2)},
        {"runpod.run": faults.Waiting()},
        {"runpod.run": faults.Silence(after=2)},
        {"runpod.run": faults.DoneAfterCancel()},
        {"runpod.stream": faults.Silence()},
    ],
    ids=["sending", "queue", "in the middle", "done all the same", "looking"],
)
async def test_cancelling_calls_the_request_off(
    lab: Lab, model: RunPodChatModel, when: Mapping[str, Fault]
) -> None:
    """In each phase; from a worker that stops, too, because the next run asks anew."""
    for key, fault in when.items():
        lab.script(fault, key=key)
    asking = Asking()
    asking.comes_back = True
    task = asyncio.create_task(said(model, asking))
    patient = "runpod.run" in when and not isinstance(when["runpod.run"], faults.Slow)
    await lab.until_asked(
        1 if isinstance(when.get("runpod.run"), faults.Slow) else 5 if patient else 2
    )
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (told,) = (asked.at for asked in lab.asked if asked.route == "runpod.cancel")
    assert told - began < 2
    for asked in lab.asked:
        await asyncio.wait_for(asked.over.wait(), 10)


async def test_closing_the_generator_calls_it_off(lab: Lab, model: RunPodChatModel) -> None:
    """Whoever stops listening stops paying."""
    lab.script(faults.Silence(after=2), key="runpod.run")
    async with aclosing(model.stream(QUESTION)) as answer:
        assert (await anext(answer)).text == "You said:"
    assert count(lab, "cancel") == 1


async def test_short_troubles_stay_in_the_call(
    lab: Lab, make: Callable[..., RunPodChatModel]
) -> None:
    """A look that fails once is repeated at once, and nobody hears of it."""
    lab.script(
        None, Status(500), None, Status(429, headers={"Retry-After": "0.1"}), key="runpod.stream"
    )
    assert "".join(delta.text for delta in await said(make(RetryBudget()))) == ANSWER
