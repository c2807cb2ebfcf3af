"""``python -m benchmarks [--json] [--check] [NAME …]``: run the measurements and judge them.

``--check`` exits with 1 when a target of the design is missed. Nothing here runs in CI: the
machine that is measured must be otherwise idle.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable

import orjson

from benchmarks import cancel, chats, gateway, pickup, supabase, throughput, variations
from benchmarks.result import Result

BENCHMARKS: dict[str, Callable[[], list[Result]]] = {
    "cancel": cancel.run,
    "chats": chats.run,
    "gateway": gateway.run,
    "pickup": pickup.run,
    "throughput": throughput.run,
    "supabase": supabase.run,
    "variations": variations.run,
}


def main() -> int:
    """Parse, run, print; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="NAME")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    options = parser.parse_args()
    results: list[Result] = []
    for name in options.names or BENCHMARKS:
        if not options.json:
            print(f"{name} …", file=sys.stderr)
        results += BENCHMARKS[name]()
    if options.json:
        document = {"machine": platform.platform(), "results": [r.document() for r in results]}
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        for result in results:
            print(result.line())
    missed = [result for result in results if not result.met]
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
