"""The object graph of a worker: built once per process, closed in reverse."""

from __future__ import annotations

__all__ = ["Services", "open_services"]

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from executors.base import JobServices
from executors.fetching import Fetcher
from executors.imaging.codec import Decoders, Limits
from executors.registry import AnyExecutor, Registry
from executors.running.runner import Runner
from repositories.concepts import UserConcepts
from repositories.conversations import UserConversations
from repositories.database import Database
from repositories.errors import RepositoryError
from repositories.files import FileRepository
from repositories.images import UserImages
from repositories.jobs import JobRepository
from repositories.messages import UserMessages
from uvian_worker import __version__
from uvian_worker.config import Config, ConfigError
from uvian_worker.events.control import Control
from uvian_worker.events.publisher import Publisher
from uvian_worker.process.health import HealthServer, postgres_state, redis_state, sweep_state
from uvian_worker.process.project_setup import say_what_is_missing
from uvian_worker.process.startup import when_there
from uvian_worker.process.stores import Stores
from uvian_worker.queue.dispatch import Dispatcher, Taker
from uvian_worker.redis.connection import redis_from_url
from uvian_worker.redis.errors import FAULTS, RedisAway, RedisState
from uvian_worker.redis.permissions import missing_rights
from uvian_worker.redis.transport import place_of
from uvian_worker.sweep.files import FileSweeper
from uvian_worker.sweep.outbox import Outbox
from uvian_worker.sweep.sweeper import Sweeper
from uvian_worker.worker.models import open_models

log = logging.getLogger("uvian.worker")

_RIGHTS_SECONDS = 5.0  #: that a start waits to hear what it may do
_WAITING = "The worker waits for it, and begins when it is back."


@dataclass(frozen=True, slots=True)
class Services:
    """What a worker process has."""

    config: Config
    worker: str
    registry: Registry
    database: Database
    jobs: JobRepository
    runner: Runner
    taker: Taker
    sweeper: Sweeper
    control: Control


@asynccontextmanager
async def open_services(
    config: Config,
    executors: Iterable[type[AnyExecutor]] | None = None,
    *,
    redis_state: RedisState | None = None,
) -> AsyncIterator[Services]:
    """Open everything a worker needs; what was opened last closes first, after a half start too.

    ``redis_state`` is what the process knows of its Redis, where others in it speak to it as well.
    A database that is away is waited for. Raises ``ConfigError`` and
    ``RepositoryError`` with the next step in their message.
    """
    async with AsyncExitStack() as stack:
        asyncio.get_running_loop().set_default_executor(
            ThreadPoolExecutor(config.cpu_threads, thread_name_prefix="uvian")
        )
        registry = Registry.load() if executors is None else Registry.load(executors)
        for note in config.notes():
            log.warning("%s", note)
        stores = Stores(config, stack)
        health = await _serve_health(config, stack)
        await _require_redis(config)
        database = await stores.untried_database()
        await when_there(partial(stores.try_database, database), _WAITING)
        _say_who_listens(config)
        images = await stores.images()
        await say_what_is_missing(database, config)
        fetcher = Fetcher(http=config.fetch_http, seconds=config.fetch_timeout)
        stack.push_async_callback(fetcher.close)
        decoders = Decoders(config.cpu_threads)
        stack.callback(decoders.close)
        models = await stack.enter_async_context(open_models(config, fetcher.fetch, decoders))

        redis = redis_from_url(
            config.redis_url.get_secret_value(), patience=3.0, state=redis_state or RedisState()
        )
        stack.push_async_callback(redis.aclose)
        publisher = Publisher(redis, config.namespace)
        stack.push_async_callback(publisher.close)
        dispatcher = Dispatcher(redis, config.namespace)
        stack.push_async_callback(dispatcher.close)
        outbox = Outbox(dispatcher, publisher)
        stack.push_async_callback(outbox.close)
        taker = Taker(redis, config.namespace)
        stack.push_async_callback(taker.close)

        worker = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        jobs = JobRepository(database, worker, outbox.deliver_later, lease_seconds=config.lease)
        stack.push_async_callback(jobs.close)
        register = partial(jobs.register, __version__, registry.descriptions())
        await when_there(register, _WAITING)
        stack.push_async_callback(_retire, jobs)

        limits = Limits(
            bytes=config.image_max_bytes,
            pixels=config.image_max_pixels,
            seconds=config.image_max_seconds,
        )
        runner = Runner(
            jobs=jobs,
            registry=registry,
            sink=publisher,
            services_of=lambda user_id: JobServices(
                concepts=UserConcepts(database, user_id, worker),
                images=UserImages(images, user_id),
                image_model=models.image,
                conversations=UserConversations(database, user_id),
                messages=UserMessages(database, user_id),
                chat_model=models.chat,
                fetcher=fetcher,
                image_limits=limits,
                decoders=decoders,
                history_tokens=config.chat_history_tokens,
            ),
            on_claim_answered=taker.done,
            renew_every=config.renew_every,
            stop_grace=config.stop_grace,
        )
        stack.push_async_callback(runner.close)
        await runner.open()

        sweeper = Sweeper(
            database=database,
            dispatcher=dispatcher,
            outbox=outbox,
            interval=config.sweep_every,
            lease_seconds=config.lease,
        )
        sweeper.start()
        stack.push_async_callback(sweeper.close)
        file_sweeper = FileSweeper(FileRepository(database), images)
        file_sweeper.start()
        stack.push_async_callback(file_sweeper.close)
        control = Control(redis, config.namespace)
        stack.push_async_callback(control.close)

        services = Services(
            config=config,
            worker=worker,
            registry=registry,
            database=database,
            jobs=jobs,
            runner=runner,
            taker=taker,
            sweeper=sweeper,
            control=control,
        )
        health.begin(services, dispatcher)
        yield services


async def _require_redis(config: Config) -> None:
    """Raise ``ConfigError`` for what only settings mend: a password, TLS, a right that the user lacks.

    A Redis that is away is not waited for: what needs it does that.
    """
    redis = redis_from_url(
        config.redis_url.get_secret_value(), patience=0, state=RedisState(speaks=False)
    )
    try:
        async with asyncio.timeout(_RIGHTS_SECONDS):
            lacks = await missing_rights(redis, config.namespace)
    except RedisAway as away:
        if away.passes:
            return
        raise ConfigError(f"UVIAN_REDIS_URL: Redis at {place_of(redis)} {away}") from away
    except FAULTS:
        return
    finally:
        await redis.aclose()
    if lacks is not None:
        raise ConfigError(f"UVIAN_REDIS_URL: {lacks}")


def _say_who_listens(config: Config) -> None:
    if config.listen_url() is None:
        log.info(
            "rows made by hand or by submit_job wait for the next sweep (every %g s): LISTEN needs a "
            "session, which this connection does not keep. For pickup at once set "
            "UVIAN_DATABASE_DIRECT_URL to the direct connection string or the session pooler's.",
            config.sweep_every,
        )


async def _retire(jobs: JobRepository) -> None:
    with contextlib.suppress(RepositoryError):
        await jobs.retire()


class _Health:
    """What the health endpoint tells: that the worker still waits, then how its parts are."""

    def __init__(self) -> None:
        self._parts: tuple[Services, Dispatcher] | None = None

    def begin(self, services: Services, dispatcher: Dispatcher) -> None:
        """From now on there are parts to ask."""
        self._parts = services, dispatcher

    async def __call__(self) -> dict[str, str]:
        """A sentence per part, ``ok`` when it is."""
        if self._parts is None:
            return {"start": "waiting for the servers"}
        services, dispatcher = self._parts
        redis, postgres = await asyncio.gather(
            redis_state(dispatcher), postgres_state(services.database)
        )
        return {"redis": redis, "postgres": postgres, "sweep": sweep_state(services.sweeper.age)}


async def _serve_health(config: Config, stack: AsyncExitStack) -> _Health:
    """Before anything is waited for: who waits is alive, and must not be killed for it."""
    health = _Health()
    if config.health_port is None:
        return health
    server = HealthServer(config.health_host, config.health_port, health)
    stack.push_async_callback(server.close)
    try:
        await server.start()
    except OSError as error:
        raise ConfigError(
            f"UVIAN_HEALTH_HOST and UVIAN_HEALTH_PORT: {error.strerror or error}"
        ) from error
    log.info("health on http://%s:%d/health/ready", config.health_host, server.port)
    return health
