"""Checks that ``executors`` and ``repositories`` are ours: other distributions have such packages too."""

from __future__ import annotations

__all__ = ["require_own_packages"]

from importlib.util import find_spec
from pathlib import Path


def require_own_packages() -> None:
    """Raise ``ImportError`` when Python would import somebody else's package in place of ours.

    The four packages are installed side by side. arq appends the working directory to the path, and an
    editable install appends too: so another installed package of the same name comes first.
    """
    home = Path(__file__).resolve().parents[2]
    for name in ("executors", "repositories"):
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if found is None or found.parents[1] != home:
            where = found.parent if found is not None else "nowhere"
            raise ImportError(
                f"the package {name!r} of uvian-worker should be in {home}, but Python finds it in "
                f"{where}. Give the worker an environment of its own, without other packages "
                "called 'executors' or 'repositories'."
            )
