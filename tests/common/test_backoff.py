"""One backoff on every side: bounded after any number of tries, and never all at once."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import uvian_common.backoff
from repositories import errors
from repositories.batching import batcher

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "uvian_worker" / "gateway" / "web" / "client" / "backoff.js"

_TRIES = st.one_of(st.integers(-1, 70), st.integers(1_000, 1_100), st.integers(0, 10**30))


@given(tries=_TRIES, first=st.floats(0.001, 60), doublings=st.floats(0, 20))
def test_it_is_bounded_after_any_number_of_tries(
    tries: int, first: float, doublings: float
) -> None:
    """Between half the ceiling and the ceiling, and the ceiling is never above the cap."""
    longest = first * 2**doublings
    pause = uvian_common.backoff.pause_before(tries, first=first, longest=longest)
    ceiling = min(longest, first * 2.0 ** max(min(tries, 1_000), 0))
    assert ceiling / 2 <= pause <= ceiling


def test_those_who_failed_together_do_not_come_back_together() -> None:
    """The upper half is random."""
    assert len({uvian_common.backoff.pause_before(2_000) for _ in range(50)}) > 40


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_javascript_waits_like_python() -> None:
    """The same ceilings and floors, for few tries and for very many."""
    asked = [-1, 0, 1, 2, 3, 9, 64, 1_023, 1_024, 10**15]
    code = (
        f"import({json.dumps(PAGE.as_uri())}).then(({{ pauseBefore }}) => console.log(JSON.stringify("
        f"[0, 1].map((luck) => {asked}.map((n) => pauseBefore(n, 50, 1000, () => luck))))))"
    )
    told = subprocess.check_output(["node", "--input-type=module", "--eval", code], text=True)
    least, most = json.loads(told)
    for tries, low, high in zip(asked, least, most, strict=True):
        pause = uvian_common.backoff.pause_before(tries) * 1_000
        assert low * 0.999 <= pause <= high * 1.001


def test_nobody_writes_one_by_hand() -> None:
    """Powers of two and random pauses before a sleep: there is one home for them."""
    by_hand = re.compile(r"sleep\([^)\n]*(random|\*\*)|\b2(?:\.0)? ?\*\* ?(?:min|\(?tr|attempt)")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("repositories", "executors", "uvian_worker")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "backoff.py"
        for line in path.read_text().splitlines()
        if by_hand.search(line) and "1.1)" not in line  # a stated wait, a little later
    ]
    assert found == []


async def test_a_settlement_waits_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,100 tries overflowed the pause before the next one, and the result was lost."""
    tries, slept = 0, 0.0

    async def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds

    async def call(items: Sequence[dict[str, object]]) -> list[dict[str, object]]:
        nonlocal tries
        tries += 1
        if tries <= 20_000:
            raise errors.Unavailable("Postgres is not reachable")
        return [{"settled": item["id"]} for item in items]

    monkeypatch.setattr("uvian_common.batching.asyncio.sleep", sleep)
    assert await batcher("settle_jobs", call).submit({"id": "job"}) == {"settled": "job"}
    assert 3 * 3600 < slept <= 20_000


@pytest.mark.parametrize(("failures", "tries", "calls"), [(0, None, 1), (7, None, 8), (2, 3, 3)])
async def test_a_call_is_repeated_while_it_fails(
    failures: int, tries: int | None, calls: int
) -> None:
    """Without a limit, or up to it; each failure that is followed by a pause is reported."""
    made = 0
    reported: list[Exception] = []

    async def call() -> str:
        nonlocal made
        made += 1
        if made <= failures:
            raise TimeoutError(str(made))
        return "answer"

    answer = await uvian_common.backoff.retry(
        call, TimeoutError, tries=tries, first=0.0001, on_failure=reported.append
    )
    assert (answer, made) == ("answer", calls)
    assert [str(error) for error in reported] == [str(n + 1) for n in range(failures)]


@pytest.mark.parametrize(("error", "calls"), [(TimeoutError, 3), (ValueError, 1)])
async def test_the_last_error_is_raised(error: type[Exception], calls: int) -> None:
    """After the last try, or at once where the error is not one that passes."""
    made = 0

    async def call() -> None:
        nonlocal made
        made += 1
        raise error(made)

    with pytest.raises(error) as raised:
        await uvian_common.backoff.retry(call, TimeoutError, tries=3, first=0.0001)
    assert (made, raised.value.args) == (calls, (calls,))
