"""The laboratory passes for JigsawStack: JigsawStack's own client says so."""

from __future__ import annotations

import io
from typing import Any

import pytest
from jigsawstack import AsyncJigsawStack  # type: ignore[import-untyped]
from jigsawstack.exceptions import JigsawStackError  # type: ignore[import-untyped]
from PIL import Image

from tests.executors.providers.lab import faults
from tests.executors.providers.lab.jigsawstack import BASE, JigsawStackLab
from tests.executors.providers.lab.pictures import painted
from tests.executors.providers.lab.server import LAB_KEY, Lab


def client_of(lab: Lab, key: str = LAB_KEY) -> Any:
    """JigsawStack's own client."""
    return AsyncJigsawStack(api_key=key, base_url=(lab.url + BASE).removesuffix("/v1"))


@pytest.fixture
def client(lab: Lab) -> Any:
    """One of them."""
    return client_of(lab)


async def test_a_picture_behind_a_url(lab: Lab, client: Any) -> None:
    """What the client is answered when it names no form."""
    answer = await client.image_generation({"prompt": "a fox"})
    assert answer["success"] is True
    assert answer["url"].startswith(lab.url + "/files/")


async def test_a_picture_as_bytes(client: Any) -> None:
    """The client takes them for what they are."""
    asked = {"prompt": "a fox", "width": 256, "height": 512, "return_type": "binary"}
    content = await client.image_generation(asked)
    assert Image.open(io.BytesIO(content)).size == (256, 512)


async def test_a_picture_as_base64(client: Any) -> None:
    """It stands where the URL would."""
    answer = await client.image_generation({"prompt": "a fox", "return_type": "base64"})
    assert answer["url"].startswith("data:image/png;base64,")


async def test_a_picture_from_another(lab: Lab, client: Any) -> None:
    """Uploaded to the file store, named by its key, deleted."""
    own = next(vendor for vendor in lab.vendors if isinstance(vendor, JigsawStackLab))
    stored = await client.store.upload(
        painted(64, 64), {"key": "a.png", "content_type": "image/png"}
    )
    assert (stored["key"], stored["size"]) == ("a.png", len(painted(64, 64)))
    answer = await client.image_generation({"prompt": "bluer", "file_store_key": "a.png"})
    assert answer["success"] is True
    assert (await client.store.delete("a.png"))["success"] is True
    assert own.files == {}


@pytest.mark.parametrize("status", [400, 422, 429, 500, 503])
async def test_errors_are_what_the_client_takes_them_for(
    lab: Lab, client: Any, status: int
) -> None:
    """Status, sentence and word of an error are where the client reads them."""
    lab.script(faults.Status(status, "some_error"))
    with pytest.raises(JigsawStackError) as caught:
        await client.image_generation({"prompt": "a fox"})
    assert (caught.value.code, caught.value.error) == (status, "some_error")
    assert "was told to say this" in caught.value.message


async def test_wrong_questions_and_wrong_keys(lab: Lab, client: Any) -> None:
    """The laboratory looks at both as the vendor does."""
    for wrong in (
        {"prompt": ""},
        {"prompt": "a", "width": 64},
        {"prompt": "a", "file_store_key": "x"},
    ):
        with pytest.raises(JigsawStackError) as caught:
            await client.image_generation(wrong)
        assert caught.value.code == 400
    with pytest.raises(JigsawStackError) as caught:
        await client_of(lab, "sk-wrong").image_generation({"prompt": "a fox"})
    assert caught.value.code == 401
