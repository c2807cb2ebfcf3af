"""How many sockets and streams may be open at a time: per user, and per address."""

from __future__ import annotations

__all__ = ["Slots"]

import contextlib
from collections import Counter
from collections.abc import Iterator

from uvian_worker.gateway.http.problems import Problem


class Slots:
    """Counts those of this process: each costs a file, and memory for what waits for it."""

    def __init__(self, *, per_user: int, per_address: int) -> None:
        self._most = {"user": per_user, "address": per_address}
        self._taken: Counter[tuple[str, str]] = Counter()

    @contextlib.contextmanager
    def taken(self, user_id: str, address: str | None) -> Iterator[None]:
        """Take a slot for as long as this lasts; raises ``Problem`` (``too_many_sockets``).

        An ``address`` that is not known is not counted.
        """
        slots = [("user", user_id), *([("address", address)] if address else [])]
        for kind, name in slots:
            if self._taken[kind, name] >= self._most[kind]:
                raise Problem(
                    "too_many_sockets",
                    f"At most {self._most[kind]} are open at a time, of one {kind}.",
                )
        self._taken.update(slots)
        try:
            yield
        finally:
            for slot in slots:
                self._taken[slot] -= 1
                if not self._taken[slot]:
                    del self._taken[slot]
