"""A gateway as a process: what its endpoints stand on, its port, and its end."""

from __future__ import annotations

__all__ = ["open_gateway", "serving"]

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from redis.asyncio import Redis
from yarl import URL

from repositories.database import Database
from repositories.errors import WAITED_FOR, Transient
from repositories.images import ImageStore
from uvian_common.tasks import cancel_until_done
from uvian_worker.client import Client
from uvian_worker.config import Config, ConfigError
from uvian_worker.events.publisher import Publisher
from uvian_worker.events.reader import EndedJobs, Reader
from uvian_worker.events.subscriptions import Subscriptions
from uvian_worker.gateway.app import HANG_UP, Gateway, application
from uvian_worker.gateway.http.auth import Jwks, TokenVerifier
from uvian_worker.gateway.http.client_address import Addresses
from uvian_worker.gateway.http.connections import Connections
from uvian_worker.gateway.http.rate_limits import Limits
from uvian_worker.gateway.live.membership import Membership
from uvian_worker.gateway.live.slots import Slots
from uvian_worker.process.health import postgres_state, redis_state, sweep_state
from uvian_worker.process.listening import listeners
from uvian_worker.process.startup import when_available
from uvian_worker.process.stores import Stores, calls_over
from uvian_worker.queue.dispatch import Dispatcher
from uvian_worker.redis.connection import redis_from_url
from uvian_worker.sweep.outbox import Outbox
from uvian_worker.sweep.sweeper import Sweeper

log = logging.getLogger("uvian.gateway")

_MOST_READ: Final = 1024 * 1024  #: bytes of events that a cursor is answered with, else the state
_FIRST_SECONDS: Final = (
    3.0  #: that a database may take to answer before the gateway listens without it
)
_MEANWHILE: Final = "What needs it is answered 503 until it is back."
_KEYS_SECONDS: Final = 3.0  #: that a request with a new key's token waits for the project's Auth
_FINISH_SECONDS: Final = 10.0  #: that requests may take to end after SIGTERM


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[str]:
    """A gateway that listens; where. At the end it takes nothing new, ends live connections (clients
    connect again), waits for the requests that are under way, and closes what it stands on.

    Raises ``ConfigError`` and ``RepositoryError`` with the next step in their message.
    """
    async with open_gateway(config) as gateway:
        app = application(gateway)
        runner = web.AppRunner(
            app,
            handle_signals=False,
            shutdown_timeout=1.0,  # of what is under way then nobody knows when it ends
        )
        await runner.setup()
        try:
            sockets = _listen(config)
            connections = _connections(runner, gateway, config)
            connections.open(sockets)
            url = _url(config.gateway_host, sockets[0])
            log.info("gateway on %s", url)
            try:
                yield url
            finally:
                log.info("shutting down: nothing new is taken")
                await connections.stop()
                await app[HANG_UP](_FINISH_SECONDS)
        finally:
            await runner.cleanup()


@asynccontextmanager
async def open_gateway(config: Config) -> AsyncIterator[Gateway]:
    """Open everything the endpoints need; what was opened last closes first, after a half start too."""
    config.require_tokens()
    for note in config.notes():
        log.warning("%s", note)
    async with AsyncExitStack() as stack:
        database, images = await _open_rows(config, stack)
        redis = redis_from_url(config.redis_url.get_secret_value(), patience=2.0)
        stack.push_async_callback(redis.aclose)
        client = Client(calls_over(database), redis, namespace=config.namespace)
        await stack.enter_async_context(client)
        reader, membership = _open_live(config, stack, database, redis)
        dispatcher, sweeper = _start_sweep(config, stack, database, redis)
        yield Gateway(
            database=database,
            client=client,
            reader=reader,
            images=images,
            verifier=await _verifier(config, stack),
            limits=Limits(redis, config.namespace, _per_minute(config)),
            slots=Slots(per_user=config.limit_sockets, per_address=config.limit_address),
            addresses=Addresses(config.proxies()),
            membership=membership,
            sweeper=sweeper,
            checks=partial(_states, database, dispatcher, sweeper),
            origins=config.origins(),
            pictures_from=_pictures_from(config),
            max_body=config.gateway_max_body,
            wake_secret=config.wake_secret.get_secret_value(),
        )


async def _open_rows(config: Config, stack: AsyncExitStack) -> tuple[Database, ImageStore]:
    stores = Stores(config, stack)
    database = await stores.untried_database()
    await _tried(stores, database, stack)
    return database, await stores.images()


def _open_live(
    config: Config, stack: AsyncExitStack, database: Database, redis: Redis
) -> tuple[Reader, Membership]:
    """What live connections receive: the events of topics, and who takes part no more."""
    subscriptions = Subscriptions(redis)
    stack.push_async_callback(subscriptions.close)
    reader = Reader(
        redis,
        config.namespace,
        subscriptions=subscriptions,
        ended_jobs=_ended_jobs(database),
        most=_MOST_READ,
    )
    membership = Membership(database, subscriptions, config.namespace)
    membership.start()
    stack.push_async_callback(membership.close)
    return reader, membership


def _start_sweep(
    config: Config, stack: AsyncExitStack, database: Database, redis: Redis
) -> tuple[Dispatcher, Sweeper]:
    """A gateway sweeps as well, so that jobs are dispatched also while no worker is up."""
    publisher = Publisher(redis, config.namespace)
    stack.push_async_callback(publisher.close)
    dispatcher = Dispatcher(redis, config.namespace)
    stack.push_async_callback(dispatcher.close)
    outbox = Outbox(dispatcher, publisher)
    stack.push_async_callback(outbox.close)
    sweeper = Sweeper(
        database=database,
        dispatcher=dispatcher,
        outbox=outbox,
        interval=config.sweep_every,
        lease_seconds=config.lease,
    )
    sweeper.start()
    stack.push_async_callback(sweeper.close)
    return dispatcher, sweeper


async def _states(database: Database, dispatcher: Dispatcher, sweeper: Sweeper) -> dict[str, str]:
    """What ``/health/ready`` shows."""
    redis_is, postgres_is = await asyncio.gather(redis_state(dispatcher), postgres_state(database))
    return {"redis": redis_is, "postgres": postgres_is, "sweep": sweep_state(sweeper.age)}


def _ended_jobs(database: Database) -> EndedJobs:
    async def ended_jobs(job_ids: list[str]) -> Sequence[Mapping[str, Any]]:
        answer = await database.call("terminal_events_of", request={"jobs": job_ids})
        return list(answer["terminal_events"])

    return ended_jobs


async def _tried(stores: Stores, database: Database, stack: AsyncExitStack) -> None:
    """Raise for what the operator must set right. A database that is away is logged, and tried again
    beside the requests, which are answered 503 until it is back."""
    try:
        async with asyncio.timeout(_FIRST_SECONDS):
            await stores.try_database(database)
    except (Transient, TimeoutError):
        # An operator who finds something to set right by now finds a gateway that says so.
        attempt = partial(stores.try_database, database)
        later = when_available(attempt, _MEANWHILE, passing=WAITED_FOR)
        stack.push_async_callback(
            cancel_until_done, asyncio.create_task(later, name="first answer")
        )


def _http_log() -> logging.Logger:
    """Of aiohttp, which quotes a line that is no HTTP, whatever secret it has."""
    http_log = logging.getLogger("uvian.gateway.http")
    http_log.addFilter(_is_no_bad_request)  # adding it twice is fine
    # It quotes the subprotocols of who does not speak ours, and one of them is the token.
    logging.getLogger("aiohttp.websocket").addFilter(_is_nothing)
    return http_log


def _is_nothing(_: logging.LogRecord) -> bool:
    return False


def _is_no_bad_request(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


async def _verifier(config: Config, stack: AsyncExitStack) -> TokenVerifier:
    url, jwks = config.token_keys_url(), None
    if url is not None:
        timeout = aiohttp.ClientTimeout(total=_KEYS_SECONDS)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        jwks = Jwks(_fetch(session, url))
    return TokenVerifier(secrets=config.token_secrets(), jwks=jwks, issuer=config.token_issuer())


def _fetch(session: aiohttp.ClientSession, url: str) -> Callable[[], Awaitable[Any]]:
    async def fetch() -> Any:
        async with session.get(url, raise_for_status=True, allow_redirects=False) as response:
            return await response.json(content_type=None)

    return fetch


def _pictures_from(config: Config) -> tuple[str, ...]:
    url = config.supabase_url if config.images == "supabase" else config.images_url
    if url is None:
        log.warning(
            "pictures of %s have no address: set UVIAN_IMAGES_URL to where this gateway is reached, "
            "with /v1/files, and UVIAN_IMAGES_SECRET",
            config.images_dir,
        )
        return ()
    return (str(URL(url).origin()),)


def _per_minute(config: Config) -> dict[str, int]:
    return {
        "write": config.limit_write,
        "read": config.limit_read,
        "connect": config.limit_connect,
        "subscribe": config.limit_subscribe,
    }


def _listen(config: Config) -> list[socket.socket]:
    try:
        return listeners(config.gateway_host, config.gateway_port)
    except OSError as error:
        raise ConfigError(
            f"UVIAN_GATEWAY_HOST and UVIAN_GATEWAY_PORT: {error.strerror or error}"
        ) from error


def _connections(runner: web.AppRunner, gateway: Gateway, config: Config) -> Connections:
    server = runner.server
    assert server is not None  # noqa: S101 - it was set up
    return Connections(
        server,
        gateway.addresses,
        most=config.gateway_connections,
        per_address=config.limit_address,
        access_log=None,  # it would hold the tokens of those who send them in the query
        logger=_http_log(),
        keepalive_timeout=config.gateway_keep_alive,
        lingering_time=2.0,  # of a body that nobody wants
        auto_decompress=False,  # a kilobyte may become a megabyte
    )


def _url(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
