"""What ``arq uvian_worker.WorkerSettings`` runs.

Importing this module reads and changes nothing of the process: settings are read when arq makes a
worker of ``WorkerSettings``, and only arq's command hands its process over to us.
"""

from __future__ import annotations

__all__ = ["WorkerSettings"]

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar

from arq.connections import RedisSettings
from arq.worker import get_kwargs
from redis.exceptions import RedisError

from executors.registry import BUILT_IN
from repositories.errors import Misconfigured, RepositoryError, Transient
from uvian_common.scrubbing import scrubbed_trace
from uvian_common.tasks import cancel_until_done
from uvian_worker.config import Config, ConfigError
from uvian_worker.events.control import (
    CancelJob,
    ControlMessage,
    DrainWorker,
    PauseWorker,
    ResumeWorker,
)
from uvian_worker.process import logs
from uvian_worker.process.exit_codes import ExitCode
from uvian_worker.process.runtime import (
    SIGNALS,
    end_process,
    end_when_told,
    keep_out_of_collections,
    use_fast_loop,
)
from uvian_worker.queue.arq_adapter import (
    WakingArqRedis,
    arq_redis_from_url,
    deserialize,
    serialize,
)
from uvian_worker.redis.errors import RedisAway
from uvian_worker.redis.keys import Keys
from uvian_worker.redis.transport import place_of
from uvian_worker.worker.services import Services, open_services
from uvian_worker.worker.tasks import run_job

log = logging.getLogger("uvian.worker")

_CLOSING_SECONDS = 5.0
_LAST_SECONDS = 2.0  #: that arq and the threads may take once everything of ours is closed


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
    """What arq has to know of the settings; a wrong one is a critical line and the end of the process."""
    global _made  # noqa: PLW0603 - arq hands its hooks nothing of the class they come from
    try:
        config = Config.load()
        config.require_database()
    except ConfigError as error:
        logs.configure()
        log.critical("the worker cannot start: %s", error)
        raise SystemExit(ExitCode.USAGE) from None
    if "arq.cli" in sys.modules:  # the process is a worker's and nothing else's
        use_fast_loop()
        logs.configure(config.log_level, config.log_format)
        sys.excepthook = _explain
        end_when_told()  # until ``startup`` takes over the signals
    url = config.redis_url.get_secret_value()
    _made = _Made(config, arq_redis_from_url(url, config.namespace))
    return {
        "redis_pool": _made.pool,
        "redis_settings": RedisSettings.from_dsn(url),  # for `arq --check`
        "queue_name": Keys(config.namespace).queue,
        "max_jobs": config.max_jobs,
    }


async def startup(ctx: dict[str, Any]) -> None:
    """arq's hook: open the services, take over the signals. A failure is one line and consumes nothing."""
    stack = ctx["stack"] = AsyncExitStack()
    made = _this_worker()
    logs.configure(made.config.log_level, made.config.log_format)
    # arq runs this hook in its main task: cancelling that task is how a worker ends, at once as long
    # as it has not begun, later when it is drained.
    main = asyncio.current_task()
    assert main is not None  # noqa: S101 - a coroutine always runs in a task

    def end() -> None:
        made.pool.give_up()  # arq has a last word for a Redis that may be away
        main.cancel()

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, end)
    try:
        services = await stack.enter_async_context(
            open_services(made.config, WorkerSettings.executors, redis_state=made.pool.state)
        )
    except Exception as error:
        code = _code_of(error)
        made.pool.give_up()
        if code is ExitCode.UNEXPECTED:
            log.critical("the worker cannot start: %r", error, exc_info=True)
        else:
            log.critical("the worker cannot start: %s", error)
        raise SystemExit(code) from None
    ctx["services"] = services
    ending = Ending(ctx, services, made.pool, main)
    stack.push_async_callback(ending.close)
    ending.install()
    keep_out_of_collections()
    log.info(
        "worker %s: %s, %d at a time",
        services.worker,
        ", ".join(services.registry.types),
        made.config.max_jobs,
    )


def _code_of(error: Exception) -> ExitCode:
    match error:
        case (
            ConfigError() | Misconfigured() | TypeError() | ValueError()
        ):  # the last two of executors
            return ExitCode.USAGE
        case Transient() | OSError():
            return ExitCode.UNREACHABLE
        case RepositoryError():
            return ExitCode.REFUSED
        case _:
            return ExitCode.UNEXPECTED


async def shutdown(ctx: dict[str, Any]) -> None:
    """arq's hook, called after a half start too: close what was opened, in reverse."""
    _this_worker().pool.give_up()
    if "stack" in ctx:
        await ctx.pop("stack").aclose()
    if _is_watching():
        _leave_watch(reload=not ctx.pop("ends", False))


async def _arq_has_finished() -> bool:
    """Wait until arq has written down that its jobs are over; it cannot while Redis is away.

    Its ``close`` cancels them where they are, and then fails with what it cancelled.
    """
    names = {t: getattr(t.get_coro(), "__qualname__", "") for t in asyncio.all_tasks()}
    if not (ending := {t for t, name in names.items() if name == "Worker.run_job"}):
        return True
    _, pending = await asyncio.wait(ending, timeout=5)
    return not pending


def _leave_watch(*, reload: bool) -> None:
    """Begin this process anew, or end it.

    ``arq --watch`` would go on with the modules it has loaded and with a pool of its own on
    localhost: a new process has the code that was changed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if reload:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves
    os._exit(0)


class Ending:
    """How a worker ends in good order, and what it is told over Redis meanwhile.

    SIGTERM or SIGINT: take no more jobs, wait out the grace, interrupt and settle what is left,
    end with exit code 0. A second signal ends the grace.
    """

    def __init__(
        self,
        ctx: dict[str, Any],
        services: Services,
        pool: WakingArqRedis,
        main: asyncio.Task[Any],
    ) -> None:
        self._ctx = ctx
        self._services = services
        self._pool = pool
        self._main = main
        self._grace = services.config.drain_grace
        self._draining: asyncio.Task[None] | None = None
        self._listening = asyncio.create_task(self._listen(), name="control")

    def install(self) -> None:
        """Handle the signals."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.drain)

    async def close(self) -> None:
        """Stop listening."""
        await cancel_until_done(self._listening)

    def drain(self) -> None:
        """Begin to end; called again, end now."""
        if self._draining is not None:
            self._services.runner.interrupt()
            return
        log.info("draining: %d jobs are running", self._services.runner.active)
        self._draining = asyncio.create_task(self._drain(), name="drain")

    async def _drain(self) -> None:
        finished = False
        try:
            self._pool.drain()
            self._services.taker.drain()
            await self._pool.picks_are_over()
            await self._services.runner.drain(self._grace)
            finished = await _arq_has_finished()
            log.info("drained")
        except Exception:
            log.exception("draining failed; ending all the same")
        self._ctx["ends"] = True
        if _is_watching():  # arq would go on watching
            await cancel_until_done(self._main)
            await shutdown(self._ctx)
        if not (await self._close_services() and finished):
            end_process()
        # arq still asks a Redis that may be away, and Python waits for threads that may not end.
        last = threading.Timer(_LAST_SECONDS, end_process)
        last.daemon = True
        last.start()
        # A single cancellation can get lost in what arq awaits; then it would poll for ever.
        await cancel_until_done(self._main)

    async def _close_services(self) -> bool:
        """Here, because arq calls ``shutdown`` only when Redis has answered it. Whether it worked."""
        closing = asyncio.ensure_future(self._ctx.pop("stack").aclose())
        await asyncio.wait([closing], timeout=_CLOSING_SECONDS)
        if not closing.done():
            log.warning("ending without a last word: Redis or Postgres does not answer")
            return False
        if (error := closing.exception()) is not None:
            log.error("the services were not closed in good order", exc_info=error)
        return True

    async def _listen(self) -> None:
        while True:
            try:
                async for message in self._services.control.listen(self._services.worker):
                    self._hear(message)
            except Exception:
                log.exception("the control channel failed; listening again")
            await asyncio.sleep(1)

    def _hear(self, message: ControlMessage) -> None:
        services = self._services
        match message:
            case CancelJob(job_id=job_id, run=run):
                services.runner.cancel(job_id, run)
            case PauseWorker():
                log.info("paused")
                self._pool.drain()
                services.taker.drain()
            case ResumeWorker() if self._draining is None:
                log.info("resumed")
                self._pool.resume()
                services.taker.resume()
            case DrainWorker():
                self.drain()
            case _:
                pass


def _is_watching() -> bool:
    return any(argument.startswith("--watch") for argument in sys.argv)


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """arq asks Redis before it calls any hook of ours: say what is wrong in one line all the same."""
    if not isinstance(error, RedisError):
        print(scrubbed_trace(kind, error, trace), file=sys.stderr)  # noqa: T201 - as Python does
        return
    logs.configure()
    what = error if isinstance(error, RedisAway) else f"refuses what it is asked: {error}"
    log.critical(
        "the worker cannot go on: Redis at %s %s. Check UVIAN_REDIS_URL.",
        place_of(_this_worker().pool),
        what,
    )


class _ReadWhenArqStarts(type):
    """arq makes a worker of ``WorkerSettings.__dict__``: then, and for arq alone, settings are read.

    Whoever else imports the class or looks at it (tests, type checkers, documentation, an IDE) reads
    no environment with it.
    """

    @property  # type: ignore[misc]  # mypy calls type's own final
    def __dict__(cls) -> Any:  # type: ignore[override]
        written: Mapping[str, Any] = type.__dict__["__dict__"].__get__(cls)
        if sys._getframe(1).f_code is get_kwargs.__code__:  # noqa: SLF001 - who asks is the question
            return {**_read_settings(), **written}
        return written


class WorkerSettings(metaclass=_ReadWhenArqStarts):
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
