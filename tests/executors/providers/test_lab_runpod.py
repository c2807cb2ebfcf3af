"""The laboratory passes for RunPod: RunPod's own client says so."""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.executors.providers.lab import faults
from tests.executors.providers.lab.runpod import BASE, RunPodLab, Shape
from tests.executors.providers.lab.server import LAB_KEY, Lab

CHAT = {
    "messages": [{"role": "user", "content": "How do you do?"}],
    "stream": True,
    "sampling_params": {"max_tokens": 100},
}
ANSWER = "You said: How do you do? 🦊 — that is all."


@pytest.fixture(scope="module")
def runpod() -> Any:
    """RunPod's package. It sets levels of loggers when it is imported, and half of the cloud with it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import runpod  # type: ignore[import-untyped]
    root.handlers[:], root.level = handlers, level
    return runpod


@pytest.fixture
def job_of(runpod: Any, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Runs a request by RunPod's own client, whose looks do not wait for a second each."""
    monkeypatch.setattr(runpod, "endpoint_url_base", lab.url + BASE)
    monkeypatch.setattr("runpod.endpoint.runner.time", SimpleNamespace(sleep=lambda _: None))
    return lambda asked: runpod.Endpoint("lab-endpoint", api_key=LAB_KEY).run(asked)


@pytest.fixture
def runpod_lab(lab: Lab) -> RunPodLab:
    """Its RunPod."""
    (found,) = (vendor for vendor in lab.vendors if isinstance(vendor, RunPodLab))
    return found


def joined(outputs: list[Any]) -> str:
    """As RunPod's examples read what vLLM workers write."""
    return "".join(token for output in outputs for token in output["choices"][0]["tokens"])


async def test_an_answer_as_a_stream(job_of: Callable[[Any], Any]) -> None:
    """The client polls the stream to its end, and gets every piece once."""

    def ask() -> list[Any]:
        return list(job_of({"input": CHAT}).stream())

    outputs = await asyncio.to_thread(ask)
    assert joined(outputs) == ANSWER
    assert outputs[-1]["usage"] == {"input": 4, "output": 11}


@pytest.mark.parametrize("shape", ["delta", "choice text", "text", "texts", "numbered", "bare"])
async def test_workers_of_every_kind(
    job_of: Callable[[Any], Any], runpod_lab: RunPodLab, shape: Shape
) -> None:
    """Whatever form a worker gives its pieces, the client passes it on."""
    runpod_lab.shape = shape

    def ask() -> list[Any]:
        return list(job_of({"input": CHAT}).stream())

    assert len(await asyncio.to_thread(ask)) == 11


async def test_a_picture(job_of: Callable[[Any], Any]) -> None:
    """The client waits for the output."""

    def ask() -> Any:
        return job_of({"input": {"prompt": "a fox", "width": 96}}).output(timeout=30)

    output = await asyncio.to_thread(ask)
    assert output["image_url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "CANCELLED"])
async def test_a_request_that_ends_badly(
    lab: Lab, job_of: Callable[[Any], Any], status: str
) -> None:
    """The client takes the state for an ending; a failure is JSON in a string, trace and all."""
    lab.script(faults.Failed("" if status == "FAILED" else status), key="runpod.run")

    def ask() -> tuple[Any, Any]:
        job = job_of({"input": {"prompt": "a fox"}})
        while job.status() in {"IN_QUEUE", "IN_PROGRESS"}:
            pass
        return job.status(), job._fetch_job()

    ended, document = await asyncio.to_thread(ask)
    assert ended == status
    if status == "FAILED":
        assert "Traceback" in json.loads(document["error"])["error_traceback"]


async def test_a_request_that_is_cancelled(lab: Lab, job_of: Callable[[Any], Any]) -> None:
    """The client's cancel is understood."""
    lab.script(faults.Waiting(), key="runpod.run")

    def ask() -> tuple[Any, Any, Any]:
        job = job_of({"input": CHAT})
        return job.status(), job.cancel(), job.status()

    assert await asyncio.to_thread(ask) == (
        "IN_QUEUE",
        {"id": "lab-1-u1", "status": "CANCELLED"},
        "CANCELLED",
    )


async def test_health_and_keys(runpod: Any, job_of: Callable[[Any], Any]) -> None:
    """The endpoint tells how it is; a wrong key is refused as the client expects it."""
    assert job_of is not None

    def ask() -> Any:
        return runpod.Endpoint("lab-endpoint", api_key=LAB_KEY).health()

    assert "workers" in await asyncio.to_thread(ask)
    with pytest.raises(RuntimeError, match="401"):
        await asyncio.to_thread(runpod.Endpoint("lab-endpoint", api_key="rpa_wrong").health)


async def test_its_asynchronous_client(
    runpod: Any, lab: Lab, job_of: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other client of the package reads the same."""
    assert job_of is not None
    monkeypatch.setattr(
        "runpod.endpoint.asyncio.asyncio_runner.asyncio", SimpleNamespace(sleep=_at_once)
    )
    async with runpod.http_client.ClientSession() as session:
        endpoint = runpod.AsyncioEndpoint("lab-endpoint", session, api_key=LAB_KEY)
        job = await endpoint.run(CHAT)
        outputs = [output async for output in job.stream()]
    assert joined(outputs) == ANSWER
    assert {asked.route for asked in lab.asked} == {"runpod.run", "runpod.stream"}


async def _at_once(_: float) -> None:
    """No second between two looks."""
