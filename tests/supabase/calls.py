"""Calls of functions: which one is meant, and the statement that calls it."""

from __future__ import annotations

__all__ = ["Call", "by_body", "by_query"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tests.supabase.catalog import Argument, Catalog, Routine, closest, identifier
from tests.supabase.errors import RestError
from tests.supabase.query import Parameters, Query


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments: SQL for both, and the values."""

    routine: Routine
    source: str  #: what the arguments are selected from, empty or ending in ", "
    arguments: str
    names: frozenset[str]
    parameters: Parameters

    @property
    def returns_rows(self) -> bool:
        """Whether its answer is an array of objects."""
        return bool(self.routine.columns) and self.routine.is_set

    def statement(
        self, pairs: Sequence[tuple[str, str]], max_rows: int, *, count: bool
    ) -> tuple[str, int]:
        """The SQL, and the offset of its first row."""
        routine, call = self.routine, f"{self.routine.sql}({self.arguments})"
        if not routine.columns and not routine.is_set:
            body = "''" if routine.returns == "void" else "coalesce(to_json(v)::text, 'null')"
            source = f" from {self.source[:-2]}" if self.source else ""
            return (
                f"select {body}, 1::bigint, null::bigint from (select {call} as v{source} offset 0) x",
                0,
            )
        query = Query(routine.name, routine.columns, pairs)
        if not routine.columns:
            offset, limit = query.window(max_rows)
            return (
                f"select coalesce(json_agg(v), '[]')::text, count(*), null::bigint "
                f"from (select v from {self.source}{call} v "
                f"limit {self.parameters.add(limit)} offset {self.parameters.add(offset)}) x"
            ), offset
        return self._rows(query, call, max_rows, count=count)

    def _rows(self, query: Query, call: str, max_rows: int, *, count: bool) -> tuple[str, int]:
        offset, limit = query.window(max_rows)
        where = query.where(self.parameters, ignoring=list(self.names))
        total = "(select count(*) from called t)" if count else "null::bigint"
        first = "" if self.routine.is_set else "->0"
        return (
            f"with called as (select t.* from {self.source}{call} t{where}) "
            f"select coalesce(json_agg(_pgrst_t){first}, '{'[]' if self.routine.is_set else 'null'}')::text, "
            f"count(*), {total} from (select {query.selection()} from called t{query.order()} "
            f"limit {self.parameters.add(limit)} offset {self.parameters.add(offset)}) _pgrst_t"
        ), offset


def by_body(catalog: Catalog, schema: str, name: str, body: Any, document: bytes) -> Call:
    """A POST: the keys of the body are the names of the arguments."""
    routines = catalog.routines.get((schema, name), [])
    names = frozenset(body) if isinstance(body, dict) else frozenset()
    fitting = [r for r in routines if r.accepts(names)] if isinstance(body, dict) else []
    if not fitting:
        whole = [routine for routine in routines if routine.takes_a_document]
        if len(whole) == 1:
            kind = whole[0].arguments[0].type
            return Call(whole[0], "", f"$1::{kind}", frozenset(), Parameters([document]))
    routine = _only(fitting) or _unknown(catalog, schema, name, sorted(names))
    if not names:
        return Call(routine, "", "", names, Parameters())
    given = [argument for argument in routine.arguments if argument.name in names]
    definitions = ", ".join(f"{identifier(a.name)} {a.type}" for a in given)
    arguments = ", ".join(_named(a, f"_a.{identifier(a.name)}") for a in given)
    source = f"json_to_record($1::json) as _a ({definitions}), "
    return Call(routine, source, arguments, names, Parameters([document]))


def by_query(catalog: Catalog, schema: str, name: str, pairs: Sequence[tuple[str, str]]) -> Call:
    """A GET: whatever is the name of an argument is one, the rest are filters."""
    routines = catalog.routines.get((schema, name), [])
    known = {argument.name for routine in routines for argument in routine.arguments}
    given = {key: value for key, value in pairs if key in known}
    fitting = [routine for routine in routines if routine.accepts(frozenset(given))]
    routine = _only(fitting) or _unknown(catalog, schema, name, sorted(given))
    parameters = Parameters()
    arguments = ", ".join(
        _named(a, f"{parameters.add(given[a.name])}::{a.type}")
        for a in routine.arguments
        if a.name in given
    )
    return Call(routine, "", arguments, frozenset(given), parameters)


def _named(argument: Argument, value: str) -> str:
    return f"{'variadic ' if argument.variadic else ''}{identifier(argument.name)} := {value}"


def _only(fitting: Sequence[Routine]) -> Routine | None:
    if len(fitting) <= 1:
        return fitting[0] if fitting else None
    candidates = ", ".join(
        f"{r.schema}.{r.name}({', '.join(f'{a.name} => {a.type}' for a in r.arguments)})"
        for r in fitting
    )
    raise RestError(
        300,
        "PGRST203",
        f"Could not choose the best candidate function between: {candidates}",
        None,
        "Try renaming the parameters or the function itself in the database so function "
        "overloading can be resolved",
    )


def _unknown(catalog: Catalog, schema: str, name: str, given: Sequence[str]) -> NoReturn:
    names = ", ".join(given)
    signature = f"({names})" if given else " without parameters"
    searched = f" with parameter{'s' if len(given) > 1 else ''} {names}" if given else signature
    raise RestError(
        404,
        "PGRST202",
        f"Could not find the function {schema}.{name}{signature} in the schema cache",
        f"Searched for the function {schema}.{name}{searched} or with a single unnamed json/jsonb "
        "parameter, but no matches were found in the schema cache.",
        _hint(catalog, schema, name, f"({names})"),
    )


def _hint(catalog: Catalog, schema: str, name: str, signature: str) -> str | None:
    overloads = catalog.routines.get((schema, name))
    if overloads:
        signatures = (f"({', '.join(sorted(a.name for a in r.arguments))})" for r in overloads)
        close = closest(signature, signatures, cutoff=0.33)
        meant = f"{name}{close}" if close else None
    else:
        meant = closest(name, (known for where, known in catalog.routines if where == schema))
    return f"Perhaps you meant to call the function {schema}.{meant}" if meant else None
