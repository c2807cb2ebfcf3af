-- min_code: 0.1.0
-- The grants of this schema are those that its migrations name. Default privileges of the role that
-- owns it, made by a team for its own tables ("everything new is readable by analytics"), must not
-- hand out credits and job functions on the side.

-- Takes back what they gave. Every migration that creates something ends with it. What a team grants
-- by hand, to a role without such a default, stays.
create function uvian._close() returns void
language plpgsql
set search_path = ''
as $$
declare
  given record;
begin
  for given in
    with schema as (
      select n.oid, n.nspowner, n.nspname, n.nspacl from pg_namespace n where n.nspname = 'uvian'
    ), stranger as (
      select distinct a.grantee
      from schema n, pg_default_acl d, aclexplode(d.defaclacl) a
      where d.defaclrole = n.nspowner and d.defaclnamespace in (0, n.oid)
        and a.grantee <> 0 and a.grantee <> n.nspowner
        and pg_get_userbyid(a.grantee) not in ('anon', 'authenticated', 'service_role')
    ), object as (
      select 'schema' as kind, format('%I', n.nspname) as name, n.nspacl as acl from schema n
      union all
      select case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass::text, c.relacl
      from pg_class c, schema n where c.relnamespace = n.oid and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
      union all
      select 'routine', p.oid::regprocedure::text, p.proacl from pg_proc p, schema n where p.pronamespace = n.oid
      union all
      select 'type', format_type(t.oid, null), t.typacl from pg_type t, schema n where t.typnamespace = n.oid
    )
    select distinct o.kind, o.name, pg_get_userbyid(s.grantee) as role
    from object o, aclexplode(o.acl) a, stranger s where a.grantee = s.grantee
  loop
    execute format('revoke all on %s %s from %I', given.kind, given.name, given.role);
  end loop;
end $$;

revoke all on function uvian._close() from public, anon, authenticated, service_role;
select uvian._close();

notify pgrst, 'reload schema';
