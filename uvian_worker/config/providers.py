"""Settings of models: which providers are used, and how each is reached."""

from __future__ import annotations

__all__ = ["ProviderSettings"]

from typing import Annotated

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from uvian_worker.config.setting_types import (
    BaseUrl,
    EndpointId,
    Key,
    ModelPath,
    completed,
    numbers_in,
    order,
)


class ProviderSettings(BaseModel):
    """Models: which providers are used, and how each is reached."""

    image_model: Annotated[
        str, order("local", "openai", "fal", "runpod", "jigsawstack"), Field(min_length=1)
    ] = "local"
    """Providers of pictures, one or several in order: `local`, `openai`, `fal`, `runpod`, `jigsawstack`."""
    chat_model: Annotated[str, order("local", "openai", "runpod"), Field(min_length=1)] = "local"
    """Providers of chats, one or several in order: `local` (an offline voice), `openai`, `runpod`."""
    openai_api_key: Key | None = None
    """Key for OpenAI; a server of your own may need none."""
    openai_base_url: BaseUrl = "https://api.openai.com/v1"
    """OpenAI, or any server that speaks its API: vLLM, llama.cpp, Ollama, LiteLLM …"""
    openai_chat_model: Annotated[str, Field(min_length=1)] = "gpt-5.4-mini"
    """The model for chats that name none."""
    openai_image_model: Annotated[str, Field(min_length=1)] = "gpt-image-2"
    """The model that makes pictures."""
    openai_timeouts: str = "connect=10,first_byte=120,idle=60,total=600"
    """Seconds to connect, until an answer begins, between two pieces of it, and in all."""
    openai_limits: str = "concurrency=100,per_second=50"
    """Calls of one worker process at a time, and per second."""
    fal_api_key: Key | None = None
    """Key for FAL."""
    fal_base_url: BaseUrl = "https://queue.fal.run"
    """URL of FAL's queue."""
    fal_image_model: ModelPath = "fal-ai/flux/dev"
    """The model that makes pictures, as FAL names it, with its path."""
    fal_refine_model: ModelPath = "fal-ai/flux/dev/image-to-image"
    """The model that changes pictures: one that takes an `image_url`."""
    fal_timeouts: str = "connect=10,first_byte=60,idle=60,total=600"
    """As `openai_timeouts`, for each call to the queue; what does not begin within `total` is dropped."""
    fal_limits: str = "concurrency=100,per_second=50"
    """Requests that one worker process sends at a time, and in a second."""
    runpod_api_key: Key | None = None
    """Key for RunPod."""
    runpod_base_url: BaseUrl = "https://api.runpod.ai/v2"
    """URL of RunPod's serverless endpoints."""
    runpod_chat_endpoint: EndpointId | None = None
    """The endpoint that answers chats, by its id."""
    runpod_chat_model: Annotated[str, Field(min_length=1)] | None = None
    """The model's name there (vLLM workers); with it the endpoint's OpenAI route is used, which streams."""
    runpod_image_endpoint: EndpointId | None = None
    """The endpoint that makes pictures."""
    runpod_timeouts: str = "connect=10,first_byte=300,idle=60,total=900"
    """As `openai_timeouts`; starting a worker takes minutes, and `total` goes with each request."""
    runpod_limits: str = "concurrency=100,per_second=50"
    """Requests that one worker process sends at a time, and in a second."""
    jigsawstack_api_key: Key | None = None
    """Key for JigsawStack."""
    jigsawstack_base_url: BaseUrl = "https://api.jigsawstack.com/v1"
    """URL of JigsawStack's API."""
    jigsawstack_timeouts: str = "connect=10,first_byte=120,idle=60,total=300"
    """As `openai_timeouts`."""
    jigsawstack_limits: str = "concurrency=50,per_second=25"
    """Requests that one worker process sends at a time, and in a second; the vendor allows 50 a second."""

    @field_validator(
        "openai_timeouts",
        "openai_limits",
        "fal_timeouts",
        "fal_limits",
        "runpod_timeouts",
        "runpod_limits",
        "jigsawstack_timeouts",
        "jigsawstack_limits",
    )
    @classmethod
    def _complete(cls, value: str, info: ValidationInfo) -> str:
        """A group of numbers, with the defaults of those it leaves out."""
        numbers = numbers_in(str(cls.model_fields[str(info.field_name)].default))
        return completed(value, numbers)
