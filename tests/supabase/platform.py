"""One project of the platform, in a thread of its own: gateway, PostgREST half, Storage half."""

from __future__ import annotations

__all__ = ["Asked", "Platform"]

import asyncio
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from types import TracebackType
from typing import Any, Self

from tests.supabase.faults import Faults
from tests.supabase.gateway import Asked, Gateway, Limits, RestHalf
from tests.supabase.keys import Keys


@dataclass(frozen=True, slots=True)
class _Running:
    """What the thread that serves lets others know."""

    loop: asyncio.AbstractEventLoop
    ended: asyncio.Event
    port: int


class Platform:
    """A Supabase project on ``authenticator_dsn`` and a folder.

    Starting and stopping block, and may be repeated: the address, the keys, the faults and what was
    asked stay. Stopped, it is a PostgREST that is down without a proxy in front: nobody listens.
    ``rest`` is another PostgREST half than the double's, which knows the same ``keys``.
    """

    def __init__(
        self,
        authenticator_dsn: str,
        folder: Path | str,
        *,
        schemas: Sequence[str] = ("public", "uvian"),
        max_rows: int = 1000,
        pool_size: int = 10,
        acquisition_timeout: float = 10.0,
        port: int = 0,
        keys: Keys | None = None,
        rest: RestHalf | None = None,
    ) -> None:
        self._dsn = authenticator_dsn
        self._folder = Path(folder)
        self._limits = Limits(tuple(schemas), max_rows, pool_size, acquisition_timeout)
        self._port = port
        self._keys = keys or Keys("".join(secrets.choice(ascii_lowercase) for _ in range(20)))
        self._rest = rest
        self.faults = Faults()  #: what goes wrong
        self.requests: deque[Asked] = deque(maxlen=10_000)  #: what was asked, the latest last
        self._thread: threading.Thread | None = None
        self._running: _Running | None = None

    @property
    def port(self) -> int:
        """Known from the first start on."""
        return self._port

    @property
    def url(self) -> str:
        """What ``https://<ref>.supabase.co`` is elsewhere."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def ref(self) -> str:
        """The project's reference."""
        return self._keys.ref

    @property
    def secret_key(self) -> str:
        """``sb_secret_…``: the service."""
        return self._keys.secret_key

    @property
    def service_key(self) -> str:
        """The legacy JWT of ``service_role``."""
        return self._keys.service_key

    @property
    def publishable_key(self) -> str:
        """``sb_publishable_…``: what a browser has."""
        return self._keys.publishable_key

    @property
    def anon_key(self) -> str:
        """The legacy JWT of ``anon``."""
        return self._keys.anon_key

    @property
    def jwt_secret(self) -> str:
        """What the legacy keys are signed with."""
        return self._keys.jwt_secret

    def user_token(self, user_id: str, *, algorithm: str = "ES256", **claims: Any) -> str:
        """The access token of a signed-in user; a claim given replaces, None removes."""
        issuer = f"{self.url}/auth/v1"
        return self._keys.user_token(user_id, issuer=issuer, algorithm=algorithm, **claims)

    def asked(self, path: str = "", method: str | None = None) -> list[Asked]:
        """The requests whose path contains ``path``."""
        return [a for a in list(self.requests) if path in a.path and method in (None, a.method)]

    def start(self) -> Self:
        """Listen; nothing happens when it does already."""
        if self._running is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            started: Future[_Running] = Future()
            thread = threading.Thread(
                target=lambda: asyncio.run(self._serve(started)), name="supabase", daemon=True
            )
            thread.start()
            self._running, self._thread = started.result(), thread
            self._port = self._running.port
        return self

    def stop(self) -> None:
        """Cut what is in flight and listen no more; stopping again is fine."""
        if self._running is not None and self._thread is not None:
            self._running.loop.call_soon_threadsafe(self._running.ended.set)
            self._thread.join()
            self._running = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def _serve(self, started: Future[_Running]) -> None:
        gateway = Gateway(
            self._dsn,
            self._folder,
            self._keys,
            self._limits,
            self.faults,
            self._record,
            rest=self._rest,
        )
        try:
            port = await gateway.start(self._port)
            running = _Running(asyncio.get_running_loop(), asyncio.Event(), port)
            started.set_result(running)
            await running.ended.wait()
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)  # the port is taken, most likely
        finally:
            await gateway.stop()

    def _record(self, method: str, path: str, query: str, headers: dict[str, str]) -> None:
        self.requests.append(Asked(method, path, query, headers, time.time()))
