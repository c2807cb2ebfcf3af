"""One question to a vendor that answers later, as a job asks it: what is kept, told, and left."""

from __future__ import annotations

__all__ = ["Asking"]

from executors.errors import LeaseLost
from executors.providers.base import VendorRequest


class Asking:
    """The job's side; ``kept`` is what a next run would find."""

    def __init__(self, kept: str = "") -> None:
        self.saved = kept
        self.history: list[str] = []
        self.told: list[str] = []
        self.comes_back = False
        self.lost = False

    @property
    def request(self) -> VendorRequest:
        """As a run hands it on."""
        return VendorRequest(
            id=self.saved or None,
            save=self._keep,
            report=self.told.append,
            comes_back=lambda: self.comes_back,
        )

    async def _keep(self, id_: str) -> None:
        if self.lost:
            raise LeaseLost
        self.saved = id_
        self.history.append(id_)
