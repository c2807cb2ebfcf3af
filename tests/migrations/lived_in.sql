-- A project that was there long before us, as its team made it: run as a superuser of the database.

create schema extensions authorization uvian_migrator;
create extension pg_trgm schema extensions;
grant usage on schema extensions to public;

create schema audit authorization uvian_migrator;
create table audit.ddl_log (tag text, object text, at timestamptz not null default now());
alter table audit.ddl_log owner to uvian_migrator;
create function audit.log_ddl() returns event_trigger language plpgsql as $$
begin
  insert into audit.ddl_log (tag, object) select command_tag, object_identity from pg_event_trigger_ddl_commands();
end $$;
alter function audit.log_ddl() owner to uvian_migrator;
create event trigger log_ddl on ddl_command_end execute function audit.log_ddl();

grant create on schema public to uvian_migrator;
set role uvian_migrator;

-- Tables, types and functions of our names, which we must neither hit nor be hit by.
create type public.job_status as enum ('new', 'done');
create table public.jobs (
  id bigint generated always as identity primary key,
  owner_id uuid not null references auth.users (id),
  status public.job_status not null default 'new',
  payload jsonb not null default '{}'
);
create index jobs_by_status on public.jobs (status);
create table public.messages (id uuid primary key default gen_random_uuid(), body text not null, job_id bigint references public.jobs (id));
create index messages_by_words on public.messages using gin (body extensions.gin_trgm_ops);
create table public.schema_migrations (version text primary key);
insert into public.schema_migrations values ('20240101000000');
alter table public.jobs enable row level security;
create policy jobs_owner on public.jobs for select to authenticated using (owner_id = auth.uid());
grant select, insert on public.jobs to authenticated;
grant all on public.messages to anon, authenticated, service_role;

create function public.create_jobs(request jsonb) returns jsonb language sql as $$ select '{"mine": true}'::jsonb $$;
create function public.claim_jobs(request jsonb) returns jsonb language sql as $$ select '{"mine": true}'::jsonb $$;
create function public._is_service() returns boolean language sql as $$ select true $$;
create function public.sha256(text) returns bytea language sql as $$ select '\x00'::bytea $$;
create function public.set_config(text, text, text) returns text language sql as $$ select 'mine' $$;
create function public.touch() returns trigger language plpgsql as $$ begin new.payload := new.payload || '{"touched": true}'; return new; end $$;
create trigger touch before update on public.jobs for each row execute function public.touch();
create view public.open_jobs with (security_invoker = on) as select * from public.jobs where status = 'new';

reset role;
insert into auth.users (id, email) values ('00000000-0000-4000-8000-00000000beef', 'ada@example.com');
insert into public.jobs (owner_id) values ('00000000-0000-4000-8000-00000000beef');
insert into public.messages (body) values ('hello');
insert into storage.buckets (id, name, public) values ('avatars', 'avatars', true);
create policy avatars_public on storage.objects for select to anon using (bucket_id = 'avatars');

-- The Supabase CLI was here.
create schema supabase_migrations authorization uvian_migrator;
set role uvian_migrator;
create table supabase_migrations.schema_migrations (version text not null primary key, statements text[], name text);
insert into supabase_migrations.schema_migrations values
  ('20240101000000', '{create table jobs}', 'init'), ('20250301120000', '{create table messages}', 'messages');

-- What is new is handed to others as well, and functions to nobody.
alter default privileges grant select, insert on tables to analytics;
alter default privileges grant usage on schemas to analytics;
alter default privileges grant usage on sequences to analytics;
alter default privileges grant usage on types to analytics;
alter default privileges grant execute on functions to analytics;
alter default privileges revoke execute on functions from public;
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
reset role;

do $$
begin
  execute format('alter database %I set search_path = "$user", public, extensions', current_database());
  execute format('alter role uvian_migrator in database %I set default_transaction_isolation = ''serializable''', current_database());
  execute format('alter role uvian_migrator in database %I set client_min_messages = ''warning''', current_database());
end $$;
