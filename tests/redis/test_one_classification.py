"""What an error of Redis means is decided in one room."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Roots of redis-py's tree of errors: who names one of them classifies nothing.
ROOTS = {"RedisError", "ResponseError", "ConnectionError"}
#: Where redis-py's errors become ours, and what works around arq.
HOME = ("uvian_worker/redis/",)


def _named(tree: ast.AST) -> set[str]:
    """Classes of ``redis.exceptions`` that a module names."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "redis.exceptions":
            found |= {each.name for each in node.names}
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "exceptions"
        ):
            found.add(node.attr)
    return found


def test_no_other_room_tells_errors_of_redis_apart() -> None:
    """A state of Redis (READONLY, OOM, LOADING, …) is named in ``uvian_worker/redis`` alone."""
    elsewhere = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / "uvian_worker").rglob("*.py")
        if not path.relative_to(ROOT).as_posix().startswith(HOME)
        for name in _named(ast.parse(path.read_text("utf-8"))) - ROOTS
    }
    assert elsewhere == set()
