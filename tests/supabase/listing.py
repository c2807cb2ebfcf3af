"""``POST /object/list/<bucket>``: names with slashes, shown as folders and files."""

from __future__ import annotations

__all__ = ["listed"]

from collections.abc import Mapping, Sequence
from typing import Any

from tests.supabase.objects import StoredObject

_SHOWN = ("id", "updated_at", "created_at", "last_accessed_at", "metadata")


def listed(
    below: Sequence[StoredObject], prefix: str, wanted: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The entries of one folder, a page of them; folders have a name and nothing else."""
    search = str(wanted.get("search") or "").lower()
    entries: dict[str, dict[str, Any]] = {}
    for one in below:
        name, slash, _ = one.name.removeprefix(prefix).partition("/")
        if search in name.lower():
            entries[name] = {"name": name} | {
                key: None if slash else one.row[key] for key in _SHOWN
            }
    sort = wanted.get("sortBy") or {}
    column = sort.get("column", "name")
    ordered = sorted(
        entries.values(),
        key=lambda entry: str(entry.get(column) or ""),
        reverse=sort.get("order") == "desc",
    )
    offset = int(wanted.get("offset") or 0)
    return ordered[offset : offset + int(wanted.get("limit") or 100)]
