"""What is wrong with the settings."""

from __future__ import annotations

__all__ = ["ConfigError"]


class ConfigError(Exception):
    """A setting is missing, unknown or wrong; the message names it and the next step."""
