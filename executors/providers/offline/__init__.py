"""The ``local`` provider: it draws and talks without a network, a key or a model."""

from __future__ import annotations

__all__ = ["LocalChatModel", "LocalImageModel"]

from executors.providers.offline.chat import LocalChatModel
from executors.providers.offline.images import LocalImageModel
