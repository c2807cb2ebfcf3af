"""How long to wait before something is tried again: the one place, however often it was tried.

``uvian_common/backoff.py`` is the same file for what a team's API loads, which may not import this
package; a test compares the two to the letter. The browser's and Node's are generated
(``scripts/generate_typescript.py``).
"""

from __future__ import annotations

__all__ = ["DOUBLINGS", "pause_before"]

import random

DOUBLINGS = 64  #: no cap is further away; past 1,023 of them a float overflows


def pause_before(tries: int, *, first: float = 0.05, longest: float = 1.0) -> float:
    """Seconds to wait after ``tries`` earlier pauses: ``first``, doubled each time up to ``longest``.

    The upper half is random, so that those who failed together do not come back together. Source:
    "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), equal jitter.
    """
    ceiling = min(longest, first * 2.0 ** min(max(tries, 0), DOUBLINGS))
    return ceiling * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret
