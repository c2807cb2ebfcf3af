"""FAL's queue."""

from __future__ import annotations
