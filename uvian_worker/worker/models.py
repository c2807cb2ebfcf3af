"""The models of a worker, as its settings choose them: one client per vendor, one session for all."""

from __future__ import annotations

__all__ = ["Models", "open_models"]

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property

import aiohttp
from pydantic import SecretStr

from executors.imaging.codec import DECODERS, Decoders
from executors.providers.base import ChatModel, ImageModel
from executors.providers.fal import FalImageModel, fal_vendor
from executors.providers.fallback import FallbackChatModel, FallbackImageModel
from executors.providers.jigsawstack import JigsawStackImageModel, jigsawstack_vendor
from executors.providers.offline import LocalChatModel, LocalImageModel
from executors.providers.openai import OPENAI_URL, OpenAIChatModel, OpenAIImageModel, openai_vendor
from executors.providers.runpod import RunPodChatModel, RunPodImageModel, runpod_vendor
from executors.providers.transport.http import Timeouts, VendorClient, open_session
from executors.providers.transport.limits import CallLimits
from executors.providers.transport.results import Fetch, Results
from executors.providers.transport.vendor import Vendor
from uvian_worker import __version__
from uvian_worker.config import Config, ConfigError
from uvian_worker.config.setting_types import names_in, numbers_in


@dataclass(frozen=True, slots=True)
class Models:
    """The model for pictures and the model for chats."""

    image: ImageModel
    chat: ChatModel


@asynccontextmanager
async def open_models(
    config: Config, fetch: Fetch, decoders: Decoders = DECODERS
) -> AsyncIterator[Models]:
    """The models that the settings choose, until the block ends.

    ``fetch`` gets the pictures that vendors leave at URLs. Raises ``ConfigError`` for a vendor without a key.
    """
    async with open_session(f"uvian-worker/{__version__}") as session:
        vendors = _Vendors(config, session, fetch, decoders)
        images = [vendors.image(name) for name in names_in(config.image_model)]
        chats = [vendors.chat(name) for name in names_in(config.chat_model)]
        yield Models(
            image=images[0] if len(images) == 1 else FallbackImageModel(images),
            chat=chats[0] if len(chats) == 1 else FallbackChatModel(chats),
        )


class _Vendors:
    """Models by the names of their vendors. All models of a vendor share its client."""

    def __init__(
        self,
        config: Config,
        session: aiohttp.ClientSession,
        fetch: Fetch,
        decoders: Decoders,
    ) -> None:
        self._config = config
        self._session = session
        self._fetch = fetch
        self._decoders = decoders

    def image(self, name: str) -> ImageModel:
        """Who makes pictures under that name."""
        match name:
            case "local":
                return LocalImageModel(self._decoders)
            case "openai":
                client = self._openai
                model = self._config.openai_image_model
                return OpenAIImageModel(client, self._results(client.vendor), model=model)
            case "fal":
                client = self._fal
                return FalImageModel(
                    client,
                    self._results(client.vendor),
                    model=self._config.fal_image_model,
                    refine_model=self._config.fal_refine_model,
                )
            case "runpod":
                client = self._runpod(self._config.runpod_image_endpoint, "image")
                return RunPodImageModel(client, self._results(client.vendor))
            case "jigsawstack":
                client = self._jigsawstack
                return JigsawStackImageModel(client, self._results(client.vendor))
            case _:
                raise ConfigError(f"UVIAN_IMAGE_MODEL: {name} makes no pictures")

    def chat(self, name: str) -> ChatModel:
        """Who answers chats under that name."""
        match name:
            case "local":
                return LocalChatModel()
            case "openai":
                return OpenAIChatModel(self._openai, model=self._config.openai_chat_model)
            case "runpod":
                client = self._runpod(self._config.runpod_chat_endpoint, "chat")
                model = self._config.runpod_chat_model
                return RunPodChatModel(client) if model is None else self._streamed(client, model)
            case _:
                raise ConfigError(f"UVIAN_CHAT_MODEL: {name} answers no chats")

    @cached_property
    def _openai(self) -> VendorClient:
        config = self._config
        if config.openai_api_key is None and config.openai_base_url == OPENAI_URL:
            raise ConfigError(
                "UVIAN_OPENAI_API_KEY is not set, and UVIAN_IMAGE_MODEL or UVIAN_CHAT_MODEL chooses "
                "openai. Set the key, or UVIAN_OPENAI_BASE_URL for a server that needs none."
            )
        vendor = openai_vendor(config.openai_base_url, config.openai_api_key)
        return self._client_of(vendor, config.openai_timeouts, config.openai_limits)

    @cached_property
    def _fal(self) -> VendorClient:
        config = self._config
        _require(config.fal_api_key, "fal")
        vendor = fal_vendor(config.fal_base_url, config.fal_api_key)
        return self._client_of(vendor, config.fal_timeouts, config.fal_limits)

    def _runpod(self, endpoint: str | None, does: str) -> VendorClient:
        """A client for each endpoint: what waits for one must not hold up the other."""
        config = self._config
        _require(config.runpod_api_key, "runpod")
        if endpoint is None:
            raise ConfigError(
                f"UVIAN_RUNPOD_{does.upper()}_ENDPOINT is not set, and UVIAN_{does.upper()}_MODEL "
                "chooses runpod. Give the id of the endpoint, as it stands in its URL."
            )
        vendor = runpod_vendor(endpoint, config.runpod_base_url, config.runpod_api_key)
        return self._client_of(vendor, config.runpod_timeouts, config.runpod_limits)

    def _streamed(self, endpoint: VendorClient, model: str) -> ChatModel:
        """OpenAI's route of the same endpoint."""
        config = self._config
        vendor = openai_vendor(
            f"{endpoint.vendor.base_url}/openai/v1",
            config.runpod_api_key,
            name="runpod",
            label="RunPod",
        )
        client = self._client_of(vendor, config.runpod_timeouts, config.runpod_limits)
        return OpenAIChatModel(client, model=model)

    @cached_property
    def _jigsawstack(self) -> VendorClient:
        config = self._config
        _require(config.jigsawstack_api_key, "jigsawstack")
        vendor = jigsawstack_vendor(config.jigsawstack_base_url, config.jigsawstack_api_key)
        return self._client_of(vendor, config.jigsawstack_timeouts, config.jigsawstack_limits)

    def _client_of(self, vendor: Vendor, timeouts: str, limits: str) -> VendorClient:
        allowed = numbers_in(limits)
        return VendorClient(
            self._session,
            vendor,
            timeouts=Timeouts(**numbers_in(timeouts)),
            limits=CallLimits(
                concurrency=int(allowed["concurrency"]), per_second=allowed["per_second"]
            ),
        )

    def _results(self, vendor: Vendor) -> Results:
        return Results(self._session, vendor, self._fetch, largest=self._config.image_max_bytes)


def _require(key: SecretStr | None, name: str) -> None:
    if key is None:
        raise ConfigError(
            f"UVIAN_{name.upper()}_API_KEY is not set, and UVIAN_IMAGE_MODEL or UVIAN_CHAT_MODEL "
            f"chooses {name}. Set the key, or choose another provider."
        )
