"""A subscriber of many channels in a process of its own: how late each token is, and whether all came.

    python -m benchmarks.listener <redis url> <tokens> <until> < channels, one a line

Tokens are times (see ``settings_chat``), each with a space behind it; nothing else has spaces.
Says ``ready``, then prints one JSON document when all tokens have come, or at the time ``until``. What it
hears is read afterwards: an instrument must not compete for the cores that it measures.
"""

from __future__ import annotations

import hashlib
import socket
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import hiredis
import orjson


def main() -> None:
    """Subscribe, say that it is done, listen, report."""
    url, expected, until = urlsplit(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    channels = sys.stdin.read().split()
    line = socket.create_connection((url.hostname, url.port))
    for command in (["AUTH", url.password], ["SUBSCRIBE", *channels]):
        line.sendall(hiredis.pack_command(tuple(command)))
    reader = hiredis.Reader()
    heard: list[tuple[float, bytes, bytes]] = []  # when, where, what
    confirmed = tokens = 0
    line.settimeout(1)
    while tokens < expected and time.time() < until:
        try:
            chunk = line.recv(1 << 20)
        except TimeoutError:
            continue
        now = time.time()
        reader.feed(chunk)
        while (message := reader.gets()) is not False:
            if message == b"OK":
                continue
            if message[0] == b"subscribe":
                confirmed += 1
                if confirmed == len(channels):
                    print("ready", flush=True)
                continue
            heard.append((now, message[1], message[2]))
            if b'"message.completed"' not in message[2]:  # which has all of them again
                tokens += message[2].count(b" ")
    print(orjson.dumps(_report(heard, channels)).decode(), flush=True)


def _report(heard: list[tuple[float, bytes, bytes]], channels: list[str]) -> dict[str, Any]:
    texts: dict[bytes, bytearray] = {channel.encode(): bytearray() for channel in channels}
    late: list[float] = []
    counts = {"messages": len(heard), "wrong": 0}
    for now, channel, message in heard:
        _hear(orjson.loads(message), texts[channel], late, now, counts)
    late.sort()
    return {
        "tokens": len(late),
        "p50": late[len(late) // 2] * 1000,
        "p99": late[int(len(late) * 0.99)] * 1000,
        "max": late[-1] * 1000,
        **counts,
    }


def _hear(
    event: dict[str, Any], text: bytearray, late: list[float], now: float, counts: dict[str, int]
) -> None:
    data = event["data"]
    match event["type"]:
        case "token" | "message.delta":
            if data.get("offset", len(text)) != len(text):
                counts["wrong"] += 1
            text += data["text"].encode()
            late.extend(now - float(due) for due in data["text"].split())
        case "message.completed":
            if hashlib.sha256(text).hexdigest() != data["sha256"]:
                counts["wrong"] += 1


if __name__ == "__main__":
    main()
