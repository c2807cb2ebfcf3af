-- min_code: 0.1.0
-- The tables. What the owner may see comes first, what only the worker sees after it.

-- The job: everything about it that its owner may read.
create table uvian.jobs (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references auth.users (id) on delete cascade,
  type text not null,
  status text not null default 'queued'
    check (status in ('queued', 'processing', 'completed', 'failed', 'cancelled')),
  input jsonb not null default '{}' check (jsonb_typeof(input) = 'object'),
  output jsonb,
  result_id uuid,
  error jsonb,
  error_message text,
  stage text,
  stages jsonb not null default '[]',  -- [{name, label, status, ms}] of the latest run
  progress real not null default 0 check (progress between 0 and 1),
  progress_message text,
  cost numeric(20, 6) not null default 0 check (cost >= 0),  -- reserved while open, charged when ended
  run bigint not null default 1,      -- the fence: grows whenever the row returns to queued
  attempt integer not null default 0, -- what burned: errors, timeouts, crashes of its own
  priority integer not null default 0 check (priority between -86400 and 86400),  -- seconds of head start
  admitted boolean not null default true,  -- false: waits for a place under max_running_per_user
  run_at timestamptz not null default now(),
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  updated_at timestamptz not null default now(),
  idempotency_key text check (char_length(idempotency_key) <= 255),
  parent_id uuid references uvian.jobs (id) on delete set null,
  -- Place in the queue, in ms; the same formula as in Redis.
  score bigint not null
    generated always as ((extract(epoch from (run_at at time zone 'UTC')) * 1000)::bigint - priority * 1000) stored
) with (fillfactor = 80);
create index jobs_by_user on uvian.jobs (user_id, created_at desc, id);
create index jobs_by_age on uvian.jobs (created_at desc, id);
create unique index jobs_by_idempotency_key on uvian.jobs (user_id, idempotency_key)
  where idempotency_key is not null;
create index jobs_by_parent on uvian.jobs (parent_id) where parent_id is not null;
create index jobs_queue on uvian.jobs (type, score) where status = 'queued' and admitted;
create index jobs_open on uvian.jobs (user_id, type, status, admitted, score)
  where status in ('queued', 'processing');

create table uvian.concepts (
  id uuid primary key,
  user_id uuid not null references auth.users (id) on delete cascade,
  job_id uuid references uvian.jobs (id) on delete set null,
  run bigint,
  parent_id uuid references uvian.concepts (id) on delete set null,
  logo_description text not null,
  theme_description text not null,
  image_path text not null,
  width integer not null check (width > 0),
  height integer not null check (height > 0),
  details jsonb not null default '{}',  -- provider, model, seed, where the palettes came from
  kept boolean not null default false,  -- its job has ended and was charged for it: no later run takes it away
  created_at timestamptz not null default now()
);
create index concepts_by_path on uvian.concepts (image_path);
create index concepts_by_user on uvian.concepts (user_id, created_at desc, id);
create index concepts_by_job on uvian.concepts (job_id) where job_id is not null;
create index concepts_by_parent on uvian.concepts (parent_id) where parent_id is not null;

create table uvian.concept_variations (
  id uuid primary key,
  concept_id uuid not null references uvian.concepts (id) on delete cascade,
  user_id uuid not null references auth.users (id) on delete cascade,
  position integer not null check (position >= 0),
  name text not null,
  palette jsonb not null check (jsonb_typeof(palette) = 'array'),  -- ["#rrggbb", …]
  image_path text not null,
  width integer not null check (width > 0),
  height integer not null check (height > 0),
  kept boolean not null default false,  -- as its concept: charged for
  created_at timestamptz not null default now(),
  unique (concept_id, position)
);
create index concept_variations_by_user on uvian.concept_variations (user_id);
create index concept_variations_by_path on uvian.concept_variations (image_path);

-- A user without a row has a balance of 0.
create table uvian.credit_accounts (
  user_id uuid primary key references auth.users (id) on delete cascade,
  balance numeric(20, 6) not null default 0 check (balance >= 0),    -- what may still be spent
  reserved numeric(20, 6) not null default 0 check (reserved >= 0),  -- what open jobs hold
  version bigint not null default 0,
  updated_at timestamptz not null default now()
);

-- Append-only. The user's id has no foreign key: the books outlive the account.
create table uvian.credit_entries (
  id bigint generated always as identity primary key,
  user_id uuid not null,
  job_id uuid,
  reservation integer,
  kind text not null check (kind in ('grant', 'reserve', 'charge', 'release')),
  amount numeric(20, 6) not null check (amount > 0),
  reference text,
  created_at timestamptz not null default now(),
  check ((kind = 'grant') = (job_id is null)),
  check ((kind = 'grant') = (reference is not null)),
  check ((job_id is null) = (reservation is null))
);
create unique index credit_entries_once on uvian.credit_entries (job_id, reservation, kind)
  where job_id is not null;
create unique index credit_entries_grant_once on uvian.credit_entries (user_id, reference)
  where reference is not null;
create index credit_entries_by_user on uvian.credit_entries (user_id, id);

-- What the types are. Written at start by the newest release …
create table uvian.job_types (
  type text primary key check (type ~ '^[a-z][a-z0-9_.-]{0,62}$'),
  input_schema jsonb not null default '{}',
  timeout_seconds double precision not null default 300 check (timeout_seconds > 0),
  max_attempts integer not null default 3 check (max_attempts > 0),
  release text not null default '0',
  -- … and by the operator, whose columns no release touches:
  enabled boolean not null default true,
  browser boolean not null default false,    -- signed-in users may ask for it: closed until the operator opens it
  anonymous boolean not null default false,  -- … anonymous sign-ins too
  max_input_bytes integer not null default 65536 check (max_input_bytes > 0),
  max_queued_per_user integer default 50 check (max_queued_per_user >= 0),   -- null: no limit
  max_running_per_user integer default 4 check (max_running_per_user > 0),   -- null: no limit
  -- The next three hold for types whose input has such a field, at every door and again in the worker.
  models text[] check (cardinality(models) > 0 and array_position(models, null) is null),  -- the first is the default; null: any
  max_tokens integer check (max_tokens > 0),  -- at most, and where a job says nothing; null: as the provider has it
  system_prompt text check (system_prompt <> '' and char_length(system_prompt) <= 32000)  -- in place of the job's; null: the job's
);
insert into uvian.job_types (type) values ('generation');

-- A type without a price is free.
create table uvian.job_prices (
  type text primary key references uvian.job_types (type) on delete cascade,
  amount numeric(20, 6) not null check (amount >= 0)
);

-- Who works on what, until when. Narrow, and without an index on the expiry: a renewal stays
-- on its page and writes some 80 bytes of WAL. Its rows are the running jobs, never more.
create table uvian.job_leases (
  job_id uuid primary key references uvian.jobs (id) on delete cascade,
  run bigint not null,
  worker text not null,
  expires_at timestamptz not null,
  cancel_requested boolean not null default false,
  shared boolean not null default false,    -- another job of this worker was lost in the same crash
  isolated boolean not null default false,  -- a suspect: its worker may run nothing else
  nonce uuid                                -- of the claim_next_jobs that took it
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- What the machine must remember of a job and its owner need not know.
create table uvian.job_state (
  job_id uuid primary key references uvian.jobs (id) on delete cascade,
  redispatch_at timestamptz,           -- null: not queued, or waiting for a place
  dispatched_at timestamptz,
  dispatches smallint not null default 0,
  announce_at timestamptz,             -- null: no ending left to announce
  crashes smallint not null default 0,
  isolated boolean not null default false,
  refusals smallint not null default 0, -- claims refused in a row, for the backoff
  reservation integer not null default 0,
  reserved numeric(20, 6) not null default 0 check (reserved >= 0),
  checkpoints jsonb not null default '{}'
) with (fillfactor = 80);
create index job_state_redispatch on uvian.job_state (redispatch_at) where redispatch_at is not null;
create index job_state_announce on uvian.job_state (announce_at) where announce_at is not null;

-- What each run ended as, so that a settlement whose reply was lost gets its first answer for ever.
create table uvian.job_runs (
  job_id uuid not null references uvian.jobs (id) on delete cascade,
  run bigint not null,
  worker text,
  outcome text not null,
  status text not null,
  attempt integer not null,
  cost numeric(20, 6) not null,
  ended_at timestamptz not null default now(),
  primary key (job_id, run)
);

-- Every file that a job has stored: written before the file is, so that none is ever without a row. No
-- foreign keys: a file outlives its job and its user, until it is removed.
create table uvian.files (
  path text not null,
  job_id uuid not null,
  user_id uuid not null,
  check_at timestamptz,     -- when to see whether a result names it; null: its job runs, or one does
  removing_at timestamptz,  -- since when it is being removed
  removing_by uuid,         -- … by which call: repeated, it is answered the same
  created_at timestamptz not null default now(),
  primary key (path, job_id)
);
create index files_by_job on uvian.files (job_id);
create index files_to_check on uvian.files (check_at) where check_at is not null;

create table uvian.workers (
  name text primary key,
  types text[] not null,
  release text not null,
  started_at timestamptz not null default now(),
  last_seen timestamptz not null default now()
);

-- One row: when the last sweep was, and until when leases do not expire (Postgres was away, so
-- nobody could renew).
create table uvian.sweeps (
  one boolean primary key default true check (one),
  last_at timestamptz not null default now(),
  hold_until timestamptz not null default now()
);
insert into uvian.sweeps default values;

-- Everything is closed, then opened by name.
do $$
declare
  name text;
begin
  for name in select c.relname from pg_catalog.pg_class c
              where c.relnamespace = 'uvian'::pg_catalog.regnamespace and c.relkind = 'r' loop
    execute pg_catalog.format('alter table uvian.%I enable row level security', name);
    execute pg_catalog.format('revoke all on uvian.%I from public, anon, authenticated, service_role', name);
    execute pg_catalog.format('grant select on uvian.%I to service_role', name);
  end loop;
end $$;
revoke all on all sequences in schema uvian from public, anon, authenticated, service_role;

grant select on uvian.jobs, uvian.concepts, uvian.concept_variations,
                uvian.credit_accounts, uvian.credit_entries to authenticated;
grant insert, update, delete on uvian.jobs, uvian.concepts, uvian.concept_variations to service_role;
grant insert, update, delete on uvian.job_types, uvian.job_prices to service_role;

create policy jobs_owner on uvian.jobs for select to authenticated
  using (user_id = (select auth.uid()));
create policy concepts_owner on uvian.concepts for select to authenticated
  using (user_id = (select auth.uid()));
create policy concept_variations_owner on uvian.concept_variations for select to authenticated
  using (user_id = (select auth.uid()));
create policy credit_accounts_owner on uvian.credit_accounts for select to authenticated
  using (user_id = (select auth.uid()));
create policy credit_entries_owner on uvian.credit_entries for select to authenticated
  using (user_id = (select auth.uid()));

notify pgrst, 'reload schema';
