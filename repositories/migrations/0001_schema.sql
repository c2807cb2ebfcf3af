-- min_code: 0.1.0
-- The schema, its ledger, and who may look inside at all.

create schema uvian;
comment on schema uvian is 'uvian-worker: jobs, credits, concepts. State moves only in functions.';

revoke all on schema uvian from public, anon, authenticated, service_role;
grant usage on schema uvian to anon, authenticated, service_role;

create table uvian.schema_migrations (
  version bigint primary key,
  name text not null,
  checksum text not null,
  applied_at timestamptz not null default now(),
  min_code text not null  -- the oldest release that still works on this schema
);
alter table uvian.schema_migrations enable row level security;
revoke all on uvian.schema_migrations from public, anon, authenticated, service_role;
grant select on uvian.schema_migrations to service_role;

-- Whether the caller is the service rather than a signed-in user: whoever has the privileges of
-- service_role or of this schema's owner. Inside `security definer` functions current_user is the
-- owner, so the role that was set (PostgREST sets it for every request) or, without one, the login
-- decides. Claims do not: a session that forgot them must not become the service.
create function uvian._is_service() returns boolean
language sql stable
set search_path = ''
as $$
  select pg_has_role(caller.role::name, 'service_role', 'usage') or pg_has_role(caller.role::name, n.nspowner, 'usage')
  from (select coalesce(nullif(current_setting('role', true), 'none'), session_user::text) as role) caller,
       pg_namespace n
  where n.nspname = 'uvian'
$$;

revoke all on function uvian._is_service() from public, anon, authenticated, service_role;

notify pgrst, 'reload schema';
