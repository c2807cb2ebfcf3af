"""The words for models that take one prompt."""

from __future__ import annotations

__all__ = ["picture_prompt"]


def picture_prompt(subject: str, theme: str, style: str | None) -> str:
    """One prompt for a picture of ``subject`` in the colours and mood of ``theme``."""
    lines = [subject.strip(), f"Colours and mood: {theme.strip()}"]
    if style:
        lines.append(f"Style: {style.strip()}")
    return "\n".join(lines)
