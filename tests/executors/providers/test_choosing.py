"""From settings to models: who is chosen, in which order, and what is said when it cannot be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from executors.errors import ProviderUnavailable
from executors.providers.base import ChatMessage
from executors.providers.fal import FAL_URL
from executors.providers.fallback import FallbackImageModel
from executors.providers.jigsawstack import JIGSAWSTACK_URL
from executors.providers.offline.chat import LocalChatModel
from executors.providers.offline.images import LocalImageModel
from executors.providers.openai import OPENAI_URL, OpenAIChatModel, OpenAIImageModel
from executors.providers.runpod import RUNPOD_URL
from executors.providers.transport.http import Timeouts
from executors.providers.transport.limits import CallLimits
from tests.executors.providers.lab import VENDORS, faults
from tests.executors.providers.lab.openai import BASE
from tests.executors.providers.lab.runpod import BASE as RUNPOD
from tests.executors.providers.lab.server import LAB_KEY, Lab
from uvian_worker.config import Config, ConfigError
from uvian_worker.config.setting_types import numbers_in
from uvian_worker.worker.models import Models, open_models


async def no_internet(url: str, *, max_bytes: int) -> bytes:
    """Nothing is fetched from outside."""
    raise AssertionError(url, max_bytes)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes what a test opens."""
    async with AsyncExitStack() as stack:
        yield stack


async def models(stack: AsyncExitStack, **settings: Any) -> Models:
    """The models that the settings choose."""
    return await stack.enter_async_context(
        open_models(Config.load({}, _env_file=None, **settings), no_internet)
    )


async def test_without_settings(stack: AsyncExitStack) -> None:
    """Pictures are drawn and chats answered here, by nobody's leave."""
    chosen = await models(stack)
    assert isinstance(chosen.image, LocalImageModel)
    assert isinstance(chosen.chat, LocalChatModel)


async def test_one_of_each(stack: AsyncExitStack) -> None:
    """One vendor, one client: calls for chats and pictures are counted together."""
    chosen = await models(stack, image_model="openai", chat_model="openai", openai_api_key="sk-1")
    assert isinstance(chosen.image, OpenAIImageModel)
    assert isinstance(chosen.chat, OpenAIChatModel)
    assert chosen.image._client is chosen.chat._client
    assert chosen.image._client.vendor.base_url == OPENAI_URL


async def test_an_order(lab: Lab, stack: AsyncExitStack) -> None:
    """``openai,local``: while the first is away the second draws."""
    chosen = await models(
        stack,
        image_model="openai, local",
        openai_base_url=lab.url + BASE,
        openai_api_key=LAB_KEY,
    )
    assert isinstance(chosen.image, FallbackImageModel)
    asked: dict[str, Any] = {"subject": "a fox", "theme": "autumn", "size": 64}
    assert (await chosen.image.generate(**asked)).provider == "openai"
    lab.script(faults.Status(429, "insufficient_quota"))
    assert (await chosen.image.generate(**asked)).provider == "local"


async def test_a_server_of_ones_own_needs_no_key(lab: Lab, stack: AsyncExitStack) -> None:
    """Only the base URL is set; no Authorization header goes out."""
    chosen = await models(stack, chat_model="openai", openai_base_url=lab.url + BASE)
    with pytest.raises(Exception, match="refuses the key"):
        await anext(chosen.chat.stream([ChatMessage("user", "Hi")]))
    assert "Authorization" not in lab.asked[0].headers


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)
async def test_the_settings_that_the_laboratory_prints(
    lab: Lab, stack: AsyncExitStack, vendor: Any
) -> None:
    """They lead there, for whatever the vendor makes: one picture, one change, one answer."""
    (own,) = (one for one in lab.vendors if one.name == vendor.name)
    printed = own.exports(lab.url)
    chosen = await models(
        stack, **{name.removeprefix("UVIAN_").lower(): value for name, value in printed.items()}
    )
    if "UVIAN_IMAGE_MODEL" in printed:
        made = await chosen.image.generate(subject="a fox", theme="autumn", size=256)
        changed = await chosen.image.refine(
            original=made.content, prompt="bluer", width=256, height=256
        )
        assert made.provider == changed.provider == vendor.name
    if "UVIAN_CHAT_MODEL" in printed:
        answer = chosen.chat.stream([ChatMessage("user", "How do you do?")], max_tokens=100)
        said = "".join([delta.text async for delta in answer])
        assert said.startswith("You said: How do you do?")


@pytest.mark.parametrize("name", ["fal", "runpod", "jigsawstack"])
async def test_a_vendor_without_a_key_does_not_start(stack: AsyncExitStack, name: str) -> None:
    """At start, with the setting's name and the way out."""
    with pytest.raises(ConfigError, match=rf"^UVIAN_{name.upper()}_API_KEY is not set, and .*\.$"):
        await models(stack, image_model=name)


@pytest.mark.parametrize("does", ["image", "chat"])
async def test_an_endpoint_that_is_not_named(stack: AsyncExitStack, does: str) -> None:
    """RunPod has endpoints for each; the one that is missing is named."""
    with pytest.raises(
        ConfigError, match=rf"^UVIAN_RUNPOD_{does.upper()}_ENDPOINT is not set, and"
    ):
        await models(stack, runpod_api_key="rpa_1", **{f"{does}_model": "runpod"})


async def test_a_worker_of_vllm_streams(lab: Lab, stack: AsyncExitStack) -> None:
    """Where the model's name is known, OpenAI's route of the endpoint is asked."""
    chosen = await models(
        stack,
        chat_model="runpod",
        runpod_api_key=LAB_KEY,
        runpod_base_url=lab.url + RUNPOD,
        runpod_chat_endpoint="lab-chat",
        runpod_chat_model="lab-model",
    )
    assert isinstance(chosen.chat, OpenAIChatModel)
    assert chosen.chat.name == "runpod"
    answer = chosen.chat.stream([ChatMessage("user", "How do you do?")])
    assert "".join([delta.text async for delta in answer]).startswith("You said: How do you do?")
    (asked,) = lab.asked
    assert asked.path == f"{RUNPOD}/lab-chat/openai/v1/chat/completions"


@pytest.mark.parametrize("setting", ["image_model", "chat_model"])
async def test_a_missing_key_is_one_sentence(stack: AsyncExitStack, setting: str) -> None:
    """At start, with the setting's name and the way out."""
    with pytest.raises(ConfigError, match=r"^UVIAN_OPENAI_API_KEY is not set, and .*\.$"):
        await models(stack, **{setting: "openai"})


async def test_settings_reach_the_client(lab: Lab, stack: AsyncExitStack) -> None:
    """Of a group only what differs need be written."""
    chosen = await models(
        stack,
        chat_model="openai",
        openai_base_url=lab.url + BASE,
        openai_api_key=LAB_KEY,
        openai_timeouts="connect=0.2, first_byte=0.3",
    )
    assert isinstance(chosen.chat, OpenAIChatModel)
    assert chosen.chat._client.timeouts == Timeouts(connect=0.2, first_byte=0.3)
    lab.script(faults.Silence())
    with pytest.raises(ProviderUnavailable, match=r"within 0\.3 s"):
        await anext(chosen.chat.stream([ChatMessage("user", "Hi")]))


def test_the_defaults_that_are_written_are_those_of_the_code() -> None:
    """Two places, one truth."""
    config = Config.load({}, _env_file=None)
    assert Timeouts(**numbers_in(config.openai_timeouts)) == Timeouts()
    limits = CallLimits()
    assert numbers_in(config.openai_limits) == {
        "concurrency": limits.concurrency,
        "per_second": limits.per_second,
    }
    assert config.openai_base_url == OPENAI_URL
    assert (config.fal_base_url, config.runpod_base_url) == (FAL_URL, RUNPOD_URL)
    assert config.jigsawstack_base_url == JIGSAWSTACK_URL


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"image_model": "opnai"},
            "UVIAN_IMAGE_MODEL: there is no provider 'opnai' for this, only",
        ),
        ({"image_model": ""}, "UVIAN_IMAGE_MODEL: "),
        ({"image_model": "local,local"}, "names a provider twice"),
        ({"chat_model": "nobody"}, "UVIAN_CHAT_MODEL: there is no provider 'nobody'"),
        ({"openai_base_url": "api.openai.com"}, "UVIAN_OPENAI_BASE_URL: must be like https://"),
        ({"openai_base_url": "https://u:p@host/v1"}, "without a name, a key"),
        ({"openai_base_url": "https://host/v1?key=1"}, "without a name, a key"),
        ({"openai_api_key": "two words"}, "UVIAN_OPENAI_API_KEY: is no key"),
        ({"openai_api_key": "schlüssel"}, "is no key"),
        ({"openai_timeouts": "fast"}, "must be numbers like connect=…,first_byte=…"),
        ({"openai_timeouts": "connect=x"}, "must be numbers like"),
        ({"openai_timeouts": "conect=5"}, "not 'conect'"),
        ({"openai_timeouts": "total=0"}, "above 0"),
        ({"openai_timeouts": "total=nan"}, "above 0"),
        ({"openai_timeouts": "total=5"}, "longer than total"),
        ({"openai_limits": "concurrency=1.5"}, "whole number"),
        ({"openai_limits": "per_second=-1"}, "above 0"),
    ],
)
def test_what_is_wrong_is_said_with_its_name(settings: dict[str, str], words: str) -> None:
    """One line, which names the setting and shows no key."""
    with pytest.raises(ConfigError) as caught:
        Config.load({}, _env_file=None, **settings)
    assert words in str(caught.value)
    for key in ("two words", "schlüssel"):
        assert key not in str(caught.value)


def test_a_key_may_end_in_a_line_break() -> None:
    """As it does when it is read from a file; and no repr shows it."""
    config = Config.load({}, _env_file=None, openai_api_key="sk-secret-1\n")
    assert config.openai_api_key is not None
    assert config.openai_api_key.get_secret_value() == "sk-secret-1"
    assert "sk-secret" not in repr(config)
