"""Settings: read from the environment once, checked, frozen."""

from __future__ import annotations

__all__ = ["Config", "ConfigError"]

from uvian_worker.config.settings import Config, ConfigError
