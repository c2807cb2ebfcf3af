"""The laboratory by hand: ``python -m tests.executors.providers.lab [--port 8900]``, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from tests.executors.providers.lab import VENDORS
from tests.executors.providers.lab.server import BY_NAME, Asked, Lab


async def serve(port: int) -> None:
    """Start it, say how to use it, and tell of each request."""
    async with Lab(VENDORS, port=port) as lab:
        lab.on_asked = _tell
        print("# The laboratory is open. Point a worker (or anything else) here:")
        for vendor in lab.vendors:
            print(f"\n# {vendor.name}")
            for name, value in vendor.exports(lab.url).items():
                print(f"export {name}={value}")
        print("\n# Models of these names break (openai):", ", ".join(BY_NAME))
        print("# Any other model answers. Ctrl-C ends it.", flush=True)
        await asyncio.Event().wait()


def _tell(asked: Asked) -> None:
    model = asked.body.get("model", "") if isinstance(asked.body, dict) else ""
    print(f"{asked.method} {asked.path} {model} → {asked.fault or 'a good answer'}", flush=True)


def main() -> None:
    """Read the port and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.executors.providers.lab", description=__doc__
    )
    parser.add_argument("--port", type=int, default=8900, help="0 takes a free one")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
