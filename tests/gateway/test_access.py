"""Who may do what: every endpoint, asked by nobody, by strangers, and in every wrong way."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from tests.adapters import over_postgres_only
from tests.gateway.contract import Contract, Operation
from tests.gateway.site import Caller, Reply, Site, config_of, opened, someone
from tests.gateway.tokens import SigningKey, claims_of, signed, unsigned
from tests.lifecycle.world import World
from uvian_worker.gateway.app import document

pytestmark = pytest.mark.database

CONTRACT = Contract(document())
ALL = {operation.id: operation for operation in CONTRACT.operations}
SIGNED_IN = [operation for operation in ALL.values() if operation.is_signed_in]
WITH_PATH = [operation for operation in SIGNED_IN if "{" in operation.route]
WITH_BODY = [operation for operation in SIGNED_IN if operation.body is not None]

#: Bodies that are right in themselves.
BODIES: dict[str, Any] = {
    "createJob": {"type": "noop"},
    "retryJob": {"expected_run": 1},
    "createConversation": {},
    "updateConversation": {"title": "x"},
    "inviteMembers": {"user_ids": [someone()]},
    "postMessage": {"content": "x"},
    "stopAnswer": {"job_id": someone()},
    "signFiles": {"paths": ["x"]},
    "calculateCost": {"type": "noop"},
}


def each(operations: list[Operation]) -> Any:
    """The test once per operation."""
    return pytest.mark.parametrize("operation", operations, ids=lambda each: str(each.id))


def address(operation: Operation, **ids: str) -> str:
    """Its address; what is not given is an id that nobody has."""
    names = operation.parameters("path")
    return operation.route.format(**{name: ids.get(name, someone()) for name in names})


async def ask(caller: Caller, operation: Operation, at: str = "", **more: Any) -> Reply:
    """A request that is right but for what the test is about."""
    body = BODIES.get(operation.id)
    return await caller(operation.method, at or address(operation), body, **more)


def test_every_endpoint_that_takes_a_body_is_tried_with_one() -> None:
    """A new one needs a line above."""
    assert set(BODIES) == {operation.id for operation in WITH_BODY}


def test_only_these_need_no_token() -> None:
    """Health, the document, signed addresses, and the webhook with a secret of its own."""
    open_ = {operation.id for operation in ALL.values() if not operation.is_signed_in}
    assert open_ == {"isLive", "isReady", "getDocument", "getFile", "wake"}


# ─── nobody ──────────────────────────────────────────────────────────────────────────────────────


@over_postgres_only
async def test_who_is_nobody_is_told_so_everywhere(site: Site) -> None:
    """No token, a broken one, an expired one, the anon key, another project's: 401, and why."""
    user = await site.user()
    other = signed(claims_of(user.user_id), "another-secret-of-at-least-thirty-two-characters")
    none = unsigned(json.dumps({"alg": "none"}).encode(), json.dumps(claims_of()).encode())
    tokens = {
        "": "unauthorized",
        "x": "invalid_token",
        none: "invalid_token",
        other: "invalid_token",
        SigningKey.new().sign(claims_of(user.user_id)): "invalid_token",
        signed(claims_of(role="anon", sub=None, aud=None)): "invalid_token",
        signed(claims_of(user.user_id, iss="https://other.example/auth/v1")): "invalid_token",
        signed(claims_of(user.user_id, exp=time.time() - 60)): "token_expired",
    }
    for operation in SIGNED_IN:
        for token, code in tokens.items():
            caller = Caller(site.session, site.url, site.contract, token=token)
            reply = await ask(caller, operation)
            assert (reply.status, reply.code) == (401, code), (operation.id, token)
    assert await site.world.hand.fetchval("select count(*) from uvian.jobs") == 0


@over_postgres_only
async def test_a_token_counts_in_the_header_alone(site: Site) -> None:
    """Addresses end up in logs and histories; only sockets and streams, which cannot else, take it there."""
    user = await site.user()
    query = f"?access_token={user.token}"
    assert (await site.nobody.get(f"/v1/jobs{query}")).code == "unauthorized"
    basic = await site.nobody.get("/v1/jobs", headers={"Authorization": f"Basic {user.token}"})
    assert basic.code == "unauthorized"
    job = await site.made(user)
    assert (await site.nobody.get(f"/v1/jobs/{job['id']}/events")).code == "unauthorized"
    events = f"{site.url}/v1/jobs/{job['id']}/events{query}"
    async with user.session.get(events) as response:
        assert response.status == 200
    async with user.session.ws_connect(f"{site.url}/v1/live{query}") as socket:
        await socket.send_json({"op": "ping"})
        assert (await socket.receive_json())["op"] == "pong"


class Auth:
    """The project's published keys, at an address."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.hangs = False

    async def answer(self, _: web.Request) -> web.Response:
        """Its JWKS, or nothing for a long time."""
        if self.hangs:
            await asyncio.sleep(60)
        return web.json_response({"keys": [key.jwk for key in self.keys]})

    async def point(self, _: web.Request) -> web.Response:
        """The way to it."""
        raise web.HTTPFound("/jwks.json")


@pytest.fixture
async def auth() -> AsyncIterator[tuple[Auth, str]]:
    """A project's Auth with one key, and where that is."""
    project = Auth(SigningKey.new("ES256"))
    app = web.Application()
    app.router.add_get("/jwks.json", project.answer)
    app.router.add_get("/elsewhere", project.point)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield project, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@over_postgres_only
async def test_signing_keys_are_fetched_where_the_project_publishes_them(
    world: World, redis_url: str, tmp_path: Path, auth: tuple[Auth, str]
) -> None:
    """Beside the legacy secret, and not from where it redirects to."""
    project, url = auth
    claims = claims_of(await world.user())
    token = project.keys[0].sign(claims)
    for path, status in (("/jwks.json", 200), ("/elsewhere", 503)):
        config = config_of(world.adapter, redis_url, tmp_path, jwks_url=f"{url}{path}")
        async with opened(world, config) as site:
            for used, expected in ((token, status), (signed(claims), 200)):
                caller = Caller(site.session, site.url, site.contract, token=used)
                assert (await caller.get("/v1/jobs")).status == expected


@over_postgres_only
async def test_an_auth_that_does_not_answer_keeps_only_its_own_tokens_waiting(
    world: World, redis_url: str, tmp_path: Path, auth: tuple[Auth, str]
) -> None:
    """They are told to come again after a few seconds; those of the secret are let in meanwhile."""
    project, url = auth
    project.hangs = True
    claims = claims_of(await world.user())
    config = config_of(world.adapter, redis_url, tmp_path, jwks_url=f"{url}/jwks.json")
    async with opened(world, config) as site:
        waiting = Caller(site.session, site.url, site.contract, token=project.keys[0].sign(claims))
        other = Caller(site.session, site.url, site.contract, token=signed(claims))
        refused = asyncio.create_task(waiting.get("/v1/jobs"))
        assert (await other.get("/v1/jobs")).status == 200
        assert not refused.done()
        async with asyncio.timeout(10):
            assert (await refused).status == 503


# ─── strangers ───────────────────────────────────────────────────────────────────────────────────


async def owned(site: Site) -> tuple[Caller, dict[str, str]]:
    """A user with one of everything, by the name of its id in a path."""
    owner = await site.user()
    job = await site.made(owner)
    conversation = await site.world.conversation(owner.user_id)
    concept = await site.world.hand.fetchval(
        "insert into uvian.concepts (id, user_id, logo_description, theme_description, image_path, "
        "width, height) values (gen_random_uuid(), $1, 'a', 'b', 'c', 1, 1) returning id",
        owner.user_id,
    )
    ids = {"job_id": job["id"], "conversation_id": conversation, "concept_id": concept}
    return owner, {**ids, "user_id": owner.user_id}


async def test_a_strangers_things_are_like_things_that_are_not_there(site: Site) -> None:
    """The same answer to the byte, but for its request's id; and nothing has changed."""
    _, ids = await owned(site)
    stranger = await site.user()
    before = await site.world.hand.fetch("select * from uvian.jobs")
    for operation in WITH_PATH:
        theirs = await ask(stranger, operation, address(operation, **ids))
        missing = await ask(stranger, operation)
        assert theirs.status == missing.status == 404, operation.id
        told, nothing = theirs.body, missing.body
        told.pop("instance")
        nothing.pop("instance")
        assert told == nothing, operation.id
        assert told["code"] == "not_found"
    assert await site.world.hand.fetch("select * from uvian.jobs") == before


async def test_lists_hold_nothing_of_strangers(site: Site) -> None:
    """Jobs, conversations, concepts, and the books."""
    owner, ids = await owned(site)
    await site.world.service.call(
        "grant_credits", user_id=owner.user_id, amount="5", reference="first grant"
    )
    stranger = await site.user()
    lists = ("/v1/jobs", "/v1/conversations", "/v1/concepts", "/v1/credits/entries")
    for path in lists:
        assert len((await owner.get(path)).body["items"]) == 1
        assert (await stranger.get(path)).body["items"] == []
    chat = {"type": "chat", "input": {"conversation_id": ids["conversation_id"]}}
    assert (await stranger.post("/v1/jobs", chat)).code == "not_found"


async def test_a_cursor_of_a_stranger_shows_nothing_of_them(site: Site) -> None:
    """It is a place, not a key."""
    owner, _ = await owned(site)
    stranger = await site.user()
    for _ in range(2):
        await site.made(owner)
    mine = await site.made(stranger)
    cursor = (await owner.get("/v1/jobs?limit=1")).body["next_cursor"]
    items = (await stranger.get(f"/v1/jobs?cursor={cursor}")).body["items"]
    assert {item["id"] for item in items} <= {mine["id"]}


# ─── requests that make no sense ─────────────────────────────────────────────────────────────────

_NO_IDS = ("1", "x", "null", "%00", "..%2f..%2fx", "'; drop table uvian.jobs; --", "ü" * 200)


@over_postgres_only
async def test_an_id_that_is_none_names_nothing(site: Site) -> None:
    """404, without a question to the database."""
    user = await site.user()
    for operation in WITH_PATH:
        for wrong in _NO_IDS:
            names = operation.parameters("path")
            reply = await ask(user, operation, address(operation, **dict.fromkeys(names, wrong)))
            assert reply.status == 404, (operation.id, wrong)


#: Well-formed, and nothing that reads it again would follow it to its end.
DEEP = b'{"a":' * 260 + b"1" + b"}" * 260


@over_postgres_only
async def test_a_body_that_is_none_is_refused(site: Site) -> None:
    """What is no JSON, no object, of another type, or has fields that nobody declared: never a 500."""
    user = await site.user()
    for operation in WITH_BODY:
        at = address(operation)

        async def told(raw: bytes, kind: str = "application/json", at: str = at) -> str | None:
            headers = {"Content-Type": kind}
            return (await user(operation.method, at, raw=raw, headers=headers)).code  # noqa: B023

        assert await told(b"{}", "text/plain") == "unsupported_media_type", operation.id
        assert await told(b"a=1", "application/x-www-form-urlencoded") == "unsupported_media_type"
        for raw in (b"{", b"\xff\xfe", b"{'a': 1}", b"NaN", b'{"a":NaN}', b'"' + b"x" * 100_000):
            assert await told(raw) == "bad_request", (operation.id, raw[:20])
        for raw in (b'"\\ud800"', b'{"\\udc00":1}', b'{"a":"\\u0000"}', b"[" * 100_000, DEEP):
            assert await told(raw) == "invalid_input", (operation.id, raw[:20])
        for raw in (b"[]", b"null", b"7", b'"text"', b'{"unheard_of": 1}'):
            assert await told(raw) == "invalid_input", (operation.id, raw)


@over_postgres_only
async def test_every_field_of_a_body_is_checked(site: Site) -> None:
    """Another type in each of them: 422 that names the field, and does not repeat what was sent."""
    user = await site.user()
    wrong = {"string": 7, "integer": "a secret", "object": "a secret", "array": "a secret"}
    for operation in WITH_BODY:
        schema = operation.body or {}
        model = CONTRACT.definitions[schema["$ref"].rpartition("/")[2]]
        for name, field in model["properties"].items():
            kinds = {each.get("type") for each in field.get("anyOf", [field])}
            value = next((wrong[kind] for kind in kinds if kind in wrong), 7)
            if name == "max_cost":
                value = "a secret"
            body = {**BODIES[operation.id], name: value}
            reply = await user(operation.method, address(operation), body)
            assert (reply.status, reply.code) == (422, "invalid_input"), (operation.id, name)
            fields = {error["field"].partition(".")[0] for error in reply.body["errors"]}
            assert name in fields, (operation.id, reply.body)
            assert b"a secret" not in reply.raw


@over_postgres_only
async def test_unknown_parameters_are_refused(site: Site) -> None:
    """A typing error in a filter would else show everything."""
    user = await site.user()
    for operation in SIGNED_IN:
        if operation.id in ("live", "followJob"):
            continue
        reply = await ask(user, operation, f"{address(operation)}?limt=1")
        assert (reply.status, reply.code) == (422, "invalid_input"), operation.id


@over_postgres_only
async def test_what_is_no_text_is_refused_wherever_it_stands(site: Site) -> None:
    """Bytes that are no UTF-8, in the query, the path, and headers."""
    user = await site.user()
    for path in ("/v1/jobs?type=%ff", "/v1/jobs?%ff=1", "/v1/jobs?cursor=%ff", "/v1/jobs/%ff"):
        assert (await user.get(URL(f"{site.url}{path}", encoded=True))).status in (200, 404, 422)
    for key in ("\udcff", "a\x7f", "\u2028"):
        raw = key.encode(errors="surrogateescape")
        assert await posted_with(site, user, b"Idempotency-Key: " + raw) in (201, 400)
    assert await posted_with(site, site.nobody, b"Authorization: Bearer \xff\xfe") == 401
    assert await site.world.hand.fetchval("select count(*) from uvian.jobs") == 0


async def posted_with(site: Site, caller: Caller, header: bytes) -> int:
    """The status of a job that is asked for with one more header, of any bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.config.gateway_port)
    lines = [b"POST /v1/jobs HTTP/1.1", b"Host: x", b"Content-Type: application/json", header]
    if caller.token:
        lines.append(b"Authorization: Bearer " + caller.token.encode())
    body = b'{"type": "noop"}'
    lines += [b"Content-Length: %d" % len(body), b"", body]
    writer.write(b"\r\n".join(lines))
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


@over_postgres_only
async def test_a_body_has_an_end(world: World, redis_url: str, tmp_path: Path) -> None:
    """413 for one that says so and for one that does not; the gateway reads no further."""
    config = config_of(world.adapter, redis_url, tmp_path, gateway_max_body=2048)
    async with opened(world, config) as site:
        user = await site.user()
        for operation in WITH_BODY:
            large = b'{"x": "' + b"x" * 4096 + b'"}'
            headers = {"Content-Type": "application/json"}
            reply = await user(operation.method, address(operation), raw=large, headers=headers)
            assert (reply.status, reply.code) == (413, "input_too_large"), operation.id

        async def endless() -> Any:
            for _ in range(10_000):
                yield b"x" * 1024

        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {user.token}",
        }
        try:
            async with user.session.post(
                f"{site.url}/v1/jobs", data=endless(), headers=headers
            ) as response:
                assert response.status == 413
        except aiohttp.ClientConnectionError:
            pass  # it was hung up on before it had read the answer


@over_postgres_only
async def test_methods_and_addresses_that_are_not_there(site: Site) -> None:
    """405 with those that are, 404 for the rest, both as problem documents."""
    user = await site.user()
    reply = await user("PUT", "/v1/jobs")
    assert (reply.status, reply.code) == (405, "method_not_allowed")
    assert {"GET", "POST"} <= set(reply.headers["Allow"].split(","))
    for path in ("/v1", "/v2/jobs", "/v1/jobs/", "//v1/jobs", "/.env", "/v1/../../etc/passwd"):
        assert (await user.get(path)).code == "not_found", path


# ─── limits ──────────────────────────────────────────────────────────────────────────────────────


@over_postgres_only
@pytest.mark.parametrize("kind", ["read", "write"])
async def test_who_asks_too_often_waits(
    world: World, redis_url: str, tmp_path: Path, kind: str
) -> None:
    """429 with the seconds to wait, over two gateways together; others are not kept waiting."""
    settings = {f"limit_{kind}": 20}
    first = config_of(world.adapter, redis_url, tmp_path, **settings)
    second = config_of(world.adapter, redis_url, tmp_path, **settings)
    async with opened(world, first) as site, opened(world, second) as other:
        user, neighbour = await site.user(), await site.user()
        again = other.caller(user.user_id)
        operation = ALL["calculateCost" if kind == "read" else "createJob"]
        await site.open()
        replies = [await ask((user, again)[n % 2], operation) for n in range(12)]
        refused = [reply for reply in replies if reply.status == 429]
        assert (
            5 <= len(refused) <= 8
        )  # bursts of a quarter of it, and what has dripped in meanwhile
        assert {reply.code for reply in refused} == {"rate_limited"}
        assert 1 <= int(refused[-1].headers["Retry-After"]) <= 4
        assert (await ask(neighbour, operation)).status in (200, 201)
