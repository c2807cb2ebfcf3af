-- What Supabase brings, for a plain Postgres: `uvian dev`, `uvian demo`, the tests, and teams that
-- host Postgres themselves. Run by a superuser, before the migrations; running it again is fine.
-- On a real Supabase project there is nothing to do here, and this file refuses to run.
--
-- It starts as strict as a project made after 30 October 2026: nothing is granted automatically.
-- `set uvian.old_defaults = on` before it gives the default privileges of older and self-hosted
-- projects instead, where every new object belongs to everybody until it is revoked, and
-- `set uvian.storage_policies = off` a platform where buckets and policies are the dashboard's alone.

do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'supabase_admin') then
    raise exception 'this is a Supabase project: it has all that the bootstrap brings'
      using errcode = 'UV001';
  end if;
end $$;

-- Roles (they belong to the whole server; another database's bootstrap may be creating them now) ---

do $$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      ('anon', 'nologin'),
      ('authenticated', 'nologin'),
      ('service_role', 'nologin bypassrls'),
      ('authenticator', 'login noinherit'),
      -- own the schemas of the platform, so that the migrator does not
      ('supabase_auth_admin', 'nologin noinherit'),
      ('supabase_storage_admin', 'nologin noinherit'),
      -- runs the migrations, as `postgres` does on Supabase: no superuser, or nobody here would see
      -- the permission errors of a customer
      ('uvian_migrator', 'login nosuperuser nocreatedb nocreaterole nobypassrls')
    ) as roles (name, attributes)
  loop
    begin
      execute format('create role %I %s', wanted.name, wanted.attributes);
    exception when duplicate_object or unique_violation then
      null;
    end;
  end loop;
end $$;

grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to uvian_migrator;

-- The statement timeouts of the platform; written only once, because concurrent changes of one role
-- from two databases collide.
do $$
declare
  wanted record;
begin
  for wanted in
    select * from (values ('anon', '3s'), ('authenticated', '8s'), ('authenticator', '8s'))
      as timeouts (role, timeout)
  loop
    if not exists (
      select from pg_catalog.pg_db_role_setting
      where setrole = wanted.role::regrole and setdatabase = 0
    ) then
      execute format('alter role %I set statement_timeout = %L', wanted.role, wanted.timeout);
    end if;
  end loop;
end $$;

do $$
begin
  execute format('grant connect, create on database %I to uvian_migrator', current_database());
end $$;

grant usage on schema public to anon, authenticated, service_role, uvian_migrator;

-- auth ---------------------------------------------------------------------------------------------

create schema if not exists auth authorization supabase_auth_admin;

create table if not exists auth.users (
  id uuid primary key default gen_random_uuid(),
  instance_id uuid,
  aud varchar(255) default 'authenticated',
  role varchar(255) default 'authenticated',
  email varchar(255) unique,
  raw_app_meta_data jsonb,
  raw_user_meta_data jsonb,
  is_anonymous boolean not null default false,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  deleted_at timestamptz
);
alter table auth.users owner to supabase_auth_admin;

-- Supabase's PostgREST sets `request.jwt.claims`; versions before 9 set one setting per claim.
create or replace function auth.uid() returns uuid
  language sql stable set search_path = ''
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
  )::uuid
$$;

create or replace function auth.role() returns text
  language sql stable set search_path = ''
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
  )
$$;

create or replace function auth.email() returns text
  language sql stable set search_path = ''
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.email', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
  )
$$;

create or replace function auth.jwt() returns jsonb
  language sql stable set search_path = ''
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb
$$;

alter function auth.uid() owner to supabase_auth_admin;
alter function auth.role() owner to supabase_auth_admin;
alter function auth.email() owner to supabase_auth_admin;
alter function auth.jwt() owner to supabase_auth_admin;

grant usage on schema auth to anon, authenticated, service_role, uvian_migrator;
grant select, references on auth.users to uvian_migrator;

-- storage: just enough for the statements about buckets and policies ---------------------------------

create schema if not exists storage authorization supabase_storage_admin;

create table if not exists storage.buckets (
  id text primary key,
  name text not null unique,
  owner uuid,
  owner_id text,
  public boolean default false,
  avif_autodetection boolean default false,
  file_size_limit bigint,
  allowed_mime_types text[],
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);

create table if not exists storage.objects (
  id uuid primary key default gen_random_uuid(),
  bucket_id text references storage.buckets (id),
  name text,
  owner uuid,
  owner_id text,
  metadata jsonb,
  user_metadata jsonb,
  version text,
  path_tokens text[] generated always as (string_to_array(name, '/')) stored,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  last_accessed_at timestamptz default now(),
  unique (bucket_id, name)
);

-- On Supabase `postgres` makes buckets and policies here without owning the tables: it bypasses row
-- level security, and the platform lets it `create policy`. Only an owner can do so in a plain
-- Postgres. (Which lets it alter the tables too: what Supabase refuses shows with the setting off.)
do $$
declare
  owner constant text := case when coalesce(nullif(current_setting('uvian.storage_policies', true), ''), 'on')::boolean
                         then 'uvian_migrator' else 'supabase_storage_admin' end;
begin
  execute format('alter table storage.buckets owner to %I', owner);
  execute format('alter table storage.objects owner to %I', owner);
end $$;
alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;

create or replace function storage.foldername(name text) returns text[]
  language sql immutable set search_path = ''
as $$
  select (string_to_array(name, '/'))[1 : array_length(string_to_array(name, '/'), 1) - 1]
$$;

create or replace function storage.filename(name text) returns text
  language sql immutable set search_path = ''
as $$
  select (string_to_array(name, '/'))[array_length(string_to_array(name, '/'), 1)]
$$;

create or replace function storage.extension(name text) returns text
  language sql immutable set search_path = ''
as $$
  select reverse(split_part(reverse(storage.filename(name)), '.', 1))
$$;

alter function storage.foldername(text) owner to supabase_storage_admin;
alter function storage.filename(text) owner to supabase_storage_admin;
alter function storage.extension(text) owner to supabase_storage_admin;

-- Rows may be written by whom the policies let.
grant usage on schema storage to anon, authenticated, service_role, uvian_migrator;
grant select, insert, update, delete on storage.buckets, storage.objects
  to anon, authenticated, service_role, uvian_migrator;

-- Realtime -----------------------------------------------------------------------------------------

do $$
begin
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
    alter publication supabase_realtime owner to uvian_migrator;
  end if;
end $$;

-- Default privileges -------------------------------------------------------------------------------

do $$
declare
  old_defaults constant boolean := coalesce(
    nullif(current_setting('uvian.old_defaults', true), ''), 'off')::boolean;
  verb constant text := case when old_defaults then 'grant all on %s to' else 'revoke all on %s from' end;
  kind text;
begin
  -- In every schema, where Supabase had it in `public` alone: whoever withstands this withstands that.
  foreach kind in array array['tables', 'sequences', 'functions', 'schemas'] loop
    execute 'alter default privileges for role uvian_migrator '
      || format(verb, kind) || ' anon, authenticated, service_role';
  end loop;
end $$;
