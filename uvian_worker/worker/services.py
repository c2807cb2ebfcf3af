"""The object graph of a worker: built once per process, closed in reverse."""

from __future__ import annotations

__all__ = ["Services", "open_services"]

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from redis.asyncio import Redis

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
from repositories.images import ImageStore, UserImages
from repositories.jobs import JobRepository
from repositories.messages import UserMessages
from uvian_worker import __version__
from uvian_worker.config import Config, ConfigError
from uvian_worker.events.control import Control
from uvian_worker.events.publisher import Publisher
from uvian_worker.process.project_setup import warn_of_missing_parts
from uvian_worker.process.startup import when_available
from uvian_worker.process.stores import Stores
from uvian_worker.queue.dispatch import Dispatcher
from uvian_worker.queue.taker import Taker
from uvian_worker.queue.work_source import WorkSource
from uvian_worker.redis.clients import address_of, redis_from_url
from uvian_worker.redis.errors import FAULTS, RedisAway, RedisState
from uvian_worker.redis.permissions import missing_permissions
from uvian_worker.sweep.files import FileSweeper
from uvian_worker.sweep.outbox import Outbox
from uvian_worker.sweep.sweeper import Sweeper
from uvian_worker.worker.health import open_health
from uvian_worker.worker.models import Models, open_models

log = logging.getLogger("uvian.worker")

_PERMISSION_SECONDS: Final = 5.0  #: that a start spends on its permissions in Redis
_WAITING: Final = "The worker waits for it, and begins when it is back."


@dataclass(frozen=True, slots=True)
class Services:
    """What a worker process has."""

    config: Config
    worker: str
    registry: Registry
    database: Database
    jobs: JobRepository
    runner: Runner
    source: WorkSource
    sweeper: Sweeper
    control: Control


@dataclass(frozen=True, slots=True)
class _Rows:
    """Where rows and files are."""

    database: Database
    images: ImageStore


@dataclass(frozen=True, slots=True)
class _Tools:
    """What executors work with besides rows and files."""

    fetcher: Fetcher
    decoders: Decoders
    models: Models


@dataclass(frozen=True, slots=True)
class _Messages:
    """What leaves and arrives over Redis."""

    publisher: Publisher
    dispatcher: Dispatcher
    outbox: Outbox
    source: WorkSource
    control: Control


@asynccontextmanager
async def open_services(
    config: Config,
    executors: Iterable[type[AnyExecutor]] | None = None,
    *,
    source_on: Callable[[Redis, str], WorkSource] = Taker,
    redis_state: RedisState | None = None,
) -> AsyncIterator[Services]:
    """Open everything a worker needs; what was opened last closes first, after a half start too.

    ``source_on`` makes the source of work from a client and the namespace. ``redis_state`` is shared
    with other clients of this process. A database that is away is waited for. Raises ``ConfigError``
    and ``RepositoryError``, with the next step in their message.
    """
    async with AsyncExitStack() as stack:
        _use_threads(config.cpu_threads)
        registry = Registry.load() if executors is None else Registry.load(executors)
        _log_notes(config)
        health = await open_health(config, stack)
        await _require_redis(config)
        rows = await _open_rows(config, stack)
        tools = await _open_tools(config, stack)
        messages = _open_messages(config, stack, source_on, redis_state or RedisState())
        jobs = await _register(config, stack, registry, rows, messages)
        runner = await _open_runner(config, stack, registry, rows, tools, messages, jobs)
        sweeper = _start_sweeps(config, stack, rows, messages)
        health.begin(messages.dispatcher, rows.database, sweeper)
        yield Services(
            config=config,
            worker=jobs.worker,
            registry=registry,
            database=rows.database,
            jobs=jobs,
            runner=runner,
            source=messages.source,
            sweeper=sweeper,
            control=messages.control,
        )


def _use_threads(number: int) -> None:
    pool = ThreadPoolExecutor(number, thread_name_prefix="uvian")
    asyncio.get_running_loop().set_default_executor(pool)


def _log_notes(config: Config) -> None:
    for note in config.notes():
        log.warning("%s", note)


async def _require_redis(config: Config) -> None:
    """Raise ``ConfigError`` for what only settings change: a password, TLS, a missing permission.

    A Redis that is away is not waited for: each part that uses Redis waits by itself.
    """
    redis = redis_from_url(
        config.redis_url.get_secret_value(), patience=0, state=RedisState(logs=False)
    )
    try:
        async with asyncio.timeout(_PERMISSION_SECONDS):
            missing = await missing_permissions(redis, config.namespace)
    except RedisAway as away:
        if away.passes:
            return
        raise ConfigError(f"UVIAN_REDIS_URL: Redis at {address_of(redis)} {away}") from away
    except FAULTS:
        return
    finally:
        await redis.aclose()
    if missing is not None:
        raise ConfigError(f"UVIAN_REDIS_URL: {missing}")


async def _open_rows(config: Config, stack: AsyncExitStack) -> _Rows:
    stores = Stores(config, stack)
    database = await stores.untried_database()
    await when_available(partial(stores.try_database, database), _WAITING)
    if config.listen_url() is None:
        log.info(
            "jobs from submit_job or from a manual edit wait for the next sweep (every %g s): LISTEN "
            "needs a session, which this connection does not keep. To start them at once, set "
            "UVIAN_DATABASE_DIRECT_URL to the direct connection string or the session pooler's.",
            config.sweep_every,
        )
    images = await stores.images()
    await warn_of_missing_parts(database, config)
    return _Rows(database, images)


async def _open_tools(config: Config, stack: AsyncExitStack) -> _Tools:
    fetcher = Fetcher(http=config.fetch_http, seconds=config.fetch_timeout)
    stack.push_async_callback(fetcher.close)
    decoders = Decoders(config.cpu_threads)
    stack.callback(decoders.close)
    models = await stack.enter_async_context(open_models(config, fetcher.fetch, decoders))
    return _Tools(fetcher, decoders, models)


def _open_messages(
    config: Config,
    stack: AsyncExitStack,
    source_on: Callable[[Redis, str], WorkSource],
    state: RedisState,
) -> _Messages:
    redis = redis_from_url(config.redis_url.get_secret_value(), patience=3.0, state=state)
    stack.push_async_callback(redis.aclose)
    publisher = Publisher(redis, config.namespace)
    stack.push_async_callback(publisher.close)
    dispatcher = Dispatcher(redis, config.namespace)
    stack.push_async_callback(dispatcher.close)
    outbox = Outbox(dispatcher, publisher)
    stack.push_async_callback(outbox.close)
    source = source_on(redis, config.namespace)
    stack.push_async_callback(source.close)
    control = Control(redis, config.namespace)
    stack.push_async_callback(control.close)
    return _Messages(publisher, dispatcher, outbox, source, control)


async def _register(
    config: Config, stack: AsyncExitStack, registry: Registry, rows: _Rows, messages: _Messages
) -> JobRepository:
    """Enter this worker and its job types in the database, until it retires."""
    worker = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
    jobs = JobRepository(
        rows.database, worker, messages.outbox.deliver_later, lease_seconds=config.lease
    )
    stack.push_async_callback(jobs.close)
    register = partial(jobs.register, __version__, registry.descriptions())
    await when_available(register, _WAITING)
    stack.push_async_callback(_retire, jobs)
    return jobs


async def _retire(jobs: JobRepository) -> None:
    with contextlib.suppress(RepositoryError):
        await jobs.retire()


async def _open_runner(
    config: Config,
    stack: AsyncExitStack,
    registry: Registry,
    rows: _Rows,
    tools: _Tools,
    messages: _Messages,
    jobs: JobRepository,
) -> Runner:
    runner = Runner(
        jobs=jobs,
        registry=registry,
        sink=messages.publisher,
        services_of=_services_of(config, rows, tools, jobs.worker),
        on_claim_answered=messages.source.claim_answered,
        renew_every=config.renew_every,
        stop_grace=config.stop_grace,
    )
    stack.push_async_callback(runner.close)
    await runner.open()
    return runner


def _services_of(
    config: Config, rows: _Rows, tools: _Tools, worker: str
) -> Callable[[str], JobServices]:
    """What a job's executor may use, bound to the user of the job."""
    limits = Limits(
        bytes=config.image_max_bytes,
        pixels=config.image_max_pixels,
        seconds=config.image_max_seconds,
    )
    return lambda user_id: JobServices(
        concepts=UserConcepts(rows.database, user_id, worker),
        images=UserImages(rows.images, user_id),
        image_model=tools.models.image,
        conversations=UserConversations(rows.database, user_id),
        messages=UserMessages(rows.database, user_id),
        chat_model=tools.models.chat,
        fetcher=tools.fetcher,
        image_limits=limits,
        decoders=tools.decoders,
        history_tokens=config.chat_history_tokens,
    )


def _start_sweeps(
    config: Config, stack: AsyncExitStack, rows: _Rows, messages: _Messages
) -> Sweeper:
    sweeper = Sweeper(
        database=rows.database,
        dispatcher=messages.dispatcher,
        outbox=messages.outbox,
        interval=config.sweep_every,
        lease_seconds=config.lease,
    )
    sweeper.start()
    stack.push_async_callback(sweeper.close)
    files = FileSweeper(FileRepository(rows.database), rows.images)
    files.start()
    stack.push_async_callback(files.close)
    return sweeper
