-- The caller: service or user, by which door, and how its values are read. Rights on tables stand in tables/,
-- those on functions at the end of each file.

-- Whether the caller is the service rather than a signed-in user: whoever has the privileges of
-- service_role or of this schema's owner. Inside `security definer` functions current_user is the
-- owner, so the role that was set (PostgREST sets it for every request) or, without one, the login
-- decides. Claims do not: a session that forgot them must not become the service.
create or replace function uvian._is_service() returns boolean
language sql stable
set search_path = ''
as $$
  select pg_has_role(caller.role::name, 'service_role', 'usage') or pg_has_role(caller.role::name, n.nspowner, 'usage')
  from (select coalesce(nullif(current_setting('role', true), 'none'), session_user::text) as role) caller,
       pg_namespace n
  where n.nspname = 'uvian'
$$;

-- The user on whose behalf the caller acts; null means the operator.
create or replace function uvian._caller(of_user uuid) returns uuid
language plpgsql stable
set search_path = ''
as $$
declare
  caller uuid := auth.uid();
begin
  if uvian._is_service() then
    return of_user;
  end if;
  if caller is null then
    raise exception using errcode = 'PT401', message = 'unauthorized', detail = 'Sign in first.';
  end if;
  return caller;
end $$;

-- By which door the caller comes: see _against. The service comes by none, and may say by which its own
-- caller has come; a user cannot choose.
create or replace function uvian._door(said text) returns text
language plpgsql stable
set search_path = ''
as $$
begin
  if uvian._is_service() then
    return said;
  end if;
  return case when coalesce((auth.jwt() ->> 'is_anonymous')::boolean, false) then 'anonymous' else 'browser' end;
end $$;

-- Raises a refusal, if it is one: {code, …}, as create_jobs answers it; what is more than a sentence as JSON.
create or replace function uvian._raise(refusal jsonb) returns void
language plpgsql immutable
set search_path = ''
as $$
declare
  code text := refusal ->> 'code';
begin
  if code is not null then
    raise exception using
      errcode = case code when 'insufficient_credits' then 'PT402' when 'type_not_open' then 'PT403'
                          when 'not_found' then 'PT404' when 'idempotency_conflict' then 'PT409'
                          when 'input_too_large' then 'PT413' when 'too_many_queued' then 'PT429' else 'PT422' end,
      message = code, detail = case when refusal - 'code' - 'message' = '{}' and refusal ? 'message'
                                    then refusal ->> 'message' else refusal::text end;
  end if;
end $$;

-- Parses a UUID; null if the text is not one.
create or replace function uvian._uuid(of_text text) returns uuid
language plpgsql immutable
set search_path = ''
as $$
begin
  return case when of_text ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then of_text::uuid end;
end $$;

-- A moment in time: the date, the time of day, and its offset from UTC. Without that the session's time zone
-- would be taken, which is nobody's intention.
create or replace function uvian._is_moment(of_text text) returns boolean
language sql immutable
set search_path = ''
as $$
  select of_text ~* '^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)$'
$$;

-- The grants of this schema are those that its files name. Default privileges of the role that owns it, made
-- by a team for its own tables ("everything new is readable by analytics"), must not hand out credits and job
-- functions on the side. So whatever creates something ends with this, which takes back what they gave. What
-- a team grants itself, to a role without such a default, stays.
create or replace function uvian._close() returns void
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

revoke all on function
  uvian._is_service(), uvian._caller(uuid), uvian._door(text), uvian._raise(jsonb), uvian._uuid(text),
  uvian._is_moment(text), uvian._close()
  from public, anon, authenticated, service_role;

select uvian._close();
notify pgrst, 'reload schema';
