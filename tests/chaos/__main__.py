"""``python -m tests.chaos --seconds 60 --seed 1``: exits with 1 when a promise was broken."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos import load as loading
from tests.chaos import place as placing
from tests.chaos.faults import FAULTS, OUTAGES
from tests.chaos.load import Load
from tests.chaos.place import Place
from tests.chaos.verdict import Verdict, reached

RECOVERY = 20.0  #: seconds that a killed worker may cost its jobs
_REST = {"redis": 1.2, "postgres": 1.2, "workers": 2.5}  #: seconds between two faults of a lane


def main() -> None:
    """Run, tell, and end with what it means."""
    asked = _arguments()
    console = Console(stderr=asked.json)
    with tempfile.TemporaryDirectory(prefix="uvian-chaos-") as folder:
        report = asyncio.run(_run(asked, Path(folder), console))
    if asked.json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    sys.exit(1 if report["wrong"] else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long faults are injected")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of the chance")
    parser.add_argument("--pause", type=float, default=0.15, help="seconds between two requests")
    parser.add_argument("--logs", type=Path, help="keep the workers' logs in this folder")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.parse_args()


async def _run(asked: argparse.Namespace, folder: Path, console: Console) -> dict[str, Any]:
    console.print(f"seed {asked.seed}: {asked.seconds:.0f} s of faults", highlight=False)
    # What our own client has to say is expected here; whoever looks for a cause keeps it.
    logging.basicConfig(filename=folder / "client.log", level=logging.INFO)
    chance = random.Random(asked.seed)
    injected: Counter[str] = Counter()
    async with placing.opened(folder, chance) as place, loading.opened(place) as load:
        with _progress(console, lambda: _line(injected, load)):
            await _storm(place, load, asked, injected)
            await place.settled()
            verdict = await reached(load)
        place.look_after()
        report = _report(asked, place, load, injected, verdict)
        _tell(console, report, injected)
        if asked.logs:
            asked.logs.mkdir(parents=True, exist_ok=True)
            for log in folder.glob("*.log"):
                shutil.copy(log, asked.logs)
    return report


async def _storm(
    place: Place, load: Load, asked: argparse.Namespace, injected: Counter[str]
) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(asked.seconds, asked.pause))
        for lane in FAULTS:
            group.create_task(_lane(place, lane, asked.seconds, injected))
        supervisor = asyncio.create_task(_supervise(place))
    supervisor.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await supervisor


async def _lane(place: Place, lane: str, seconds: float, injected: Counter[str]) -> None:
    """One fault after another, each as often as its neighbours."""
    chance = random.Random(f"{place.chance.random()} {lane}")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for fault in chance.sample(FAULTS[lane], k=len(FAULTS[lane])):
            await asyncio.sleep(chance.uniform(0.2, 2 * _REST[lane]))
            if time.monotonic() > until:
                return
            began = time.monotonic()
            await fault(place)
            injected[fault.__name__] += 1
            if lane in OUTAGES:
                place.outages.append((began, time.monotonic()))


async def _supervise(place: Place) -> None:
    while True:
        place.look_after()
        await asyncio.sleep(0.2)


@contextlib.contextmanager
def _progress(console: Console, line: Callable[[], str]) -> Any:
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")

        async def refresh() -> None:
            while True:
                progress.update(task, description=line())
                await asyncio.sleep(0.5)

        refreshing = asyncio.get_running_loop().create_task(refresh())
        try:
            yield
        finally:
            refreshing.cancel()


def _line(injected: Counter[str], load: Load) -> str:
    return f"{injected.total()} faults of {len(injected)} kinds, {len(load.jobs)} jobs asked for"


def _report(
    asked: argparse.Namespace, place: Place, load: Load, injected: Counter[str], verdict: Verdict
) -> dict[str, Any]:
    waits = sorted(each.seconds - each.outage for each in place.recoveries)
    slowest = waits[-1] if waits else 0.0
    wrong = [*verdict.wrong, *(f"ended by itself: {end}" for end in place.ended_by_themselves)]
    if slowest > RECOVERY:
        wrong.append(f"a killed worker cost its jobs {slowest:.1f} s")
    return {
        "seed": asked.seed,
        "faults": injected.total(),
        "kinds": len(injected),
        "jobs": len(load.jobs),
        "by_status": dict(verdict.statuses),
        "chats": len(load.answers),
        "charged": str(verdict.charged),
        "requests_sent_again": load.unheard,
        "recoveries": len(waits),
        "recovery_max_seconds": round(slowest, 1),
        "recovery_max_with_outages_seconds": round(
            max((each.seconds for each in place.recoveries), default=0.0), 1
        ),
        "ended_by_themselves": len(place.ended_by_themselves),
        "wrong": wrong,
    }


def _tell(console: Console, report: dict[str, Any], injected: Counter[str]) -> None:
    table = Table("fault", "times", box=None, header_style="dim")
    for name, times in sorted(injected.items()):
        table.add_row(name.replace("_", " "), str(times))
    console.print(table)
    for name, value in report.items():
        if name != "wrong":
            console.print(f"{name.replace('_', ' '):>34}  {value}", highlight=False)
    for sentence in report["wrong"]:
        console.print(f"wrong: {sentence}", style="red", highlight=False, markup=False)
    if not report["wrong"]:
        console.print("Nothing was lost, nothing was done twice.", style="green")


if __name__ == "__main__":
    main()
