"""What each vendor's headers say about when to come back."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.providers.transport.retry_after import wait_of

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
DATE = {"Date": format_datetime(NOW, usegmt=True)}
EPOCH = NOW.timestamp()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "20"}, 20),
        ({"retry-after": "1.5"}, 1.5),
        ({"Retry-After": "Tue, 24 Nov 2026 12:00:30 GMT"}, 30),
        ({"Retry-After": "Tue, 24 Nov 2026 11:00:00 GMT"}, 0),
        ({"Retry-After-Ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After": "7", "x-ratelimit-reset-tokens": "6m0s"}, 7),
        ({"x-ratelimit-reset-requests": "1s"}, 1),
        ({"x-ratelimit-reset-tokens": "6m0s"}, 360),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-reset": str(int(EPOCH) + 12)}, 12),
        ({"ratelimit-reset": "42"}, 42),
        ({"anthropic-ratelimit-requests-reset": "2026-11-24T12:00:05Z"}, None),
        ({"x-rate-limit-reset-at": "2026-11-24T12:00:05Z"}, 5),
        ({"x-jigsaw-rate-limit-reset": str(int((EPOCH + 3) * 1000))}, 3),
        ({}, None),
    ],
)
def test_every_style_is_read(headers: dict[str, str], expected: float | None) -> None:
    """Seconds, dates, durations and times since 1970, against the vendor's own clock."""
    wait = wait_of(429, {**DATE, **headers})
    assert wait == (None if expected is None else pytest.approx(expected, abs=0.01))


def test_what_is_used_up_is_waited_for() -> None:
    """Of several limits the one that is used up counts, not the one that resets first."""
    headers = {
        "x-ratelimit-remaining-requests": "99",
        "x-ratelimit-reset-requests": "8ms",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "30s",
    }
    assert wait_of(429, headers) == 30
    headers["x-ratelimit-remaining-requests"] = "0"
    assert wait_of(429, headers) == 30
    headers["x-ratelimit-remaining-requests"] = "99"
    headers["x-ratelimit-remaining-tokens"] = "5"
    assert wait_of(429, headers) == pytest.approx(0.008)


def test_resets_on_other_answers_are_no_waits() -> None:
    """Good answers and faults carry them too; only ``Retry-After`` is about a 503."""
    assert wait_of(503, {"x-ratelimit-reset-requests": "60s"}) is None
    assert wait_of(503, {"Retry-After": "3"}) == 3


def test_without_the_vendors_date_our_clock_counts() -> None:
    """A date is then compared with the time here."""
    later = format_datetime(datetime.fromtimestamp(time.time() + 100, UTC), usegmt=True)
    assert wait_of(429, {"Retry-After": later}) == pytest.approx(100, abs=3)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "retry-after",
                "retry-after-ms",
                "x-ratelimit-reset-tokens",
                "date",
                "x-ratelimit-remaining-tokens",
                "x-jigsaw-rate-limit-reset",
            ]
        ),
        st.text(max_size=30)
        | st.sampled_from(["nan", "inf", "-5", "1e400", "9" * 30, "", "ms", "0001-01-01"]),
    )
)
def test_rubbish_is_no_wait_and_never_a_crash(headers: dict[str, str]) -> None:
    """Whatever stands there, the answer is none or a number of seconds that is not negative."""
    wait = wait_of(429, headers)
    assert wait is None or 0 <= wait < float("inf")
