"""The schema cache: the tables and functions of the exposed schemas, read from the catalog."""

from __future__ import annotations

__all__ = ["Argument", "Catalog", "Routine", "Table", "identifier"]

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.supabase.pool import Pool
from tests.supabase.wire import Step


def identifier(name: str) -> str:
    """A name as SQL reads it, whatever it contains."""
    return '"' + name.replace("\0", "").replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view."""

    schema: str
    name: str
    columns: Mapping[str, str]  #: the type of each

    @property
    def sql(self) -> str:
        """Its qualified name."""
        return f"{identifier(self.schema)}.{identifier(self.name)}"


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument that a function takes."""

    name: str
    type: str
    required: bool


@dataclass(frozen=True, slots=True)
class Routine:
    """One function; functions that share a name are several."""

    schema: str
    name: str
    arguments: Sequence[Argument]
    returns: str  #: its type, as text
    is_set: bool

    @property
    def sql(self) -> str:
        """Its qualified name."""
        return f"{identifier(self.schema)}.{identifier(self.name)}"

    def accepts(self, names: frozenset[str]) -> bool:
        """Whether it can be called with exactly these arguments."""
        known = {argument.name for argument in self.arguments}
        return names <= known and all(
            argument.name in names for argument in self.arguments if argument.required
        )


class Catalog:
    """What the exposed schemas have."""

    def __init__(
        self,
        tables: Sequence[Table],
        routines: Sequence[Routine],
        settings: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.tables = {(table.schema, table.name): table for table in tables}
        self.routines: dict[tuple[str, str], list[Routine]] = {}
        for routine in routines:
            self.routines.setdefault((routine.schema, routine.name), []).append(routine)
        self.settings = settings  #: by role: its own settings, which PostgREST applies

    @classmethod
    async def load(cls, pool: Pool, schemas: Sequence[str]) -> Catalog:
        """Read it; raises what the pool raises."""
        tables, routines, settings = await pool.read(
            [Step(_TABLES, [list(schemas)]), Step(_ROUTINES, [list(schemas)]), Step(_ROLE_SETTINGS)]
        )
        return cls(
            [_table(json.loads(row[0] or b"")) for row in tables],
            [_routine(json.loads(row[0] or b"")) for row in routines],
            {
                str(s["role"]): s["settings"]
                for s in (json.loads(row[0] or b"") for row in settings)
            },
        )


def _table(row: dict[str, Any]) -> Table:
    columns = {column["name"]: column["type"] for column in row["columns"]}
    return Table(row["schema"], row["name"], columns)


def _routine(row: dict[str, Any]) -> Routine:
    inputs = [a for a in row["arguments"] if a["mode"] in ("i", "b", "v")]
    first_default = len(inputs) - row["defaults"]
    return Routine(
        schema=row["schema"],
        name=row["name"],
        arguments=[
            Argument(a["name"], a["type"], position < first_default)
            for position, a in enumerate(inputs)
        ],
        returns=row["returns"],
        is_set=row["is_set"],
    )


_TABLES = """
select json_build_object(
  'schema', n.nspname, 'name', c.relname,
  'columns', coalesce((
    select json_agg(json_build_object(
      'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod)) order by a.attnum)
    from pg_attribute a
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]')
)::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = any($1::text[]) and c.relkind in ('r', 'v', 'm', 'f', 'p')
"""

_ROUTINES = """
select json_build_object(
  'schema', n.nspname, 'name', p.proname, 'defaults', p.pronargdefaults,
  'returns', format_type(p.prorettype, null),
  'is_set', p.proretset,
  'arguments', coalesce((
    select json_agg(json_build_object(
      'name', coalesce(x.name, ''), 'type', format_type(x.type, null), 'mode', coalesce(x.mode, 'i')
    ) order by x.n)
    from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargnames, p.proargmodes::text[])
      with ordinality x (type, name, mode, n)
    where x.type is not null), '[]')
)::text
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
where n.nspname = any($1::text[]) and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype
"""

#: PostgREST applies a role's own settings itself: `set role` does not.
_ROLE_SETTINGS = """
select json_build_object('role', r.rolname, 'settings', json_object_agg(
  split_part(s.setting, '=', 1), substr(s.setting, strpos(s.setting, '=') + 1)))::text
from pg_db_role_setting d join pg_roles r on r.oid = d.setrole, unnest(d.setconfig) s (setting)
where d.setdatabase = 0 and pg_has_role(session_user, r.oid, 'member') and r.rolname <> session_user
group by r.rolname
"""
