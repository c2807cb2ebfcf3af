"""A subscriber of many channels in a process of its own: how late each token is, and whether all came.

    python -m benchmarks.listener <redis url> <tokens> <until> < channels, one a line

Tokens are times (see ``settings_chat``). Says ``ready``, then prints one JSON document when all tokens
and all ends have come, or at the time ``until``.
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
    texts: dict[bytes, bytearray] = {channel.encode(): bytearray() for channel in channels}
    late: list[float] = []
    counts = {"messages": 0, "confirmed": 0, "wrong": 0}
    line.settimeout(1)
    while len(late) < expected and time.time() < until:
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
                counts["confirmed"] += 1
                if counts["confirmed"] == len(channels):
                    print("ready", flush=True)
                continue
            counts["messages"] += 1
            _hear(orjson.loads(message[2]), texts[message[1]], late, now, counts)
    late.sort()
    report = {
        "tokens": len(late),
        "p50": late[len(late) // 2] * 1000,
        "p99": late[int(len(late) * 0.99)] * 1000,
        "max": late[-1] * 1000,
        **counts,
    }
    print(orjson.dumps(report).decode(), flush=True)


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
