"""What ``arq uvian_worker.WorkerSettings`` runs.

Importing this module reads and changes nothing of the process. Settings are read when arq makes a
worker of ``WorkerSettings``, and only the ``arq`` command gets its process changed.
"""

from __future__ import annotations

__all__ = ["WorkerSettings", "run_worker"]

import asyncio
import logging
import sys
import threading
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Final

import arq.worker
from arq.connections import RedisSettings
from redis.exceptions import RedisError

from executors.registry import BUILT_IN
from repositories.errors import Misconfigured, RepositoryError, Transient
from uvian_common.scrubbing import scrubbed_trace
from uvian_common.tasks import cancel_until_done
from uvian_worker.config import Config, ConfigError
from uvian_worker.process import logs
from uvian_worker.process.exit_codes import ExitCode
from uvian_worker.process.runtime import (
    SIGNALS,
    end_on_signals,
    end_process,
    freeze_garbage_collector,
    use_fast_loop,
)
from uvian_worker.queue.arq_adapter.command import (
    ReadWhenArqStarts,
    is_arqs_process,
    is_watching,
    leave_watch,
)
from uvian_worker.queue.arq_adapter.pool import (
    WakingArqRedis,
    arq_redis_from_url,
    deserialize,
    serialize,
)
from uvian_worker.queue.arq_adapter.source import ArqWorkSource
from uvian_worker.redis.clients import address_of
from uvian_worker.redis.errors import RedisAway
from uvian_worker.redis.keys import Keys
from uvian_worker.worker.remote_control import RemoteControl
from uvian_worker.worker.services import open_services
from uvian_worker.worker.shutdown import Shutdown, close_in_time
from uvian_worker.worker.tasks import run_job

log = logging.getLogger("uvian.worker")

_LAST_SECONDS: Final = 2.0  #: that arq and the threads may take once everything of ours is closed


@dataclass(frozen=True, slots=True)
class _Made:
    """What the worker of this process was made of, when arq made it."""

    config: Config
    pool: WakingArqRedis


_made: _Made | None = None


def _this_worker() -> _Made:
    assert _made is not None  # noqa: S101 - arq calls hooks of workers that it has made
    return _made


def _read_settings() -> Mapping[str, Any]:
    """The settings that arq has to know; a wrong one is a critical log line and exit code 2."""
    global _made  # noqa: PLW0603 - arq gives its hooks nothing of the class they come from
    try:
        config = Config.load()
        config.require_database()
    except ConfigError as error:
        logs.configure()
        log.critical("the worker cannot start: %s", error)
        raise SystemExit(ExitCode.USAGE) from None
    if is_arqs_process():
        use_fast_loop()
        logs.configure(config.log_level, config.log_format)
        sys.excepthook = _explain
        end_on_signals()  # until ``startup`` handles them
    url = config.redis_url.get_secret_value()
    _made = _Made(config, arq_redis_from_url(url, config.namespace))
    return {
        "redis_pool": _made.pool,
        "redis_settings": RedisSettings.from_dsn(url),  # for `arq --check`
        "queue_name": Keys(config.namespace).queue,
        "max_jobs": config.max_jobs,
    }


async def startup(ctx: dict[str, Any]) -> None:
    """arq's hook: handle the signals, open the services. A failure is one line and consumes no job."""
    stack = ctx["stack"] = AsyncExitStack()
    made = _this_worker()
    logs.configure(made.config.log_level, made.config.log_format)
    # arq runs this hook in its main task. To cancel that task is how a worker ends: at once during the
    # start, after the drain later.
    main = asyncio.current_task()
    assert main is not None  # noqa: S101 - a coroutine always runs in a task
    _end_on_signals(made.pool, main)
    try:
        services = await stack.enter_async_context(
            open_services(
                made.config,
                WorkerSettings.executors,
                source_on=partial(ArqWorkSource, made.pool),
                redis_state=made.pool.state,
            )
        )
    except Exception as error:  # noqa: BLE001 - it is logged, and ends the process
        made.pool.give_up()
        raise SystemExit(_log_failed_start(error)) from None
    ctx["services"], ctx["source"] = services, services.source
    end = Shutdown(services, partial(_end, ctx, main))
    stack.push_async_callback(RemoteControl(services, end).close)
    end.install()
    freeze_garbage_collector()
    log.info(
        "worker %s: %s, %d at a time",
        services.worker,
        ", ".join(services.registry.types),
        made.config.max_jobs,
    )


async def shutdown(ctx: dict[str, Any]) -> None:
    """arq's hook, called after a half start too: close what was opened, in reverse."""
    _this_worker().pool.give_up()
    if "stack" in ctx:
        await ctx.pop("stack").aclose()
    if is_watching():
        leave_watch(restart=not ctx.pop("ends", False))


def _end_on_signals(pool: WakingArqRedis, main: asyncio.Task[Any]) -> None:
    def end() -> None:
        pool.give_up()  # arq sends a last command, and Redis may be away
        main.cancel()

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, end)


def _log_failed_start(error: Exception) -> ExitCode:
    """Say why the worker cannot start; a stack trace only for a bug of ours."""
    code = _code_of(error)
    if code is ExitCode.UNEXPECTED:
        log.critical("the worker cannot start: %r", error, exc_info=error)
    else:
        log.critical("the worker cannot start: %s", error)
    return code


def _code_of(error: Exception) -> ExitCode:
    match error:
        case (
            ConfigError() | Misconfigured() | TypeError() | ValueError()
        ):  # the last two: executors
            return ExitCode.USAGE
        case Transient() | OSError():
            return ExitCode.UNREACHABLE
        case RepositoryError():
            return ExitCode.REFUSED
        case _:
            return ExitCode.UNEXPECTED


async def _end(ctx: dict[str, Any], main: asyncio.Task[Any], finished: bool) -> None:
    """After the drain: close the services here, because arq calls ``shutdown`` only if Redis answers."""
    ctx["ends"] = True
    if is_watching():  # arq would continue to watch
        await cancel_until_done(main)
        await shutdown(ctx)
    if not (await close_in_time(ctx.pop("stack")) and finished):
        end_process()
    # arq still uses a Redis that may be away, and Python waits for threads that may not end.
    last = threading.Timer(_LAST_SECONDS, end_process)
    last.daemon = True
    last.start()
    # A single cancellation can get lost in what arq awaits; then it would poll for ever.
    await cancel_until_done(main)


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """arq uses Redis before it calls a hook of ours: say in one line what is wrong all the same."""
    if not isinstance(error, RedisError):
        print(scrubbed_trace(kind, error, trace), file=sys.stderr)  # noqa: T201 - as Python does
        return
    logs.configure()
    what = error if isinstance(error, RedisAway) else f"refuses a command: {error}"
    log.critical(
        "the worker cannot continue: Redis at %s %s. Check UVIAN_REDIS_URL.",
        address_of(_this_worker().pool),
        what,
    )


class _ReadAtStart(ReadWhenArqStarts):
    read_settings = staticmethod(_read_settings)


class WorkerSettings(metaclass=_ReadAtStart):
    """arq reads the attributes of this class and of no base class; a test compares their names.

    ``redis_pool``, ``redis_settings``, ``queue_name`` and ``max_jobs`` come from the settings.
    """

    functions: ClassVar[Any] = (run_job,)
    #: Ours: arq ignores it. Subclass nothing; assign another tuple to run other executors.
    executors: ClassVar[Any] = BUILT_IN
    on_startup: ClassVar[Any] = startup
    on_shutdown: ClassVar[Any] = shutdown
    handle_signals: ClassVar[bool] = False
    #: Timeouts, attempts and results belong to the runner and to Postgres. This one only bounds how
    #: long arq's lock of a loop outlives a killed worker.
    job_timeout: ClassVar[int] = 86400
    max_tries: ClassVar[int] = 1_000_000
    keep_result: ClassVar[int] = 0
    #: The pool waits for work; this only paces a loop that finds nothing to start.
    poll_delay: ClassVar[float] = 0.005
    health_check_interval: ClassVar[int] = 15
    log_results: ClassVar[bool] = False
    job_serializer: ClassVar[Any] = serialize
    job_deserializer: ClassVar[Any] = deserialize


def run_worker(*, burst: bool = False) -> None:
    """Run a worker in this process until it ends; ``burst``: until no job waits."""
    options = {"burst": True} if burst else {}
    arq.worker.run_worker(WorkerSettings, **options)  # type: ignore[arg-type]
