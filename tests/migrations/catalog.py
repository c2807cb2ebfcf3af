"""What a database has, read from its catalog: ours apart from everybody else's."""

from __future__ import annotations

__all__ = ["Dump", "ledger", "ours", "theirs"]

from typing import Any, TypeAlias

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
            connection, "select to_jsonb(t)::text from uvian.job_types t"
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


async def ledger(dsn: str) -> list[tuple[Any, ...]]:
    """Our ledger, but for the times."""
    connection = await asyncpg.connect(dsn)
    try:
        return await _sorted(
            connection, "select version, name, checksum, min_code from uvian.schema_migrations"
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
