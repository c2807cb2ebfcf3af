"""The models of the table: each vendor's, in the laboratory, as by a worker that has just started."""

from __future__ import annotations

__all__ = ["chat_model", "image_model"]

import aiohttp
from pydantic import SecretStr

from executors.providers.base import ChatModel, ImageModel
from executors.providers.fal import FalImageModel, fal_vendor
from executors.providers.jigsawstack import JigsawStackImageModel, jigsawstack_vendor
from executors.providers.openai import OpenAIChatModel, OpenAIImageModel, openai_vendor
from executors.providers.runpod import RunPodChatModel, RunPodImageModel, runpod_vendor
from executors.providers.transport.http import Timeouts, VendorClient
from executors.providers.transport.results import Results
from executors.providers.transport.vendor import Vendor
from tests.executors.providers.lab import fal, jigsawstack, openai, runpod
from tests.executors.providers.lab.server import LAB_KEY, Lab

KEY = SecretStr(LAB_KEY)


def chat_model(
    name: str, lab: Lab, session: aiohttp.ClientSession, timeouts: Timeouts | None = None
) -> ChatModel:
    """Who answers chats under that name."""
    client = VendorClient(session, _vendor(name, lab), timeouts=timeouts)
    match name:
        case "openai":
            return OpenAIChatModel(client, model="lab-chat")
        case "runpod":
            return RunPodChatModel(client, poll_every=0.01)
        case _:
            raise LookupError(name)


def image_model(
    name: str, lab: Lab, session: aiohttp.ClientSession, timeouts: Timeouts | None = None
) -> ImageModel:
    """Who makes pictures under that name."""
    client = VendorClient(session, _vendor(name, lab), timeouts=timeouts)
    results = Results(session, client.vendor, no_internet)
    match name:
        case "openai":
            return OpenAIImageModel(client, results, model="lab-image")
        case "fal":
            return FalImageModel(
                client,
                results,
                model="lab/draw",
                refine_model="lab/draw/image-to-image",
                poll_every=0.01,
            )
        case "runpod":
            return RunPodImageModel(client, results, poll_every=0.01)
        case "jigsawstack":
            return JigsawStackImageModel(client, results)
        case _:
            raise LookupError(name)


async def no_internet(url: str, *, max_bytes: int) -> bytes:
    """Nothing is fetched from outside."""
    raise AssertionError(url, max_bytes)


def _vendor(name: str, lab: Lab) -> Vendor:
    match name:
        case "openai":
            return openai_vendor(lab.url + openai.BASE, KEY, label="OpenAI")
        case "fal":
            return fal_vendor(lab.url + fal.BASE, KEY)
        case "runpod":
            return runpod_vendor("lab-endpoint", lab.url + runpod.BASE, KEY)
        case "jigsawstack":
            return jigsawstack_vendor(lab.url + jigsawstack.BASE, KEY)
        case _:
            raise LookupError(name)
