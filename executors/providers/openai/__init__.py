"""OpenAI, and every server that speaks its API: RunPod's vLLM, llama.cpp, Ollama, LiteLLM and others."""

from __future__ import annotations

__all__ = ["OPENAI_URL", "OpenAIChatModel", "OpenAIImageModel", "openai_vendor"]

from executors.providers.openai.chat import OpenAIChatModel
from executors.providers.openai.images import OpenAIImageModel
from executors.providers.openai.vendor import OPENAI_URL, openai_vendor
