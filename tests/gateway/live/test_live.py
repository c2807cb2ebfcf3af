"""Live topics over real sockets: from the beginning, from a cursor, and never with a gap."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any

import aiohttp
import pytest
from aiohttp import WSCloseCode
from redis.asyncio import Redis

from executors import events
from tests.adapters import over_postgres_only
from tests.gateway.live.sockets import PATIENCE, Happenings, Socket, connected
from tests.gateway.site import Caller, Site, config_of, opened, someone
from tests.gateway.tokens import claims_of, signed
from tests.lifecycle.world import World
from tests.servers import REDIS_BINARY
from uvian_worker.gateway.live import session, sse, websocket
from uvian_worker.gateway.live.session import Close
from uvian_worker.local.embedded import EmbeddedRedis

pytestmark = [pytest.mark.database, over_postgres_only]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """Where things happen."""
    redis = Redis.from_url(redis_url)
    yield redis
    await redis.aclose()


@pytest.fixture
async def caller(site: Site) -> Caller:
    """Somebody signed in."""
    return await site.user()


@pytest.fixture
async def job(site: Site, caller: Caller, redis: Redis) -> AsyncIterator[Happenings]:
    """A job of theirs that has begun."""
    made = await site.made(caller)
    happenings = Happenings(redis, made["id"], caller.user_id)
    happenings.topic = f"job:{made['id']}"  # type: ignore[attr-defined] # for the tests to name
    await happenings.begin()
    yield happenings
    await happenings.close()


def topic_of(job: Happenings) -> str:
    """Its own topic."""
    return str(job.topic)  # type: ignore[attr-defined]


# ─── following ───────────────────────────────────────────────────────────────────────────────────


async def test_a_newcomer_hears_everything_then_what_follows_then_the_end(
    caller: Caller, job: Happenings
) -> None:
    """In one order, numbered without a gap; the topic of a job that has ended is let go."""
    async with connected(caller) as socket:
        answer = await socket.subscribe(topic_of(job))
        assert (answer["op"], answer["mode"], answer["ended"]) == ("subscribed", "resume", False)
        await job.stages("a", "b")
        await job.complete()
        heard = answer["events"] + [(await socket.hears("event"))["event"] for _ in range(3)]
        assert [event["seq"] for event in heard] == list(range(1, len(heard) + 1))
        assert heard[-1]["type"] == "job.completed"
        assert await socket.hear() == {
            "op": "unsubscribed",
            "topic": topic_of(job),
            "reason": "ended",
        }
        assert (await socket.subscribe(topic_of(job)))["ended"]


async def test_who_comes_back_goes_on_from_the_cursor(caller: Caller, job: Happenings) -> None:
    """Nothing twice, nothing missed."""
    async with connected(caller) as socket:
        await socket.subscribe(topic_of(job))
        await job.stages("a")
        cursor = (await socket.hears("event"))["event"]["id"]
    await job.stages("b", "c")
    async with connected(caller) as socket:
        answer = await socket.subscribe(topic_of(job), cursor)
        assert answer["mode"] == "resume"
        assert [event["data"]["stage"] for event in answer["events"]] == ["b", "c"]


@pytest.mark.parametrize("cursor", ["rubbish", "a-1-b", "zzzzzzzz-999999-00000000", ""])
async def test_a_cursor_that_leads_nowhere_is_answered_by_the_state(
    caller: Caller, job: Happenings, cursor: str
) -> None:
    """Never by silence, and never by an error."""
    async with connected(caller) as socket:
        await socket.say(op="subscribe", topic=topic_of(job), cursor=cursor)
        answer = await socket.hears("subscribed")
        assert answer["mode"] in ("snapshot", "resume")
        assert [e["type"] for e in answer["events"]][-1] == "job.started"


async def test_a_socket_has_many_topics_and_lets_go_of_them(
    site: Site, caller: Caller, job: Happenings
) -> None:
    """What is unsubscribed says nothing more."""
    async with connected(caller) as socket:
        await socket.subscribe(f"user:{caller.user_id}")
        await socket.subscribe(topic_of(job))
        await job.stages("a")
        assert {(await socket.hears("event"))["event"]["topic"] for _ in range(2)} == {
            f"user:{caller.user_id}",
            topic_of(job),
        }
        await socket.say(op="unsubscribe", topic=topic_of(job))
        assert (await socket.hears("unsubscribed"))["reason"] == "requested"
        await job.stages("b")
        assert (await socket.hears("event"))["event"]["topic"] == f"user:{caller.user_id}"
        await socket.say(op="ping")
        await socket.hears("pong")


async def test_a_topic_is_subscribed_to_once_however_many_listen(
    caller: Caller, job: Happenings, redis: Redis
) -> None:
    """In Redis; every socket hears every event, and the last one to leave ends it."""
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connected(caller)) for _ in range(25)]
        for socket in sockets:
            await socket.subscribe(topic_of(job))
        channel = f"uvian:events:{topic_of(job)}"
        assert (await redis.pubsub_numsub(channel))[0][1] == 1
        await job.stages("a", "b")
        for socket in sockets:
            assert await socket.types(2) == ["stage.started"] * 2
    await until(lambda: no_subscribers(redis, channel))


async def test_a_burst_reaches_everybody_in_order(caller: Caller, job: Happenings) -> None:
    """Two thousand deltas: as text they are whole, however they were joined on the way."""
    message = someone()
    started = events.MessageStarted(
        message_id=message, conversation_id=someone(), role="assistant", reply_to=None
    )
    async with connected(caller) as socket:
        await socket.subscribe(topic_of(job))
        words = [random.choice(["a", "ü", "🦊", "漢字 "]) for _ in range(2000)]
        offset, deltas = 0, []
        for word in words:
            deltas.append(events.MessageDelta(message_id=message, offset=offset, text=word))
            offset += len(word.encode())
        await job.tell(started, *deltas)
        await job.complete()
        text = ""
        while True:
            frame = await socket.hear()
            if frame["op"] == "unsubscribed":
                break
            event = frame["event"]
            if event["type"] == "message.delta":
                assert event["data"]["offset"] == len(text.encode())
                text += event["data"]["text"]
        assert text == "".join(words)


# ─── whose topics ────────────────────────────────────────────────────────────────────────────────


async def test_anothers_topic_is_answered_like_one_that_is_not_there(
    site: Site, caller: Caller, job: Happenings
) -> None:
    """Job, user, conversation: the same words."""
    other = await site.user()
    theirs = await site.world.conversation(other.user_id)
    topics = [
        topic_of(job),
        f"user:{caller.user_id}",
        f"conversation:{await site.world.conversation(caller.user_id)}",
        f"job:{someone()}",
        f"conversation:{someone()}",
    ]
    async with connected(other) as socket:
        for topic in topics:
            answer = await socket.subscribe(topic)
            assert answer.pop("topic") == topic
            assert answer == {
                "op": "error",
                "code": "not_found",
                "message": "There is no such topic.",
            }
        assert (await socket.subscribe(f"conversation:{theirs}"))["op"] == "subscribed"


async def test_who_is_no_member_any_more_hears_nothing_more(
    site: Site, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out by looking again, while the socket is open."""
    monkeypatch.setattr(session, "CHECK_EVERY", 0.2)
    other = await site.user()
    conversation = await site.world.conversation(caller.user_id, other.user_id)
    async with connected(other) as socket:
        answer = await socket.subscribe(f"conversation:{conversation}")
        assert answer["op"] == "subscribed"
        await site.world.hand.execute(
            "delete from uvian.conversation_members where user_id = $1", other.user_id
        )
        assert (await socket.hears("unsubscribed"))["reason"] == "not_found"


# ─── tokens ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["header", "query", "protocol"])
async def test_the_token_comes_as_its_sender_can(site: Site, caller: Caller, way: str) -> None:
    """Browsers have no headers here; others do."""
    options: dict[str, dict[str, Any]] = {
        "header": {"headers": {"Authorization": f"Bearer {caller.token}"}},
        "query": {"params": {"access_token": caller.token}},
        "protocol": {"protocols": ("uvian", f"bearer.{caller.token}")},
    }
    async with site.session.ws_connect(f"{site.url}/v1/live", **options[way]) as raw:
        assert raw.protocol == ("uvian" if way == "protocol" else None)
        assert (await Socket(raw).subscribe(f"user:{caller.user_id}"))["op"] == "subscribed"


@pytest.mark.parametrize("claims", [None, {"exp": 1}, {"role": "anon"}, {"aud": "anon"}], ids=str)
async def test_without_a_token_that_holds_there_is_no_socket(
    site: Site, claims: dict[str, Any] | None
) -> None:
    """A problem document, as everywhere."""
    protocols = ("uvian",)
    if claims is not None:
        protocols = ("uvian", f"bearer.{signed(claims_of(**claims))}")  # type: ignore[assignment]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await site.session.ws_connect(f"{site.url}/v1/live", protocols=protocols)
    assert refused.value.status == 401


async def test_a_socket_ends_with_its_token_after_a_warning(site: Site) -> None:
    """And goes on with a new one, sent in time."""
    user = await site.world.user()
    first = site.caller(user, exp=time.time() + 2)
    async with connected(first) as socket:
        assert (await socket.hears("expiring"))["expires_in"] <= 2
        renewed = signed(claims_of(user, exp=time.time() + 4))
        await socket.say(op="auth", token=renewed)
        assert (await socket.hears("authenticated"))["expires_at"] > time.time() + 2
        await socket.hears("expiring")
        assert await socket.closed() == Close.UNAUTHORIZED


async def test_a_socket_takes_no_token_of_another_user(site: Site, caller: Caller) -> None:
    """Nor rubbish; that is said, and changes nothing."""
    async with connected(caller) as socket:
        await socket.say(op="auth", token="rubbish")
        assert (await socket.hears("error"))["code"] == "invalid_token"
        await socket.say(op="auth", token=signed(claims_of(someone())))
        assert await socket.closed() == Close.UNAUTHORIZED


# ─── bad days ────────────────────────────────────────────────────────────────────────────────────


async def test_a_reader_that_is_too_slow_is_told_where_to_go_on(
    caller: Caller, job: Happenings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It converges after resuming, and those who read are not kept waiting."""
    async with connected(caller, max_msg_size=0) as slow, connected(caller) as healthy:
        for socket in (slow, healthy):
            await socket.subscribe(topic_of(job))
        slow.socket._reader._protocol.pause_reading()
        big = "x" * 20_000
        last = 0
        for number in range(120):
            await job.tell(events.JobProgress(fraction=number / 200, message=f"{number} {big}"))
            await job.stages(f"s{number}")
            while True:
                event = (await healthy.hears("event"))["event"]
                if event["data"].get("stage") == f"s{number}":
                    last = event["seq"]
                    break
        slow.socket._reader._protocol.resume_reading()
        seen, cursor, gaps = 0, None, 0
        while seen < last:
            frame = await slow.hear()
            match frame["op"]:
                case "event":
                    seen, cursor = frame["event"]["seq"], frame["event"]["id"]
                case "gap":
                    gaps += 1
                    await slow.say(op="subscribe", topic=topic_of(job), cursor=cursor)
                case "subscribed" | "events":
                    for event in frame["events"]:
                        seen, cursor = event["seq"], event["id"]
        assert seen == last


@pytest.mark.parametrize("comes_back", ["in time for the reason", "too late for it"])
async def test_a_client_that_reads_nothing_is_hung_up_on(
    caller: Caller, job: Happenings, comes_back: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others hear every event meanwhile; it comes back with its cursor and has missed nothing."""
    in_time = comes_back == "in time for the reason"
    monkeypatch.setattr(websocket, "_SEND_SECONDS", 0.2)
    monkeypatch.setattr(websocket, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(websocket, "_GOODBYE_SECONDS", PATIENCE if in_time else 0.05)
    async with connected(caller, max_msg_size=0) as mute, connected(caller) as healthy:
        for socket in (mute, healthy):
            await socket.subscribe(topic_of(job))
        mute.socket.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, 16 * 1024)
        mute.socket._reader._protocol.pause_reading()
        for number in range(200):
            await job.stages(f"{number} {'x' * 2_500}")
            last = (await healthy.hears("event"))["event"]
            assert last["data"]["stage"].startswith(f"{number} ")
        await asyncio.sleep(1)
        await job.stages("still here")
        last = (await healthy.hears("event"))["event"]
        mute.socket._reader._protocol.resume_reading()
        heard, code = await mute.rest()
        assert code == (Close.SLOW if in_time else WSCloseCode.ABNORMAL_CLOSURE)
        events_ = [frame["event"] for frame in heard if frame["op"] == "event"]
        assert len(events_) < 200
    async with connected(caller, max_msg_size=0) as again:
        answer = await again.subscribe(topic_of(job), events_[-1]["id"])
        assert answer["mode"] == "resume"
        seqs = [event["seq"] for event in events_ + answer["events"]]
        assert seqs == list(range(seqs[0], last["seq"] + 1))


async def test_redis_restarts_and_nobody_is_hung_up_on(world: World, tmp_path: Path) -> None:
    """With its data or without: what is told afterwards arrives, or the client learns to read the row."""
    with EmbeddedRedis(tmp_path / "redis", persistent=True, binary=REDIS_BINARY) as server:
        config = config_of(world.adapter, server.url, tmp_path)
        async with opened(world, config) as site:
            await site.open()
            caller = await site.user()
            made = await site.made(caller)
            redis = Redis.from_url(server.url)
            job = Happenings(redis, made["id"], caller.user_id)
            await job.begin()
            async with connected(caller) as socket:
                await socket.subscribe(f"job:{made['id']}")
                for lose_data in (False, True):
                    await asyncio.to_thread(server.restart, lose_data=lose_data)
                    name = f"after {lose_data}"
                    await job.stages(name)
                    frame = await _frame_with(socket, name, *(["expired"] if lose_data else []))
                    if frame.get("mode") == "expired":  # told before we were back
                        await job.stages("later")
                        await _frame_with(socket, "later")
            await job.close()
            await redis.aclose()


async def _frame_with(socket: Socket, *words: str) -> dict[str, Any]:
    """The first frame to come that has one of these in it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            frame = await socket.hear()
            if any(word in str(frame) for word in words):
                return frame


async def test_ten_thousand_malformed_frames(site: Site, caller: Caller) -> None:
    """No crash, nobody else's data, and a socket that makes no sense is closed."""
    chance = random.Random(7)
    sent = 0
    while sent < 10_000:
        async with connected(caller) as socket:
            for _ in range(session.MAX_MISTAKES + 5):
                try:
                    await _malformed(socket.socket, chance)
                except (ConnectionError, aiohttp.ClientError):
                    break
                sent += 1
            assert await socket.closed() in (Close.MISTAKES, 1009, 1007, 1002, 1006)
            assert site.contract is not None
    async with connected(caller) as socket:
        assert (await socket.subscribe(f"user:{caller.user_id}"))["op"] == "subscribed"


async def _malformed(socket: aiohttp.ClientWebSocketResponse, chance: random.Random) -> None:
    match chance.randrange(7):
        case 0:
            await socket.send_bytes(chance.randbytes(chance.randrange(1, 200)))
        case 1:
            await socket.send_str("{" * chance.randrange(1, 3000))
        case 2:
            await socket.send_str(
                f'{{"op":"subscribe","topic":{chance.choice(["1", "[]", "null"])}}}'
            )
        case 3:
            await socket.send_str(f'{{"op":"{chance.choice(["", "x", "event", "SUBSCRIBE"])}"}}')
        case 4:
            await socket.send_str(chance.choice(["null", "1", "[]", '"subscribe"', "NaN"]))
        case 5:
            await socket.send_str('{"op":"subscribe","topic":"user:%s"}' % ("../" * 20))
        case _:
            await socket.send_str('{"op":"auth","token":"%s"' % ("a" * chance.randrange(100)))


async def test_a_gateway_that_ends_asks_its_clients_to_come_again(
    world: World, redis_url: str, tmp_path: Path
) -> None:
    """With the code for it."""
    config = config_of(world.adapter, redis_url, tmp_path)
    async with aiohttp.ClientSession() as session_:
        async with opened(world, config) as site:
            caller = await site.user()
            raw = await session_.ws_connect(
                f"{site.url}/v1/live", protocols=("uvian", f"bearer.{caller.token}")
            )
            socket = Socket(raw)
            await socket.subscribe(f"user:{caller.user_id}")
            closing = asyncio.create_task(socket.closed())
        assert await closing == Close.GOING_AWAY


# ─── one job as a stream ─────────────────────────────────────────────────────────────────────────


async def _lines(response: aiohttp.ClientResponse, until_: str) -> list[str]:
    lines = []
    async with asyncio.timeout(PATIENCE):
        async for raw in response.content:
            lines.append(raw.decode().rstrip("\n"))
            if until_ in lines[-1]:
                break
    return lines


async def test_a_job_is_a_stream_of_events(site: Site, caller: Caller, job: Happenings) -> None:
    """With ids to go on from, and an end."""
    url = f"{site.url}/v1/jobs/{topic_of(job).removeprefix('job:')}/events"
    headers = {"Authorization": f"Bearer {caller.token}"}
    async with site.session.get(url, headers=headers) as response:
        assert response.content_type == "text/event-stream"
        lines = await _lines(response, "job.started")
        await job.stages("a")
        lines += await _lines(response, "stage.started")
    ids = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]
    await job.complete()
    async with site.session.get(url, headers={**headers, "Last-Event-ID": ids[-1]}) as response:
        async with asyncio.timeout(PATIENCE):
            rest = (await response.read()).decode()
    assert rest.count("event: ") == 1
    assert "event: job.completed" in rest


async def test_a_stream_that_nobody_reads_is_cut(
    site: Site, caller: Caller, job: Happenings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection and what waits in it are not kept for ever."""
    monkeypatch.setattr(sse, "_SEND_SECONDS", 0.2)
    monkeypatch.setattr(websocket, "_GOODBYE_SECONDS", 0.05)
    url = f"{site.url}/v1/jobs/{topic_of(job).removeprefix('job:')}/events"
    headers = {"Authorization": f"Bearer {caller.token}"}
    async with site.session.get(url, headers=headers) as response, connected(caller) as healthy:
        await healthy.subscribe(topic_of(job))
        assert response.connection is not None
        assert response.connection.protocol is not None
        response.connection.protocol.pause_reading()
        for number in range(400):
            await job.stages(f"{number} {'x' * 2_500}")
            await healthy.hears("event")
        await asyncio.sleep(1)
        response.connection.protocol.resume_reading()
        with pytest.raises(aiohttp.ClientError):
            async with asyncio.timeout(PATIENCE):
                await response.read()


async def test_anothers_job_is_no_stream(site: Site, job: Happenings) -> None:
    """Like one that is not there."""
    other = await site.user()
    for job_id in (topic_of(job).removeprefix("job:"), someone(), "rubbish"):
        reply = await other.get(f"/v1/jobs/{job_id}/events")
        assert (reply.status, reply.code) == (404, "not_found")


# ─────────────────────────────────────────────────────────────────────────────────────────────────


async def no_subscribers(redis: Redis, channel: str) -> bool:
    """Whether nobody listens any more."""
    return bool((await redis.pubsub_numsub(channel))[0][1] == 0)


async def until(condition: Any) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_topic_is_the_same_in_capitals(caller: Caller, job: Happenings) -> None:
    """Over a socket and as a stream; the answer has the name that events have."""
    topic = topic_of(job)
    kind, _, id_ = topic.partition(":")
    loud = f"{kind}:{id_.upper()}"
    async with connected(caller) as socket:
        answer = await socket.subscribe(loud)
        assert (answer["op"], answer["topic"]) == ("subscribed", topic)
        await job.stages("one")
        assert (await socket.hears("event"))["event"]["topic"] == topic
        await socket.say(op="unsubscribe", topic=loud)
        assert (await socket.hears("unsubscribed"))["topic"] == topic
    await job.complete()
    stream = await caller.get(f"/v1/jobs/{id_.upper()}/events")
    assert b"event: job.completed" in stream.raw
