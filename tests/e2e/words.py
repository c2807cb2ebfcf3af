"""Words that make the models of these tests do what a vendor does now and then."""

from __future__ import annotations

from typing import Final

__all__ = ["FORBIDDEN", "SLOW"]

FORBIDDEN: Final = "forbidden"  #: refused, by whoever paints or answers
SLOW: Final = "slowly"  #: painted for a minute
