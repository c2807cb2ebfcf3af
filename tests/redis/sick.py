"""A Redis that is sick where a test wants it to be: a proxy that understands commands and replies.

Commands that ``strikes`` picks out are not passed on but answered as the test says: with an error
reply, half of one, something that is no reply, silence, or by closing the connection.
"""

from __future__ import annotations

__all__ = ["ACTIONS", "REPLIES", "SickRedis", "Strike"]

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

#: What a Redis, or a proxy before it, answers while it cannot serve anybody; and one of tomorrow.
REPLIES: Final = (
    "READONLY You can't write against a read only replica.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "UNKILLABLE Sorry the script already executed write commands against the dataset.",
    "LOADING Redis is loading the dataset in memory",
    "ERR max number of clients reached",
    "ERR max number of clients + cluster connections reached",
    "NOREPLICAS Not enough good replicas to write.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN The cluster is down",
    "CLUSTERDOWN Hash slot not served",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "MOVED 3999 127.0.0.1:6381",
    "ASK 3999 127.0.0.1:6381",
    "REDIRECT 127.0.0.1:6381",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "ERR AUTH <password> called without any password configured for the default user.",
    (
        "ERR Error running script (call to f_9a3b): @user_script:106: @user_script: 76: "
        "-OOM command not allowed when used memory > 'maxmemory'."
    ),
    (
        "ERR Error running script (call to f_9a3b): @user_script:7: @user_script: 7: "
        "-READONLY You can't write against a read only replica."
    ),
    (
        "ERR Error running script (call to f_9a3b): @user_script:106: user_script:76: @user_script: 76: "
        "-MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist."
    ),
    "user_script:103: OOM command not allowed when used memory > 'maxmemory'.",
    "OOM command not allowed when used memory > 'maxmemory'. script: 9a3b, on @user_script:45.",
    "EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.",
    "ERR Connection refused",
    "ERR Connection timed out",
    "no upstream host",
    "upstream failure",
    "SOMETHINGNEW that this release has never heard of",
)

#: What happens to a connection instead of a reply.
ACTIONS: Final = ("close", "reset", "half", "garbage", "tls", "silence")

Command = tuple[bytes, ...]


class Strike:
    """Which commands are answered how, and how often that has happened."""

    def __init__(self, picks: Callable[[Command], bool], answer: str) -> None:
        self.picks = picks
        self.answer = answer
        self.hits = 0
        self.hit = asyncio.Event()

    def count(self) -> None:
        """It has happened once more."""
        self.hits += 1
        self.hit.set()


class SickRedis:
    """Stands before a real Redis. Nothing is struck until ``strike`` is set."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0
        self.strike: Strike | None = None
        self.refuses = False  #: accept connections, and close them at once
        self.refused = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        self.cut()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Break every connection."""
        for task in self._tasks:
            task.cancel()

    @contextlib.asynccontextmanager
    async def struck(self, picks: Callable[[Command], bool], answer: str) -> AsyncIterator[Strike]:
        """Answer some commands so, inside."""
        strike = self.strike = Strike(picks, answer)
        try:
            yield strike
        finally:
            self.strike = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.refuses:
                self.refused += 1
                return
            await self._serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            subscribed = False
            while True:
                raw, command = await _read_command(reader)
                strike = self.strike
                if strike is not None and strike.picks(command):
                    strike.count()
                    if not await _answer(strike.answer, writer, up_reader, up_writer, raw):
                        return
                    continue
                up_writer.write(raw)
                if command[0].upper() in (b"SUBSCRIBE", b"UNSUBSCRIBE"):
                    if not subscribed:
                        subscribed = True
                        pump = asyncio.create_task(_pump(up_reader, writer))
                        self._tasks.add(pump)
                        pump.add_done_callback(self._tasks.discard)
                elif not subscribed:
                    writer.write(await _read_reply(up_reader))
                    await writer.drain()
        finally:
            up_writer.transport.abort()


async def _answer(
    answer: str,
    writer: asyncio.StreamWriter,
    up_reader: asyncio.StreamReader,
    up_writer: asyncio.StreamWriter,
    raw: bytes,
) -> bool:
    """Whether the connection goes on."""
    match answer:
        case "close":
            writer.close()
            return False
        case "reset":
            writer.transport.abort()
            return False
        case "half":  # it was carried out, and of the reply the end is missing
            up_writer.write(raw)
            whole = await _read_reply(up_reader)
            writer.write(whole[: len(whole) // 2])
            await writer.drain()
            writer.close()
            return False
        case "garbage":
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        case "tls":
            writer.write(b"\x15\x03\x01\x00\x02\x02\x46")
        case "silence":
            await asyncio.sleep(60)
        case _:
            writer.write(b"-" + answer.encode() + b"\r\n")
    await writer.drain()
    return True


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def _read_command(reader: asyncio.StreamReader) -> tuple[bytes, Command]:
    head = await reader.readuntil(b"\r\n")
    raw, parts = [head], []
    for _ in range(int(head[1:])):
        size = await reader.readuntil(b"\r\n")
        data = await reader.readexactly(int(size[1:]) + 2)
        raw += [size, data]
        parts.append(data[:-2])
    return b"".join(raw), tuple(parts)


async def _read_reply(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n")
    match head[:1]:
        case b"$" if int(head[1:]) >= 0:
            return head + await reader.readexactly(int(head[1:]) + 2)
        case b"*" if int(head[1:]) > 0:
            parts = [await _read_reply(reader) for _ in range(int(head[1:]))]
            return head + b"".join(parts)
        case _:
            return head
