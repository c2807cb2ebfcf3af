"""JigsawStack: pictures."""

from __future__ import annotations

__all__ = ["JIGSAWSTACK_URL", "JigsawStackImageModel", "jigsawstack_vendor"]

from executors.providers.jigsawstack.images import (
    JIGSAWSTACK_URL,
    JigsawStackImageModel,
    jigsawstack_vendor,
)
