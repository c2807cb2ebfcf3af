"""``uvian gateway``: the HTTP and WebSocket side, until SIGTERM or Ctrl-C."""

from __future__ import annotations

__all__ = ["gateway"]

from uvian_worker.cli.errors import exiting_with_zero, run


def gateway() -> None:
    """Run a gateway: jobs, conversations and live events for signed-in users.

    After SIGTERM or Ctrl-C it finishes its requests, ends live connections, and exits with 0.
    """
    from uvian_worker.process.runtime import raise_file_limit, use_fast_loop

    use_fast_loop()
    raise_file_limit()
    with exiting_with_zero():
        run(_serve())


async def _serve() -> None:
    import asyncio

    from uvian_worker.cli.connect import require_redis_url
    from uvian_worker.config import Config
    from uvian_worker.gateway.serving import serving
    from uvian_worker.process import logs
    from uvian_worker.process.runtime import freeze_garbage_collector

    # Not what `uvian dev` has written down: a gateway belongs to the servers it was configured for.
    config = Config.load()
    config.require_database()
    logs.configure(config.log_level, config.log_format)
    await require_redis_url(config)
    async with serving(config):
        freeze_garbage_collector()
        await asyncio.Event().wait()
