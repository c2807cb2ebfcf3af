"""Palettes for a theme."""

from __future__ import annotations

__all__ = ["generate_palettes"]

import asyncio
from typing import Any

from executors.base import JobContext
from executors.imaging.palettes import Palette, harmonies


async def generate_palettes(
    job: JobContext[Any], theme: str, count: int, seed: int | None
) -> tuple[Palette, ...]:
    """``count`` distinct palettes in the mood of ``theme``; the same seed gives the same ones."""
    async with job.stage("palette_generation", weight=0.05, label="Palette generation"):
        return await asyncio.to_thread(harmonies, theme, count, seed=seed)
