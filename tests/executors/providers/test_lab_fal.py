"""The laboratory passes for FAL: FAL's own client says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import fal_client
import fal_client.client
import pytest

from tests.executors.providers.lab import faults
from tests.executors.providers.lab.fal import BASE
from tests.executors.providers.lab.server import LAB_KEY, Lab

MODEL = "lab/draw/fast"
ASKED = {"prompt": "a fox", "image_size": {"width": 96, "height": 64}, "seed": 7}


@asynccontextmanager
async def closing(client: fal_client.AsyncClient) -> AsyncIterator[fal_client.AsyncClient]:
    """The client has no end of its own."""
    yield client
    await (await client._client).aclose()


@pytest.fixture
async def client(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[fal_client.AsyncClient]:
    """FAL's own client. Its host is a setting, its ``https`` is none."""
    monkeypatch.setattr(fal_client.client, "QUEUE_URL_FORMAT", f"{lab.url}{BASE}/")
    async with closing(fal_client.AsyncClient(key=LAB_KEY)) as client:
        yield client


async def test_a_picture_from_the_queue(lab: Lab, client: fal_client.AsyncClient) -> None:
    """The client submits, sees the request move on, and reads the result."""
    handle = await client.submit(MODEL, ASKED, start_timeout=60)
    seen = [status async for status in handle.iter_events(with_logs=True, interval=0)]
    assert [type(status) for status in seen] == [
        fal_client.Queued,
        fal_client.InProgress,
        fal_client.Completed,
    ]
    assert seen[0] == fal_client.Queued(position=1)
    document = await handle.get(interval=0)
    assert document["seed"] == 7
    (image,) = document["images"]
    assert image["url"].startswith(lab.url + "/files/")
    assert (image["width"], image["height"]) == (96, 64)


async def test_a_request_found_again_by_its_id(client: fal_client.AsyncClient) -> None:
    """Where the client looks for a request, there it is: below owner and app, without the path."""
    handle = await client.submit(MODEL, ASKED)
    assert (await client.result(MODEL, handle.request_id))["prompt"] == "a fox"


async def test_the_status_as_a_stream(client: fal_client.AsyncClient) -> None:
    """``subscribe`` sees every state on the way to the result."""
    seen: list[Any] = []
    document = await client.subscribe(MODEL, ASKED, on_queue_update=seen.append)
    assert isinstance(seen[-1], fal_client.Completed)
    assert document["images"]


@pytest.mark.parametrize(
    ("failed", "message"),
    [
        (faults.Failed("content_policy_violation", 422), list),
        (faults.Failed("runner_server_error", 500), str),
        (faults.Failed("request_timeout", 504), str),
    ],
)
async def test_a_request_that_fails(
    lab: Lab, client: fal_client.AsyncClient, failed: faults.Failed, message: type[object]
) -> None:
    """It is completed with an error, and the result has the model's own status and form."""
    lab.script(failed)
    handle = await client.submit(MODEL, ASKED)
    seen = [status async for status in handle.iter_events(interval=0)]
    assert isinstance(seen[-1], fal_client.Completed)
    assert seen[-1].error_type == failed.code
    assert seen[-1].error
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        await handle.get(interval=0)
    assert (caught.value.status_code, caught.value.error_type) == (failed.status, failed.code)
    assert isinstance(caught.value.message, message)


async def test_a_request_that_is_cancelled(lab: Lab, client: fal_client.AsyncClient) -> None:
    """The client's cancel is understood; the request ends as cancelled by its client."""
    lab.script(faults.Waiting())
    handle = await client.submit(MODEL, ASKED)
    assert isinstance(await handle.status(), fal_client.Queued)
    await handle.cancel()
    status = await handle.status()
    assert isinstance(status, fal_client.Completed)
    assert status.error_type == "client_cancelled"
    with pytest.raises(fal_client.FalClientHTTPError):
        await handle.cancel()


@pytest.mark.parametrize(
    "ask",
    [lambda handle: handle.status(), lambda handle: handle.cancel()],
    ids=["status", "cancel"],
)
async def test_a_request_nobody_knows(
    lab: Lab, client: fal_client.AsyncClient, ask: Callable[[fal_client.AsyncRequestHandle], Any]
) -> None:
    """Forgotten requests are not found."""
    lab.script(faults.Forgotten())
    handle = await client.submit(MODEL, ASKED)
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        await ask(handle)
    assert caught.value.status_code == 404


@pytest.mark.usefixtures("client")
async def test_a_wrong_key_is_refused() -> None:
    """The laboratory looks at the key as the vendor does."""
    async with closing(fal_client.AsyncClient(key="fal-wrong-key")) as wrong:
        with pytest.raises(fal_client.FalClientHTTPError) as caught:
            await wrong.submit(MODEL, ASKED)
    assert caught.value.status_code == 401
