"""Tokens and secrets stay where they were sent: in no log, no answer, no description of settings."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import aiohttp
import pytest

from tests.adapters import over_postgres_only
from tests.gateway.site import Site, config_of, opened, someone
from tests.gateway.tokens import ISSUER, SECRET, SigningKey, claims_of
from tests.lifecycle.world import World

pytestmark = [pytest.mark.database, over_postgres_only]


async def test_no_token_is_ever_written_down(
    world: World, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In headers, queries, subprotocols and frames, right and wrong, with every logger at DEBUG."""
    caplog.set_level(logging.DEBUG)
    settings = {
        "jwks_url": "http://127.0.0.1:1/jwks.json?apikey=part-of-the-address",
        "wake_secret": "a secret of the webhook",
        "limit_read": 1,
    }
    config = config_of(world.adapter, redis_url, tmp_path, **settings)
    async with opened(world, config) as site:
        user = await site.user()
        expired = site.caller(user.user_id, exp=1_000_000_000)
        published = SigningKey.new().sign(claims_of(user.user_id, iss=ISSUER))
        tokens = [user.token, expired.token, published, "rubbish-but-perhaps-a-password"]
        answers = []
        for token in tokens:
            at = f"/v1/jobs/{someone()}/events?access_token={token}"
            answers.append((await site.nobody.get(at)).raw)
            headers = {"Authorization": f"Bearer {token}"}
            answers.append((await site.nobody.get("/v1/jobs", headers=headers)).raw)
            answers.append((await site.nobody.get(f"/v1/nothing?access_token={token}")).raw)
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await site.session.ws_connect(f"{site.url}/v1/live?access_token={token}x")
        protocols = ("uvian", f"bearer.{user.token}")
        async with site.session.ws_connect(f"{site.url}/v1/live", protocols=protocols) as socket:
            for token in tokens:
                await socket.send_json({"op": "auth", "token": token})
                answers.append((await socket.receive()).data.encode())
        answers.append(await rubbish(site, f"GET /v1/live?access_token={user.token}\x01 HTTP/1.1"))
        answers.append(
            await rubbish(site, f"GET / HTTP/1.1\r\nAuthorization: Bearer {user.token}\x00")
        )
        headers = {"X-Uvian-Wake": "a wrong secret of the webhook"}
        answers.append((await site.nobody.post("/v1/wake", {}, headers=headers)).raw)
        secrets = [*tokens, SECRET, "a secret of the webhook", "a wrong secret of the webhook"]
        said = "\n".join(
            f"{record.name} {record.getMessage()} {record.exc_text}" for record in caplog.records
        )
        for secret in secrets:
            assert secret not in said
            assert secret.encode() not in b"\n".join(answers)
        assert "part-of-the-address" not in said
        assert "uvian.gateway" in said  # something was listened to


async def rubbish(site: Site, head: str) -> bytes:
    """The status line of what is answered to something that is almost HTTP."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.config.gateway_port)
    writer.write(f"{head}\r\nHost: x\r\n\r\n".encode("latin-1"))
    line = await reader.readline()
    writer.close()
    assert b" 400 " in line
    return line


async def test_settings_describe_themselves_without_their_secrets(site: Site) -> None:
    """In a traceback or a log of somebody who prints them."""
    for words in (repr(site.config), str(site.config)):
        assert SECRET not in words
        assert "a secret of the folder" not in words
