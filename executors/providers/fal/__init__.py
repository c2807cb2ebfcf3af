"""FAL's queue: pictures."""

from __future__ import annotations

__all__ = ["FAL_URL", "FalImageModel", "fal_vendor"]

from executors.providers.fal.images import FAL_URL, FalImageModel, fal_vendor
