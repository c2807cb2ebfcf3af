"""``uvian worker``: checks settings, Redis and schema, then ``arq uvian_worker.WorkerSettings``."""

from __future__ import annotations

__all__ = ["worker"]

from typing import Annotated

import typer

from uvian_worker.cli.errors import exiting_with_zero, explained, run


def worker(
    burst: Annotated[
        bool, typer.Option("--burst", help="Run the jobs that wait, then stop.")
    ] = False,
) -> None:
    """Run a worker, after checking settings, Redis and schema.

    After these checks it is the same as: arq uvian_worker.WorkerSettings
    """
    from uvian_worker.process.runtime import end_on_signals, use_fast_loop

    with exiting_with_zero():
        run(_check())
    end_on_signals()
    with explained():
        from uvian_worker.worker.settings import run_worker

        use_fast_loop()
        run_worker(burst=burst)


async def _check() -> None:
    from uvian_worker.cli.connect import require_usable
    from uvian_worker.config import Config
    from uvian_worker.process import logs

    # The servers of `uvian dev` do not count here: a worker belongs to those it was configured for.
    config = Config.load()
    await require_usable(config)
    logs.configure(config.log_level, config.log_format)
