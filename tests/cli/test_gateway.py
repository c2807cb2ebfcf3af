"""``uvian gateway`` as a process, and the page that ``uvian dev`` opens."""

from __future__ import annotations

import asyncio
import re
import resource
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.adapters import over_postgres_only
from tests.cli.conftest import Programs, Uvian
from tests.gateway.tokens import SECRET, claims_of, signed

pytestmark = pytest.mark.processes


def gateway(programs: Programs, **settings: str) -> Any:
    """A gateway on the test's servers; it says where it listens."""
    return programs.uvian("gateway", UVIAN_GATEWAY_PORT="0", UVIAN_JWT_SECRETS=SECRET, **settings)


def url_of(output: str) -> str:
    """Where it listens, as it said."""
    found = re.search(r"gateway on (http://\S+)", output)
    assert found, output
    return found[1]


@over_postgres_only
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_gateway_that_is_told_to_end_does_so_in_good_order(
    uvian: Uvian, programs: Programs, how: signal.Signals
) -> None:
    """Live clients are asked to come again, nothing is cut off, and the exit code is 0."""
    program = gateway(programs)
    program.says("gateway on")
    url = url_of(program.output)

    async def use() -> None:
        token = {"Authorization": f"Bearer {signed(claims_of(uvian.user_id))}"}
        async with aiohttp.ClientSession(headers=token) as session:
            live = await session.ws_connect(f"{url}/v1/live")
            await live.send_json({"op": "ping"})
            assert (await live.receive_json(timeout=20))["op"] == "pong"
            program.process.send_signal(how)
            assert (await live.receive(timeout=20)).type is aiohttp.WSMsgType.CLOSE
            assert live.close_code == aiohttp.WSCloseCode.GOING_AWAY

    asyncio.run(use())
    assert program.ends() == 0, program.output
    assert "Traceback" not in program.output
    assert SECRET not in program.output


@over_postgres_only
def test_three_hundred_silent_strangers_keep_nobody_out(uvian: Uvian, programs: Programs) -> None:
    """At 256 open files, on both families: the silent go first, and the log has one line for it."""
    program = gateway(programs, UVIAN_GATEWAY_HOST="::")
    program.says("gateway on")
    port = int(url_of(program.output).rpartition(":")[2])
    resource.prlimit(program.process.pid, resource.RLIMIT_NOFILE, (256, 256))

    async def use() -> None:
        token = {"Authorization": f"Bearer {signed(claims_of(uvian.user_id))}"}
        async with aiohttp.ClientSession(headers=token) as session, asyncio.timeout(60):
            live = await session.ws_connect(f"http://[::1]:{port}/v1/live")
            strangers = []
            for n in range(300):
                strangers.append(await asyncio.open_connection("127.0.0.1", port))
                if n % 2:
                    strangers[-1][1].write(b"GET / HTTP/1.1\r\nHost: ")
            for host in ("127.0.0.1", "[::1]"):
                async with session.get(f"http://{host}:{port}/v1/credits") as response:
                    assert response.status == 200
            await live.send_json({"op": "ping"})
            assert (await live.receive_json(timeout=20))["op"] == "pong"
            for _, writer in strangers:
                writer.transport.abort()

    asyncio.run(use())
    assert program.process.poll() is None
    assert program.output.count("for each new connection the quietest one is closed") == 1
    assert "Traceback" not in program.output


@over_postgres_only
def test_a_gateway_that_cannot_start_says_why_in_a_sentence(
    uvian: Uvian, programs: Programs
) -> None:
    """No key to check tokens with, a port that is taken, a schema that is missing."""
    nobody = programs.uvian("gateway")
    assert nobody.ends() == 2
    assert "UVIAN_JWT_SECRETS" in nobody.output
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        second = programs.uvian("gateway", UVIAN_GATEWAY_PORT=port, UVIAN_JWT_SECRETS=SECRET)
        assert second.ends() == 2
    assert "UVIAN_GATEWAY_PORT" in second.output
    uvian.sql("drop table uvian.schema_migrations")
    third = gateway(programs)
    assert third.ends() == 2
    assert "uvian migrate" in third.output
    for program in (nobody, second, third):
        assert "Traceback" not in program.output


@over_postgres_only
def test_a_gateway_starts_without_redis_and_not_with_a_wrong_one(
    uvian: Uvian, programs: Programs
) -> None:
    """A Redis that is away may come back; an address that is none will not."""
    away = gateway(programs, UVIAN_REDIS_URL="redis://:hidden-word@127.0.0.1:1/0")
    away.says("gateway on")
    assert "hidden-word" not in away.output
    away.process.terminate()
    assert away.ends() == 0
    wrong = gateway(programs, UVIAN_REDIS_URL="http://127.0.0.1:1")
    assert wrong.ends() == 2
    assert "UVIAN_REDIS_URL" in wrong.output


def test_dev_opens_a_page_with_its_user_signed_in(folder: Path, programs: Programs) -> None:
    """The address it prints has a token that works, and still does when all was started again."""
    dev = programs.uvian("dev")
    dev.says("Ctrl-C ends everything")
    address = re.search(r"(http://127\.0\.0\.1:\d+)/#access_token=(\S+)", dev.output)
    assert address
    url, token = address.groups()

    async def asked(path: str, at: str = url) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{at}{path}") as response,
        ):
            return response.status, await response.read()

    assert b"<!doctype html>" in asyncio.run(asked("/"))[1].lower()
    assert asyncio.run(asked("/v1/jobs"))[0] == 200
    assert (folder / ".uvian" / "secret").stat().st_mode & 0o777 == 0o600
    dev.process.send_signal(signal.SIGINT)
    assert dev.ends() == 0, dev.output
    assert "Traceback" not in dev.output
    again = programs.uvian("dev")
    again.says("Ctrl-C ends everything")
    address = re.search(r"(http://127\.0\.0\.1:\d+)/#", again.output)
    assert address
    assert asyncio.run(asked("/v1/jobs", address[1]))[0] == 200


def test_two_devs_in_two_folders_have_a_port_each(folder: Path, programs: Programs) -> None:
    """The usual one, and another."""
    other = folder / "other"
    other.mkdir()
    first = programs.uvian("dev")
    first.says("Ctrl-C ends everything")
    second = Programs(other)
    try:
        beside = second.uvian("dev")
        beside.says("Ctrl-C ends everything")
        ports = [
            re.search(r"http://127\.0\.0\.1:(\d+)/#", program.output) for program in (first, beside)
        ]
        assert None not in ports
        assert len({port[1] for port in ports if port}) == 2
    finally:
        second.close()
