"""Settings: read from the environment once, checked, frozen. Each subject has a file."""

from __future__ import annotations

__all__ = ["Config", "ConfigError"]

from uvian_worker.config.errors import ConfigError
from uvian_worker.config.settings import Config
