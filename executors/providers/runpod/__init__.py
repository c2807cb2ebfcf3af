"""RunPod's serverless endpoints, by their own API: chats of vLLM and TGI workers, and pictures.

Workers of vLLM also speak OpenAI's API, at ``…/{endpoint}/openai/v1``: where the model's name there is
known, ``OpenAIChatModel`` is the better way, because it streams; here answers are polled.
"""

from __future__ import annotations

__all__ = [
    "RUNPOD_URL",
    "RunPodChatModel",
    "RunPodImageModel",
    "runpod_vendor",
]

from executors.providers.runpod.chat import RunPodChatModel
from executors.providers.runpod.endpoint import RUNPOD_URL, runpod_vendor
from executors.providers.runpod.images import RunPodImageModel
