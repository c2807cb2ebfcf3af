"""Processes and wires: the only package that knows arq and the keys in Redis.

``arq uvian_worker.WorkerSettings`` starts a worker; ``uvian_worker.Client`` is what an API imports.
Both are loaded when they are asked for: importing this package reads no environment.
"""

from __future__ import annotations

__all__ = ["Client", "WorkerSettings", "__version__"]

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvian_worker.client import Client
    from uvian_worker.worker.settings import WorkerSettings

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "WorkerSettings":
        from uvian_worker.process.packages import require_own_packages  # noqa: PLC0415 - only a worker asks

        require_own_packages()
        from uvian_worker.worker.settings import WorkerSettings  # noqa: PLC0415 - reads the environment

        return WorkerSettings
    if name == "Client":
        from uvian_worker.client import Client  # noqa: PLC0415 - only who asks pays for it

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
