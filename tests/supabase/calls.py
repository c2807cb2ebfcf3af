"""Calls of functions: which one is meant, and the statement that calls it."""

from __future__ import annotations

__all__ = ["call"]

from collections.abc import Sequence
from typing import Any, NoReturn

from tests.supabase.catalog import Catalog, Routine, identifier
from tests.supabase.errors import RestError


def call(
    catalog: Catalog, schema: str, name: str, body: Any, document: bytes
) -> tuple[Routine, str, Sequence[Any]]:
    """The function, the SQL that calls it, and its values: the keys of the body name the arguments."""
    names = frozenset(body) if isinstance(body, dict) else frozenset()
    routine = _only(
        schema, name, [r for r in catalog.routines.get((schema, name), ()) if r.accepts(names)]
    )
    if routine is None:
        _unknown(schema, name, sorted(names))
    given = [argument for argument in routine.arguments if argument.name in names]
    definitions = ", ".join(f"{identifier(a.name)} {a.type}" for a in given)
    arguments = ", ".join(f"{identifier(a.name)} := _a.{identifier(a.name)}" for a in given)
    source = f" from json_to_record($1::json) as _a ({definitions})" if given else ""
    called = f"(select {routine.sql}({arguments}) as v{source} offset 0) x"
    return (
        routine,
        f"select {_body(routine)}, 1::bigint, null::bigint from {called}",
        ([document] if given else []),
    )


def _body(routine: Routine) -> str:
    if routine.returns == "void":
        return "''"
    if routine.is_set:
        return "coalesce(json_agg(v), '[]')::text"
    return "coalesce(to_json(v)::text, 'null')"


def _only(schema: str, name: str, fitting: Sequence[Routine]) -> Routine | None:
    if len(fitting) <= 1:
        return fitting[0] if fitting else None
    message = f"Could not choose the best candidate function between several: {schema}.{name}"
    raise RestError(300, "PGRST203", message)


def _unknown(schema: str, name: str, given: Sequence[str]) -> NoReturn:
    signature = f"({', '.join(given)})" if given else " without parameters"
    message = f"Could not find the function {schema}.{name}{signature} in the schema cache"
    raise RestError(404, "PGRST202", message)
