"""Every door × everything that the operator sets: what is closed at one is closed at all of them.

A setting that is missing at a door is a line of the product that fails; a new door needs its line in
``DOORS``, a new setting its line in ``SETTINGS``.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import asyncpg
import orjson
import pytest

from tests.gateway.site import Site
from uvian_worker.client import Client, JobRefused
from uvian_worker.gateway.job_types import JobTypes

pytestmark = pytest.mark.database

#: What a user asks for, with a word on everything that can be limited.
ASKED = {"model": "large", "max_tokens": 900, "system_prompt": "Be rude."}


@dataclass
class Scene:
    """A user before a door, with a conversation and, for a retry, a job that had been cancelled."""

    site: Site
    client: Client
    door: asyncpg.Connection[Any]
    user_id: str
    anonymous: bool
    conversation: str
    job: dict[str, Any]

    @property
    def input(self) -> dict[str, Any]:
        return {**ASKED, "conversation_id": self.conversation}

    async def rest(self, path: str, body: dict[str, Any]) -> str | None:
        caller = self.site.caller(self.user_id, is_anonymous=self.anonymous)
        return (await caller.post(path, body)).code

    async def browser(self, call: str, *values: Any) -> str | None:
        """As PostgREST lets a signed-in user in."""
        claims = {
            "role": "authenticated",
            "sub": self.user_id,
            "is_anonymous": self.anonymous,
        }
        try:
            async with self.door.transaction():
                await self.door.execute("set local role authenticated")
                await self.door.execute(
                    "select set_config('request.jwt.claims', $1, true)",
                    orjson.dumps(claims).decode(),
                )
                await self.door.execute("select set_config('uvian.writer', '', true)")
                await self.door.fetch(call, *values)
        except asyncpg.InsufficientPrivilegeError:
            return "no such door"
        except asyncpg.PostgresError as error:
            return str(error.args[0])
        return None

    async def hand(self, statement: str, *values: Any) -> str | None:
        """In the SQL editor."""
        try:
            await self.site.world.hand.execute(statement, *values)
        except asyncpg.PostgresError as error:
            return str(error.args[0])
        return None


async def rest_create(scene: Scene) -> str | None:
    """POST /v1/jobs."""
    return await scene.rest("/v1/jobs", {"type": "chat", "input": scene.input})


async def rest_post(scene: Scene) -> str | None:
    """POST /v1/conversations/{id}/messages."""
    path = f"/v1/conversations/{scene.conversation}/messages"
    return await scene.rest(path, {"content": "Why?", "options": ASKED})


async def rest_retry(scene: Scene) -> str | None:
    """POST /v1/jobs/{id}/retry."""
    return await scene.rest(f"/v1/jobs/{scene.job['id']}/retry", {"expected_run": 1})


async def browser_submit(scene: Scene) -> str | None:
    """submit_job."""
    return await scene.browser(
        "select uvian.submit_job('chat', $1)", orjson.dumps(scene.input).decode()
    )


async def browser_post(scene: Scene) -> str | None:
    """post_message; who says to come by no door is not believed."""
    return await scene.browser(
        "select uvian.post_message($1, 'Why?', options => $2, user_id => $3, door => null)",
        scene.conversation,
        orjson.dumps(ASKED).decode(),
        scene.user_id,
    )


async def browser_retry(scene: Scene) -> str | None:
    """retry_job; who says to come by another door is not believed."""
    return await scene.browser("select uvian.retry_job($1, 1, null, 'browser')", scene.job["id"])


async def browser_row(scene: Scene) -> str | None:
    """An insert by hand, as ``authenticated``."""
    return await scene.browser(
        "insert into uvian.jobs (user_id, type, input) values ($1, 'chat', $2)",
        scene.user_id,
        orjson.dumps(scene.input).decode(),
    )


async def browser_requeue(scene: Scene) -> str | None:
    """An update by hand, as ``authenticated``."""
    return await scene.browser(
        "update uvian.jobs set status = 'queued' where id = $1", scene.job["id"]
    )


async def hand_row(scene: Scene) -> str | None:
    """An insert in the SQL editor."""
    return await scene.hand(
        "insert into uvian.jobs (user_id, type, input) values ($1, 'chat', $2)",
        scene.user_id,
        scene.input,
    )


async def hand_requeue(scene: Scene) -> str | None:
    """An update in the SQL editor."""
    return await scene.hand(
        "update uvian.jobs set status = 'queued' where id = $1", scene.job["id"]
    )


def by_client(call: Callable[[Scene], Awaitable[Any]]) -> Callable[[Scene], Awaitable[str | None]]:
    """The code of what a team's API hears."""

    async def ask(scene: Scene) -> str | None:
        try:
            await call(scene)
        except JobRefused as refused:
            return refused.code
        return None

    ask.__name__ = call.__name__
    return ask


@by_client
async def client_submit(scene: Scene) -> None:
    """Client.submit for a user."""
    await scene.client.submit(scene.user_id, "chat", scene.input)


@by_client
async def client_post(scene: Scene) -> None:
    """Client.post_message for a user."""
    await scene.client.conversations.post(scene.user_id, scene.conversation, "Why?", options=ASKED)


@by_client
async def client_retry(scene: Scene) -> None:
    """Client.retry for a user."""
    await scene.client.retry(scene.job["id"], expected_run=1, user_id=scene.user_id)


def way(scene: Scene) -> Literal["browser", "anonymous"]:
    """By which door their user came."""
    return "anonymous" if scene.anonymous else "browser"


@by_client
async def client_passes_submit_on(scene: Scene) -> None:
    """Client.submit of an API that passes a user's wish on."""
    await scene.client.submit(scene.user_id, "chat", scene.input, door=way(scene))


@by_client
async def client_passes_post_on(scene: Scene) -> None:
    """Client.post_message of an API that passes a user's wish on."""
    await scene.client.conversations.post(
        scene.user_id, scene.conversation, "Why?", options=ASKED, door=way(scene)
    )


@by_client
async def client_passes_retry_on(scene: Scene) -> None:
    """Client.retry of an API that passes a user's wish on."""
    await scene.client.retry(
        scene.job["id"], expected_run=1, user_id=scene.user_id, door=way(scene)
    )


class Door(NamedTuple):
    """``users``: it is theirs, so that browser and anonymous hold. ``counts``: its waiting jobs are counted.
    ``nobody``: there is no such door, whatever is set."""

    ask: Callable[[Scene], Awaitable[str | None]]
    users: bool = True
    counts: bool = True
    nobody: bool = False


DOORS = (
    Door(rest_create),
    Door(rest_post),
    Door(rest_retry),
    Door(browser_submit),
    Door(browser_post),
    Door(browser_retry),
    Door(browser_row, nobody=True),
    Door(browser_requeue, nobody=True),
    Door(hand_row, users=False, counts=False),
    Door(hand_requeue, users=False, counts=False),
    Door(client_submit, users=False),
    Door(client_post, users=False),
    Door(client_retry, users=False),
    Door(client_passes_submit_on),
    Door(client_passes_post_on),
    Door(client_passes_retry_on),
)


class Setting(NamedTuple):
    """Columns of ``job_types`` as the operator sets them, and what is answered to whom they are against."""

    columns: dict[str, Any]
    code: str | None
    anonymous: bool = False  #: the user is an anonymous sign-in
    for_users: bool = False  #: holds where the door is a user's own
    counts: bool = False  #: is about waiting jobs
    price: int | None = None


SETTINGS = {
    "open": Setting({}, None),
    "closed": Setting({"browser": False}, "type_not_open", for_users=True),
    "closed, for anonymous too": Setting(
        {"browser": False, "anonymous": True}, "type_not_open", True, for_users=True
    ),
    "not for anonymous": Setting({}, "type_not_open", True, for_users=True),
    "for anonymous too": Setting({"anonymous": True}, None, True),
    "switched off": Setting({"enabled": False}, "type_disabled"),
    "other models": Setting({"models": ["small", "medium"]}, "not_allowed"),
    "this model": Setting({"models": ["small", "large"]}, None),
    "fewer tokens": Setting({"max_tokens": 899}, "not_allowed"),
    "enough tokens": Setting({"max_tokens": 900}, None),
    "another system prompt": Setting({"system_prompt": "Be kind."}, "not_allowed"),
    "this system prompt": Setting({"system_prompt": "Be rude."}, None),
    "small inputs": Setting({"max_input_bytes": 50}, "input_too_large"),
    "no place to wait": Setting({"max_queued_per_user": 0}, "too_many_queued", counts=True),
    "too expensive": Setting({}, "insufficient_credits", price=1),
}

_PERMISSIVE: dict[str, Any] = {
    "enabled": True,
    "browser": True,
    "anonymous": False,
    "models": None,
    "max_tokens": None,
    "system_prompt": None,
    "max_input_bytes": 65536,
    "max_queued_per_user": None,
}


def expected(door: Door, setting: Setting) -> str | None:
    """What is answered at this door under this setting."""
    if door.nobody:
        return "no such door"
    if (setting.for_users and not door.users) or (setting.counts and not door.counts):
        return None
    return setting.code


@pytest.fixture
async def client(site: Site, redis_url: str) -> AsyncIterator[Client]:
    """What a team's API has."""
    async with site.world.adapter.client(redis_url) as client:
        yield client


@pytest.fixture
async def door_of_postgrest(site: Site) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The connection of PostgREST's login role."""
    connection = await asyncpg.connect(site.world.clean.authenticator_dsn)
    yield connection
    await connection.close()


@pytest.fixture(params=["seen", "not yet seen"])
def is_fresh(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the gateway, which reads types now and then, has seen what the operator set."""
    if request.param == "seen":
        read = JobTypes.all

        async def read_again(types: JobTypes) -> Any:
            types._read_at = None
            return await read(types)

        monkeypatch.setattr(JobTypes, "all", read_again)
    return bool(request.param == "seen")


async def before(
    setting: Setting, site: Site, client: Client, connection: asyncpg.Connection[Any]
) -> Scene:
    """A new user, and the operator's word after everything was made that a door may need."""
    world = site.world
    await world.type("chat", **_PERMISSIVE)
    await world.hand.execute("delete from uvian.job_prices")
    user = await world.user()
    conversation = await world.conversation(user)
    item = {"input": {**ASKED, "conversation_id": conversation}}
    job = await world.create(user, "chat", **item)
    await world.cancel(job)
    await world.type("chat", price=setting.price, **setting.columns)
    return Scene(site, client, connection, user, setting.anonymous, conversation, job)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.ask.__name__)
@pytest.mark.parametrize("is_fresh", ["seen"], indirect=True)
@pytest.mark.parametrize("adapter", ["postgres"], indirect=True)
async def test_what_the_operator_set_holds_at_every_door(
    site: Site,
    client: Client,
    door_of_postgrest: asyncpg.Connection[Any],
    is_fresh: bool,
    door: Door,
) -> None:
    """The product: each setting before each door, and nothing is made where it says no."""
    told = {}
    for name, setting in SETTINGS.items():
        scene = await before(setting, site, client, door_of_postgrest)
        told[name] = await door.ask(scene)
        open_ = await site.world.hand.fetchval(
            "select count(*) from uvian.jobs where user_id = $1 and status = 'queued'",
            scene.user_id,
        )
        assert open_ == (told[name] is None), name
    assert told == {name: expected(door, setting) for name, setting in SETTINGS.items()}


@pytest.mark.parametrize("is_fresh", ["not yet seen"], indirect=True)
@pytest.mark.parametrize("adapter", ["postgres"], indirect=True)
@pytest.mark.parametrize("door", DOORS[:3], ids=lambda door: door.ask.__name__)
async def test_the_database_decides_before_the_gateway_has_heard_of_it(
    site: Site,
    client: Client,
    door_of_postgrest: asyncpg.Connection[Any],
    is_fresh: bool,
    door: Door,
) -> None:
    """A type that was closed a moment ago is closed."""
    open_ = await before(SETTINGS["open"], site, client, door_of_postgrest)
    assert await door.ask(open_) is None  # the gateway knows it as open, for two seconds
    scene = await before(SETTINGS["closed"], site, client, door_of_postgrest)
    assert await door.ask(scene) == "type_not_open"
    scene = await before(SETTINGS["not for anonymous"], site, client, door_of_postgrest)
    assert await door.ask(scene) == "type_not_open"


@pytest.mark.parametrize("adapter", ["postgres"], indirect=True)
async def test_numbers_in_disguise_are_numbers(site: Site) -> None:
    """What the worker would read as a number beyond the limit is refused, however it is written."""
    world = site.world
    await world.type("chat", max_tokens=100)
    user = await world.user()
    conversation = await world.conversation(user)
    for tokens, made in (
        (100, True),
        (None, True),
        (101, False),
        ("101", False),
        (1e9, False),
        ([1], False),
    ):
        asked = {"conversation_id": conversation, "max_tokens": tokens}
        (answer,) = await world.ask({"user_id": user, "type": "chat", "input": asked})
        assert ("job" in answer) is made, tokens
        assert made or (answer["code"], answer["field"]) == ("not_allowed", "max_tokens")


@pytest.mark.parametrize("adapter", ["postgres"], indirect=True)
async def test_a_server_only_job_is_not_run_again_by_its_user(site: Site, client: Client) -> None:
    """A team's API made it, of a type that nobody opened; the API may run it again."""
    await site.world.type("inner")
    user = await site.user()
    job = await client.submit(user.user_id, "inner", {})
    await client.cancel(job.id)
    refused = await user.post(f"/v1/jobs/{job.id}/retry", {"expected_run": 1})
    assert (refused.status, refused.code) == (403, "type_not_open")
    assert (await client.retry(job.id, expected_run=1, user_id=user.user_id)).run == 2


@pytest.mark.parametrize("adapter", ["postgres"], indirect=True)
async def test_what_was_made_before_stays_the_answer(site: Site, client: Client) -> None:
    """The same key again, after a lost reply and a door that was closed in between."""
    user = await site.world.user()
    await site.open("noop")
    key = str(uuid.uuid4())
    first = await client.submit(user, "noop", {}, idempotency_key=key, door="browser")
    await site.world.type("noop", browser=False, enabled=False)
    again = await client.submit(user, "noop", {}, idempotency_key=key, door="browser")
    assert (again.id, again.created) == (first.id, False)
