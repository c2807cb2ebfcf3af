"""When a vendor takes requests again, out of its headers: each has its own, in its own units."""

from __future__ import annotations

__all__ = ["wait_of"]

import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Durations as OpenAI writes them: ``1h2m3.5s``, ``6m0s``, ``20ms``.
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")

#: ``x-ratelimit-reset-tokens``, ``ratelimit-reset``, ``x-jigsaw-rate-limit-reset`` …
_RESET = re.compile(r"(?:^|-)rate-?limit-reset(?:-|$)")

#: A number this large is no duration but a date, in seconds or milliseconds since 1970.
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e11


def wait_of(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds until the vendor takes requests again; None where it does not say.

    ``Retry-After`` is what the vendor wants; the resets of its limits, which good answers carry as
    well, count only for a 429. Dates are compared with the vendor's own ``Date``, so that a clock
    that is wrong here does no harm.
    """
    named = {name.lower(): value.strip() for name, value in headers.items()}
    now = _date(named.get("date", "")) or time.time()
    milliseconds = _number(named.get("retry-after-ms", ""))
    if milliseconds is not None:
        return max(milliseconds / 1000, 0.0)
    requested = _seconds(named.get("retry-after", ""), now)
    return requested if requested is not None or status != 429 else _reset(named, now)


def _reset(headers: Mapping[str, str], now: float) -> float | None:
    """The latest reset of what is used up; where no header says what is, the earliest of all."""
    resets = {name: _seconds(headers[name], now) for name in headers if _RESET.search(name)}
    known = {name: wait for name, wait in resets.items() if wait is not None}
    used_up = [w for name, w in known.items() if _number(_remaining(headers, name)) == 0]
    return max(used_up) if used_up else min(known.values(), default=None)


def _remaining(headers: Mapping[str, str], reset: str) -> str:
    return headers.get(reset.replace("-reset", "-remaining"), "")


def _seconds(value: str, now: float) -> float | None:
    """A duration, a number or a date as seconds from ``now``, never less than none."""
    number = _number(value)
    if number is not None:
        if number >= _EPOCH_MILLISECONDS:
            number = number / 1000 - now
        elif number >= _EPOCH_SECONDS:
            number -= now
        return max(number, 0.0)
    if value and (match := _DURATION.fullmatch(value)):
        hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
        return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    date = _date(value)
    return None if date is None else max(date - now, 0.0)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(value: str) -> float | None:
    """Seconds since 1970 of an HTTP date or an ISO 8601 one."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = read(value)
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            continue
    return None
