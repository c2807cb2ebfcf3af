"""What a database has, read from its catalog: ours apart from everybody else's."""

from __future__ import annotations

__all__ = ["Dump", "described", "history", "ours", "read_description", "theirs", "written"]

import re
from typing import Any, Final, TypeAlias

import asyncpg

#: By kind: the rows of the catalog, sorted, in words that do not depend on object ids.
Dump: TypeAlias = dict[str, list[tuple[Any, ...]]]

_ACL = "array(select unnest({})::text order by 1)"

#: Every query sees ``n`` (the namespace) and is cut by ``{which}``.
_OBJECTS = {
    "schemas": f"""
        select n.nspname, pg_get_userbyid(n.nspowner), {_ACL.format("n.nspacl")},
               obj_description(n.oid, 'pg_namespace')
        from pg_namespace n where {{which}}""",
    "relations": f"""
        select n.nspname, c.relname, c.relkind::text, pg_get_userbyid(c.relowner),
               {_ACL.format("c.relacl")}, c.relrowsecurity, c.relforcerowsecurity, c.relreplident::text,
               c.reloptions, c.relpersistence::text, obj_description(c.oid, 'pg_class'),
               case when c.relkind in ('v', 'm') then pg_get_viewdef(c.oid) end
        from pg_class c join pg_namespace n on n.oid = c.relnamespace where {{which}}""",
    "columns": f"""
        select n.nspname, c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
               a.attnotnull, a.attidentity::text, a.attgenerated::text, a.attstorage::text,
               {_ACL.format("a.attacl")}, pg_get_expr(d.adbin, d.adrelid),
               col_description(c.oid, a.attnum)
        from pg_attribute a join pg_class c on c.oid = a.attrelid
        join pg_namespace n on n.oid = c.relnamespace
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attnum > 0 and not a.attisdropped and {{which}}""",
    "constraints": """
        select n.nspname, c.conrelid::regclass::text, c.conname, pg_get_constraintdef(c.oid),
               c.convalidated
        from pg_constraint c join pg_namespace n on n.oid = c.connamespace where {which}""",
    "indexes": """
        select n.nspname, c.relname, pg_get_indexdef(i.indexrelid), i.indisvalid
        from pg_index i join pg_class c on c.oid = i.indexrelid
        join pg_namespace n on n.oid = c.relnamespace where {which}""",
    "functions": f"""
        select n.nspname, p.oid::regprocedure::text, pg_get_functiondef(p.oid),
               pg_get_userbyid(p.proowner), {_ACL.format("p.proacl")}, obj_description(p.oid, 'pg_proc')
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where p.prokind in ('f', 'p') and {{which}}""",
    "triggers": """
        select n.nspname, c.relname, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled::text
        from pg_trigger t join pg_class c on c.oid = t.tgrelid
        join pg_namespace n on n.oid = c.relnamespace where not t.tgisinternal and {which}""",
    "policies": """
        select n.nspname, p.tablename, p.policyname, p.permissive, p.roles::text[], p.cmd, p.qual,
               p.with_check
        from pg_policies p join pg_namespace n on n.nspname = p.schemaname
        where {which}""",
    "types": f"""
        select n.nspname, t.typname, t.typtype::text, pg_get_userbyid(t.typowner),
               {_ACL.format("t.typacl")},
               array(select e.enumlabel::text from pg_enum e where e.enumtypid = t.oid
                     order by e.enumsortorder)
        from pg_type t join pg_namespace n on n.oid = t.typnamespace where {{which}}""",
    "sequences": """
        select n.nspname, s.sequencename, s.data_type::text, s.start_value, s.increment_by, s.cycle
        from pg_sequences s join pg_namespace n on n.nspname = s.schemaname where {which}""",
    "published": """
        select p.pubname, n.nspname, p.tablename, p.attnames::text[], p.rowfilter
        from pg_publication_tables p join pg_namespace n on n.nspname = p.schemaname where {which}""",
    "default privileges": f"""
        select pg_get_userbyid(d.defaclrole), n.nspname, d.defaclobjtype::text,
               {_ACL.format("d.defaclacl")}
        from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace
        where {{which}}""",
}

_ELSEWHERE = {
    "publications": """
        select pubname, pg_get_userbyid(pubowner), puballtables, pubinsert, pubupdate, pubdelete,
               pubtruncate, pubviaroot from pg_publication""",
    "published schemas": """
        select p.pubname, s.pnnspid::regnamespace::text
        from pg_publication_namespace s join pg_publication p on p.oid = s.pnpubid""",
    "event triggers": """
        select evtname, evtevent, evtfoid::regprocedure::text, evtenabled::text, evttags
        from pg_event_trigger""",
    "extensions": """
        select extname, extversion, extnamespace::regnamespace::text from pg_extension""",
    "settings": """
        select s.setrole::regrole::text, s.setconfig from pg_db_role_setting s
        where s.setdatabase = (select oid from pg_database where datname = current_database())""",
}

_OURS = "n.nspname = 'uvian'"
_OUR_NAME = "starts_with(p.policyname, 'uvian_')"  # in schemas of the platform
_THEIRS = (
    "(n.nspname is null or n.nspname not in ('uvian', 'information_schema') "
    "and not starts_with(n.nspname, 'pg_'))"
)


async def ours(dsn: str, *, published: bool = False) -> Dump:
    """Everything in ``uvian``, its first rows too; which publications have its tables if asked."""
    connection = await asyncpg.connect(dsn)
    try:
        dump = await _objects(connection, _OURS, policies=f"({_OURS} or {_OUR_NAME})")
        dump["types of jobs"] = await _sorted(
            connection, "select t.type, to_jsonb(t)::text from uvian.job_types t"
        )
    finally:
        await connection.close()
    if not published:
        del dump["published"]
    return dump


async def theirs(dsn: str, *, without_rows_of: str = "") -> Dump:
    """Everything else, rows included; what is ours in ``storage`` has our prefix and is left out."""
    connection = await asyncpg.connect(dsn)
    try:
        dump = await _objects(connection, _THEIRS, policies=f"{_THEIRS} and not {_OUR_NAME}")
        for kind, query in _ELSEWHERE.items():
            dump[kind] = await _sorted(connection, query)
        for schema, name, kind, *_ in dump["relations"]:
            table = f"{schema}.{name}"
            if kind == "r" and table != without_rows_of:
                query = f"select t::text from {table} t where not starts_with(t::text, '(uvian-')"
                dump[f"rows of {table}"] = await _sorted(connection, query)
    finally:
        await connection.close()
    return dump


async def history(dsn: str) -> list[tuple[Any, ...]]:
    """Our history, but for the times."""
    connection = await asyncpg.connect(dsn)
    try:
        return await _sorted(
            connection,
            "select name, version, checksum, min_code, release from uvian.schema_migrations",
        )
    finally:
        await connection.close()


async def _objects(connection: asyncpg.Connection[Any], which: str, *, policies: str) -> Dump:
    return {
        kind: await _sorted(
            connection, query.format(which=policies if kind == "policies" else which)
        )
        for kind, query in _OBJECTS.items()
    }


async def _sorted(connection: asyncpg.Connection[Any], query: str) -> list[tuple[Any, ...]]:
    rows = [
        tuple(tuple(value) if isinstance(value, list) else value for value in row)
        for row in await connection.fetch(query)
    ]
    return sorted(rows, key=repr)


def described(dump: Dump) -> dict[str, str]:
    """Each object under its name: ``function uvian._uuid(text)`` → all that the catalog says of it.

    Left out is what a version of Postgres adds by itself: the row and array types of tables, not-null
    constraints (the columns say it) and the privilege MAINTAIN.
    """
    objects = {}
    for kind, names, describe in _DESCRIBED:
        for row in dump.get(kind, ()):
            if text := describe(row):
                objects[" ".join((_SINGULAR[kind], *(str(row[n]) for n in names)))] = text
    return objects


def written(objects: dict[str, str]) -> str:
    """A description as a file that people read and compare."""
    return "".join(f"── {name}\n{text}\n\n" for name, text in sorted(objects.items()))


def read_description(text: str) -> dict[str, str]:
    """What ``written`` wrote."""
    parts = re.split(r"^── (.+)\n", text, flags=re.MULTILINE)[1:]
    return {name: body.rstrip("\n") for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _granted(acl: tuple[str, ...] | None) -> str:
    """Who may do what, as ``role: letters``; the owner's default is written out once anything was revoked."""
    given = (entry.partition("/")[0].partition("=") for entry in acl or ())
    return "grants: " + (
        ", ".join(f"{role or 'public'}: {letters.replace('m', '')}" for role, _, letters in given)
        or "as they come"
    )


def _relation(row: tuple[Any, ...]) -> str:
    _, _, kind, owner, acl, secured, forced, identity, options, persistence, comment, view = row
    if kind in "iI":  # stands among the indexes
        return ""
    return (
        f"kind {kind}, owner {owner}, row level security {secured}, forced {forced}, "
        f"replica identity {identity}, persistence {persistence}\noptions: {options}, "
        f"comment: {comment}{f', view: {view}' if view else ''}\n{_granted(acl)}"
    )


def _column(row: tuple[Any, ...]) -> str:
    _, _, number, _, type_, notnull, identity, generated, storage, acl, default, comment = row
    generated = f" generated {generated}" if generated else ""
    identity = f" identity {identity}" if identity else ""
    return (
        f"{number}: {type_}{' not null' if notnull else ''}{f' default {default}' if default else ''}"
        f"{identity}{generated}, storage {storage}, comment {comment}{f', {_granted(acl)}' if acl else ''}"
    )


def _type(row: tuple[Any, ...]) -> str:
    _, name, kind, owner, acl, labels = row
    if kind == "b" or (kind == "c" and not name.startswith("_")):  # came with a table
        return ""
    return f"kind {kind}, owner {owner}, labels {labels}\n{_granted(acl)}"


def _plain(*parts: int) -> Any:
    return lambda row: "\n".join(str(row[part]) for part in parts)


#: kind, what names an object, what is said of it
_DESCRIBED: Final[list[tuple[str, tuple[int, ...], Any]]] = [
    ("schemas", (0,), lambda row: f"owner {row[1]}, comment: {row[3]}\n{_granted(row[2])}"),
    ("relations", (0, 1), _relation),
    ("columns", (0, 1, 3), _column),
    (
        "constraints",
        (1, 2),
        lambda row: "" if row[3].startswith("NOT NULL") else f"{row[3]}, valid {row[4]}",
    ),
    ("indexes", (0, 1), _plain(2, 3)),
    (
        "functions",
        (1,),
        lambda row: f"{row[2].rstrip()}\nowner {row[3]}, comment: {row[5]}\n{_granted(row[4])}",
    ),
    ("triggers", (0, 1, 2), _plain(3, 4)),
    ("policies", (0, 1, 2), _plain(3, 4, 5, 6, 7)),
    ("types", (0, 1), _type),
    ("sequences", (0, 1), _plain(2, 3, 4, 5)),
    ("published", (0, 1, 2), _plain(3, 4)),
    ("default privileges", (0, 1, 2), lambda row: _granted(row[3])),
    ("types of jobs", (0,), _plain(1)),
]
_SINGULAR: Final = {
    "schemas": "schema",
    "relations": "relation",
    "columns": "column",
    "constraints": "constraint",
    "indexes": "index",
    "functions": "function",
    "triggers": "trigger",
    "policies": "policy",
    "types": "type",
    "sequences": "sequence",
    "published": "published in",
    "default privileges": "default privileges of",
    "types of jobs": "row of job_types",
}
