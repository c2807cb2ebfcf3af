"""A gateway that listens, and those who call it; every answer is held against the OpenAPI document."""

from __future__ import annotations

__all__ = ["Caller", "Reply", "Site", "config_of", "eventually", "opened", "someone"]

import contextlib
import socket
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from yarl import URL

from tests.adapters import Adapter, OverSupabase
from tests.gateway.contract import Contract
from tests.gateway.tokens import ISSUER, SECRET, claims_of, signed
from tests.lifecycle.world import World
from uvian_worker.config import Config
from uvian_worker.gateway.serving import serving

#: For tests about something else: nobody is limited.
_MANY = 1_000_000


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """As JSON."""
        return orjson.loads(self.raw)

    @property
    def code(self) -> str | None:
        """Of the problem, if it is one."""
        return str(self.body["code"]) if self.status >= 400 else None


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who calls a gateway with a token, or without one."""

    session: aiohttp.ClientSession
    url: str
    contract: Contract
    user_id: str = ""
    token: str = ""

    async def __call__(
        self,
        method: str,
        path: str | URL,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request; an answer that the contract does not know fails the test."""
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        content = raw
        if body is not None:
            content = orjson.dumps(body)
            sent["Content-Type"] = "application/json"
        url = path if "://" in str(path) else f"{self.url}{path}"
        async with self.session.request(
            method, url, data=content, headers={**sent, **(headers or {})}, allow_redirects=False
        ) as response:
            reply = Reply(response.status, response.headers.copy(), await response.read())
        self.contract.check(method, str(response.url.path), reply)
        return reply

    async def get(self, path: str | URL, **more: Any) -> Reply:
        """GET."""
        return await self("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Reply:
        """POST."""
        return await self("POST", path, body, **more)


@dataclass
class Site:
    """A gateway on a database and a Redis, and the world behind it."""

    url: str
    config: Config
    world: World
    session: aiohttp.ClientSession
    contract: Contract
    nobody: Caller = field(init=False)

    def __post_init__(self) -> None:
        self.nobody = Caller(self.session, self.url, self.contract)

    def caller(self, user_id: str, *, url: str = "", **claims: Any) -> Caller:
        """This user, signed in; ``url`` is that of another gateway."""
        token = signed(claims_of(user_id, **claims))
        return Caller(self.session, url or self.url, self.contract, user_id, token)

    async def user(self, balance: int = 0, **claims: Any) -> Caller:
        """A new user, signed in."""
        return self.caller(await self.world.user(balance), **claims)

    async def open(self, name: str = "noop", **columns: Any) -> str:
        """A type of job that browsers may submit."""
        return await self.world.type(name, **{"browser": True, **columns})

    async def joined(self, owner: Caller, at: str, *guests: Caller) -> None:
        """The owner of the conversation at this path invites them, and they accept."""
        body = {"user_ids": [guest.user_id for guest in guests]}
        assert (await owner.post(f"{at}/invitations", body)).status == 200
        for guest in guests:
            path = at.replace("/v1/conversations/", "/v1/invitations/")
            assert (await guest.post(f"{path}/accept")).status == 200

    async def account(self, caller: Caller) -> tuple[int, int]:
        """Balance and what is reserved, in whole credits."""
        balance, reserved = await self.world.account(caller.user_id)
        return int(balance), int(reserved)

    async def made(self, caller: Caller, type_: str = "noop", **more: Any) -> dict[str, Any]:
        """A job of this caller, submitted over HTTP."""
        reply = await caller.post("/v1/jobs", {"type": type_, **more})
        assert reply.status == 201, reply
        return dict(reply.body)


def config_of(adapter: Adapter, redis_url: str, folder: Path, **settings: Any) -> Config:
    """The settings of a gateway on this database."""
    port = _free_port()
    images: dict[str, Any] = (
        {}
        if isinstance(adapter, OverSupabase)
        else {
            "images_dir": folder / "images",
            "images_url": f"http://127.0.0.1:{port}/v1/files",
            "images_secret": "a secret of the folder",
        }
    )
    given: dict[str, Any] = {
        **{name.removeprefix("UVIAN_").lower(): text for name, text in adapter.settings.items()},
        **{f"limit_{kind}": _MANY for kind in ("read", "write", "connect", "subscribe")},
        **images,
        "redis_url": redis_url,
        "gateway_port": port,
        "jwt_secrets": SECRET,
        "jwt_issuer": ISSUER,
        **settings,
    }
    return Config.load(**given)


@contextlib.asynccontextmanager
async def opened(world: World, config: Config) -> AsyncIterator[Site]:
    """A gateway as ``uvian gateway`` runs it, until the end of the ``async with``; our types are open."""
    for type_ in ("generation", "refinement", "chat"):
        await world.type(type_, browser=True)
    async with serving(config) as url, aiohttp.ClientSession() as session:
        async with session.get(f"{url}/openapi.json") as response:
            contract = Contract(await response.json())
        yield Site(url, config, world, session, contract)


async def eventually(condition: Any, seconds: float = 20.0) -> Any:
    """What the coroutine function answers once it is truthy."""
    deadline = time.monotonic() + seconds
    while not (answer := await condition()):
        assert time.monotonic() < deadline, f"{condition} did not come true"
    return answer


def someone() -> str:
    """An id that nobody has."""
    return str(uuid.uuid4())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
