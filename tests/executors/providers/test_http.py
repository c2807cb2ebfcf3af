"""Calls to vendors: timeouts, retries, limits, what errors say, and what they never say."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from typing import Any

import pytest
from pydantic import SecretStr

from executors.errors import (
    AccountRefused,
    ExecutorError,
    ProviderRejected,
    ProviderUnavailable,
    RateLimited,
)
from executors.providers.transport.http import Call, RetryBudget, Timeouts
from executors.providers.transport.limits import CallLimits
from executors.providers.transport.vendor import Refusal, Vendor, VendorFault
from tests.executors.providers.conftest import ONCE, MakeOpenAIClient
from tests.executors.providers.lab import faults
from tests.executors.providers.lab.faults import Status
from tests.executors.providers.lab.server import LAB_KEY, Lab

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
CALL = Call(url="/chat/completions", body=QUESTION, bucket="m")


async def failure(call: Any) -> ExecutorError:
    """What it raised."""
    with pytest.raises(ExecutorError) as caught:
        await call
    return caught.value


async def test_a_good_answer(openai_client: MakeOpenAIClient) -> None:
    """The document, as it is."""
    answer = await openai_client().request(CALL)
    assert answer["choices"][0]["message"]["content"].startswith("You said: Hi")


@pytest.mark.parametrize(
    "fault",
    [
        Status(500),
        Status(502),
        Status(503, headers={"Retry-After": "0"}),
        Status(408),
        Status(409),
        Status(429),
        Status(429, headers={"Retry-After": "0.2"}),
        Status(429, headers={"x-ratelimit-reset-requests": "120ms"}),
        faults.Cut(),
    ],
)
async def test_what_may_pass_is_asked_again(
    lab: Lab, openai_client: MakeOpenAIClient, fault: faults.Fault
) -> None:
    """Short troubles cost the job nothing: the same call succeeds."""
    lab.script(fault)
    await openai_client().request(CALL)
    assert len(lab.asked) == 2


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Status(400), ProviderRejected),
        (Status(401), AccountRefused),
        (Status(402), AccountRefused),
        (Status(403), AccountRefused),
        (Status(404), ProviderRejected),
        (Status(413), ProviderRejected),
        (Status(422), ProviderRejected),
        (Status(429, "insufficient_quota"), AccountRefused),
        (Status(429, headers={"Retry-After": "30"}), RateLimited),
        (Status(503, headers={"Retry-After": "30"}), ProviderUnavailable),
        (Status(307, headers={"Location": "http://127.0.0.1:9/"}), ProviderUnavailable),
        (faults.Html(), ProviderUnavailable),
        (faults.Endless(), ProviderUnavailable),
        (faults.Cut(after=1), ProviderUnavailable),
    ],
)
async def test_what_will_not_pass_is_asked_once(
    lab: Lab, openai_client: MakeOpenAIClient, fault: faults.Fault, expected: type[ExecutorError]
) -> None:
    """Refusals, long waits and answers that are broken go up at once."""
    lab.script(fault, forever=True)
    error = await failure(openai_client().request(CALL))
    assert type(error) is expected
    assert len(lab.asked) == 1


async def test_it_gives_up_after_a_few(lab: Lab, openai_client: MakeOpenAIClient) -> None:
    """Three times, and not a moment past its patience: a place in the worker is held meanwhile."""
    lab.script(Status(500), forever=True)
    await failure(openai_client().request(CALL))
    assert len(lab.asked) == 3
    lab.asked.clear()
    error = await failure(
        openai_client(retry_budget=RetryBudget(retries=99, seconds=0.03)).request(CALL)
    )
    assert isinstance(error, ProviderUnavailable)
    assert len(lab.asked) < 4


async def test_the_vendors_time_goes_up_with_the_error(
    lab: Lab, openai_client: MakeOpenAIClient
) -> None:
    """The job comes back when the vendor said, not when we guess."""
    lab.script(Status(429, headers={"Retry-After": "77"}))
    error = await failure(openai_client().request(CALL))
    assert isinstance(error, RateLimited)
    assert error.retry_after == pytest.approx(77, abs=2)
    lab.script(Status(503, headers={"Retry-After": "66"}))
    error = await failure(openai_client().request(CALL))
    assert isinstance(error, ProviderUnavailable)
    assert error.retry_after == pytest.approx(66, abs=2)


async def test_one_answer_that_names_a_time_spares_all_the_others(
    lab: Lab, openai_client: MakeOpenAIClient
) -> None:
    """A hundred jobs that meet a rate limit do not ask a hundred times."""
    lab.script(Status(429, headers={"Retry-After": "60"}), forever=True)
    client = openai_client(limits=CallLimits(concurrency=3, per_second=1000))
    errors = await asyncio.gather(*(failure(client.request(CALL)) for _ in range(100)))
    assert all(isinstance(e, RateLimited) and 50 < e.retry_after <= 60 for e in errors)
    assert len(lab.asked) <= 3


async def test_a_limit_of_one_model_does_not_stop_another(
    lab: Lab, openai_client: MakeOpenAIClient
) -> None:
    """Vendors count by model, and so does the rest."""
    lab.script(Status(429, headers={"Retry-After": "60"}), key="m")
    client = openai_client()
    await failure(client.request(CALL))
    await failure(client.request(CALL))
    other = {**QUESTION, "model": "other"}
    await client.request(Call(url="/chat/completions", body=other, bucket="other"))
    assert [asked.body["model"] for asked in lab.asked] == ["m", "other"]


async def test_a_storm_of_429_is_waited_out(lab: Lab, openai_client: MakeOpenAIClient) -> None:
    """All calls succeed in the end, and the vendor is asked little more often than there are calls."""
    lab.script(*[Status(429, headers={"Retry-After": "0.3"})] * 5)
    client = openai_client(limits=CallLimits(concurrency=5, per_second=1000))
    await asyncio.gather(*(client.request(CALL) for _ in range(40)))
    assert len(lab.asked) == 45


async def test_standing_in_line_uses_up_no_patience(
    lab: Lab, openai_client: MakeOpenAIClient
) -> None:
    """A call that waited long for a slot is retried like every other."""
    client = openai_client(
        limits=CallLimits(concurrency=1), retry_budget=RetryBudget(retries=1, seconds=0.9)
    )
    lab.script(faults.Slow(1.0), Status(500))
    await asyncio.gather(client.request(CALL), client.request(CALL))
    assert len(lab.asked) == 3


async def test_no_more_at_a_time_than_is_allowed(lab: Lab, openai_client: MakeOpenAIClient) -> None:
    """A hundred calls at once, at most seven of them with the vendor."""
    most = 0

    def count(_: object) -> None:
        nonlocal most
        most = max(most, sum(not asked.over.is_set() for asked in lab.asked))

    lab.on_asked = count
    lab.script(faults.Slow(0.02), forever=True)
    client = openai_client(limits=CallLimits(concurrency=7, per_second=10_000))
    await asyncio.gather(*(client.request(CALL) for _ in range(100)))
    assert len(lab.asked) == 100
    assert 5 <= most <= 7


async def test_no_more_a_second_than_is_allowed(lab: Lab, openai_client: MakeOpenAIClient) -> None:
    """A burst of one second's worth, then one after the other."""
    client = openai_client(limits=CallLimits(per_second=20))
    began = time.monotonic()
    await asyncio.gather(*(client.request(CALL) for _ in range(32)))
    assert max(asked.at for asked in lab.asked) - began >= 12 / 20 - 0.01


@pytest.mark.parametrize(
    ("fault", "timeouts", "words"),
    [
        (faults.Silence(), Timeouts(first_byte=0.2), "did not answer within 0.2 s"),
        (faults.Silence(after=0), Timeouts(first_byte=0.4), "said nothing for"),
        (faults.Silence(after=1), Timeouts(idle=0.2), "said nothing for 0.2 s"),
        (faults.Endless(), Timeouts(total=0.3), "took longer than 0.3 s"),
    ],
)
async def test_every_kind_of_slowness_has_its_timeout(
    lab: Lab, openai_client: MakeOpenAIClient, fault: faults.Fault, timeouts: Timeouts, words: str
) -> None:
    """Slow to begin, slow in the middle, slow altogether; none of them is retried here."""
    lab.script(fault, forever=True)
    error = await failure(openai_client(timeouts=timeouts).request(CALL, largest=10**12))
    assert isinstance(error, ProviderUnavailable)
    assert words in error.message
    assert len(lab.asked) == 1
    await asyncio.wait_for(lab.asked[0].over.wait(), 10)
    assert lab.asked[0].closed_at is not None


async def test_a_vendor_that_is_not_there(
    openai_client: MakeOpenAIClient, unused_port: int
) -> None:
    """Refused connections are retried, then reported."""
    client = openai_client(base_url=f"http://127.0.0.1:{unused_port}/v1")
    began = time.monotonic()
    error = await failure(client.request(CALL))
    assert error.message == "OpenAI cannot be reached."
    assert time.monotonic() - began > 0.05  # two pauses


@pytest.mark.parametrize("compressed", [False, True])
async def test_what_is_too_large_is_refused_while_it_is_read(
    lab: Lab, openai_client: MakeOpenAIClient, *, compressed: bool
) -> None:
    """An answer without an end fills no memory, and its connection is closed."""
    lab.script(faults.Endless(compressed=compressed))
    error = await failure(openai_client().request(CALL, largest=1_000_000))
    assert error.message == "OpenAI gave a larger answer than is allowed."
    await asyncio.wait_for(lab.asked[0].over.wait(), 10)


async def test_the_key_goes_to_nobody_else(lab: Lab, openai_client: MakeOpenAIClient) -> None:
    """Neither a redirect nor a URL that the vendor wrote carries it to another server."""
    client = openai_client()
    for url in ("http://localhost:1/x", "https://evil.example/x", "http://[", ""):
        error = await failure(client.request(Call(url=url)))
        assert isinstance(error, ProviderUnavailable)
    assert lab.asked == []


LEAKS = [
    Status(401, "invalid_api_key", f"Incorrect API key provided: {LAB_KEY}."),
    Status(400, "bad", f"Bearer {LAB_KEY} is wrong", param=LAB_KEY),
    Status(500, LAB_KEY, f"Traceback: Authorization={LAB_KEY}"),
    Status(429, message=LAB_KEY, headers={"Retry-After": "30"}),
    faults.Html(502),
    faults.Silence(),
    faults.Silence(after=1),
    faults.Cut(),
    faults.Cut(after=1),
    faults.Endless(),
]


@pytest.mark.parametrize("fault", LEAKS)
async def test_no_key_in_anything_that_is_said(
    lab: Lab, openai_client: MakeOpenAIClient, fault: faults.Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the error, its cause, its trace, the log or a repr; and no word of the vendor's for users."""
    caplog.set_level(logging.DEBUG)
    lab.script(fault, forever=True)
    client = openai_client(
        timeouts=Timeouts(first_byte=0.3, idle=0.2), retry_budget=RetryBudget(retries=1, seconds=3)
    )
    error = await failure(client.request(CALL))
    logging.getLogger("uvian.tests").warning("failed", exc_info=error)
    told = "\n".join(
        [
            str(error),
            repr(error),
            repr(error.__cause__),
            "".join(traceback.format_exception(error)),
            caplog.text,
            repr(client),
            repr(client.vendor),
            str(vars(client)),
        ]
    )
    assert LAB_KEY not in told
    assert LAB_KEY[3:] not in told
    for word in ("Traceback", "nginx", "laboratory", "Bearer", "127.0.0.1"):
        assert word not in error.message


@pytest.mark.parametrize(
    "said",
    [
        "plain0123456789 is not valid",
        "in Bearer plain0123456789, which",
        "Incorrect API key provided: sk-proj-********wxyz.",
        "key-0123456789abcdef and fal_0123456789abcdef:ff",
    ],
)
def test_keys_are_taken_out_whatever_they_look_like(said: str) -> None:
    """Ours by what it is, everybody's by what it looks like, half masked too; the rest stays."""
    auth = {"Authorization": SecretStr("Bearer plain0123456789")}
    vendor = Vendor(name="v", label="V", auth=auth)
    with pytest.raises(ProviderRejected) as caught:
        vendor.refuse(Refusal(status=400, message=f"Well, {said}"))
    told = str(caught.value.__cause__)
    assert told.startswith("v: 400 Well, ")
    assert "[key]" in told
    for secret in ("plain0123456789", "wxyz", "0123456789abcdef"):
        assert secret not in told


async def test_the_vendors_words_are_in_the_log(lab: Lab, openai_client: MakeOpenAIClient) -> None:
    """Whoever runs this reads why, in the cause of the error."""
    lab.script(Status(400, "invalid_value", "The moon is in the wrong phase.", param="moon"))
    error = await failure(openai_client(retry_budget=ONCE).request(CALL))
    assert isinstance(error.__cause__, VendorFault)
    assert str(error.__cause__) == (
        "openai: 400 invalid_value moon The moon is in the wrong phase."
    )
    assert error.message == "OpenAI refuses the request."


async def test_connections_are_used_again(lab: Lab, openai_client: MakeOpenAIClient) -> None:
    """What was read to its end gives its connection back."""
    client = openai_client()
    for _ in range(5):
        await client.request(CALL)
    connector: Any = client._session.connector
    assert sum(map(len, connector._conns.values())) == 1
