-- min_code: 0.1.0
-- The schema, its migration history, and jobs: what the owner may see of them, then what only the worker
-- sees. Every table is closed to everybody here; the files in tables/ open it by name.

create schema uvian;
comment on schema uvian is 'uvian-worker: jobs, credits, concepts. State moves only in functions.';

revoke all on schema uvian from public, anon, authenticated, service_role;
grant usage on schema uvian to anon, authenticated, service_role;

-- The migration history: which file of repositories/sql was applied, when, by which release.
create table uvian.schema_migrations (
  name text primary key,   -- the file, without its extension: `0001_jobs`, `functions/claim`
  version bigint unique,   -- of a numbered migration; null: a file that is applied again when its text has changed
  checksum text not null,  -- of the text that was applied last
  min_code text,           -- of a numbered migration: the oldest release that still works after it
  release text not null,
  applied_at timestamptz not null default now(),
  check ((version is null) = (min_code is null))
);

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
  stages jsonb not null default '[]',  -- [{name, label, status, offset_ms, ms}] of the latest run; offset from its claim
  progress real not null default 0 check (progress between 0 and 1),
  progress_message text,
  cost numeric(20, 6) not null default 0 check (cost >= 0),  -- reserved while open, charged when ended
  run bigint not null default 1,      -- the fence: grows whenever the row returns to queued
  attempt integer not null default 0, -- what burned: errors, timeouts, crashes of its own
  priority integer not null default 0 check (priority between -86400 and 86400),  -- seconds of head start
  admitted boolean not null default true,  -- false: waits for a slot under max_running_per_user
  run_at timestamptz not null default now(),
  created_at timestamptz not null default now(),
  queued_at timestamptz not null default now(),  -- when the latest run began to wait
  started_at timestamptz,
  finished_at timestamptz,
  updated_at timestamptz not null default now(),
  idempotency_key text check (char_length(idempotency_key) <= 255),
  parent_id uuid references uvian.jobs (id) on delete set null,
  -- Position in the queue, in ms; the same formula as in Redis.
  score bigint not null
    generated always as ((extract(epoch from (run_at at time zone 'UTC')) * 1000)::bigint - priority * 1000) stored,
  conversation_id uuid,  -- of a chat; no foreign key: a fact, also when that is gone
  turn integer,          -- in which order; counts anew when nobody waits
  its_turn boolean not null default true
) with (fillfactor = 80);
create index jobs_by_user on uvian.jobs (user_id, created_at desc, id);
create index jobs_by_age on uvian.jobs (created_at desc, id);
create unique index jobs_by_idempotency_key on uvian.jobs (user_id, idempotency_key)
  where idempotency_key is not null;
create index jobs_by_parent on uvian.jobs (parent_id) where parent_id is not null;
create index jobs_queue on uvian.jobs (type, score) where status = 'queued' and admitted;
create index jobs_open on uvian.jobs (user_id, type, status, admitted, score)
  where status in ('queued', 'processing');
create index jobs_turns on uvian.jobs (conversation_id, turn)
  where conversation_id is not null and status in ('queued', 'processing');
create unique index jobs_one_chat on uvian.jobs (conversation_id)
  where conversation_id is not null and its_turn and status in ('queued', 'processing');
create index jobs_waiting on uvian.jobs (user_id, type, score)
  where status = 'queued' and not admitted and its_turn;

-- What the types are: written at start by the newest release …
create table uvian.job_types (
  type text primary key check (type ~ '^[a-z][a-z0-9_.-]{0,62}$'),
  input_schema jsonb not null default '{}',
  timeout_seconds double precision not null default 300 check (timeout_seconds > 0),
  max_attempts integer not null default 3 check (max_attempts > 0),
  release text not null default '0',
  -- … and by the operator, whose columns no release touches:
  enabled boolean not null default true,
  browser boolean not null default false,    -- signed-in users may submit it: closed until the operator opens it
  anonymous boolean not null default false,  -- … anonymous sign-ins too
  max_input_bytes integer not null default 65536 check (max_input_bytes > 0),
  max_queued_per_user integer default 50 check (max_queued_per_user >= 0),   -- null: no limit
  max_running_per_user integer default 4 check (max_running_per_user > 0),   -- null: no limit
  -- The next three hold for types whose input has such a field, at every door and again in the worker.
  models text[] check (cardinality(models) > 0 and array_position(models, null) is null),  -- the first is the default; null: any
  max_tokens integer check (max_tokens > 0),  -- at most, and where a job says nothing; null: as the provider has it
  system_prompt text check (system_prompt <> '' and char_length(system_prompt) <= 32000)  -- in place of the job's; null: the job's
);
-- The built-in types, closed as every type is. What they take stands in built_in_types.sql.
insert into uvian.job_types (type) values ('generation'), ('refinement'), ('chat');

-- What a job of a type costs. A type without a price is free.
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
  isolated boolean not null default false,  -- a poison job, maybe: its worker may run nothing else
  nonce uuid                                -- of the claim_next_jobs that took it
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- What the machine must remember of a job and its owner need not know.
create table uvian.job_state (
  job_id uuid primary key references uvian.jobs (id) on delete cascade,
  redispatch_at timestamptz,           -- null: not queued, or waiting for a slot
  dispatched_at timestamptz,
  dispatches smallint not null default 0,
  announce_at timestamptz,             -- null: no terminal event left to announce
  crashes smallint not null default 0,
  isolated boolean not null default false,
  refusals smallint not null default 0, -- claims refused in a row, for the backoff
  reservation integer not null default 0,
  reserved numeric(20, 6) not null default 0 check (reserved >= 0),
  checkpoints jsonb not null default '{}'
) with (fillfactor = 80);
create index job_state_redispatch on uvian.job_state (redispatch_at) where redispatch_at is not null;
create index job_state_announce on uvian.job_state (announce_at) where announce_at is not null;

-- The history: how each run waited, ran and ended. A settlement whose reply was lost gets its first answer
-- from here, for ever.
create table uvian.job_runs (
  job_id uuid not null references uvian.jobs (id) on delete cascade,
  run bigint not null,
  queued_at timestamptz not null default now(),
  run_at timestamptz not null default now(),     -- not before: until then it waited on purpose
  claimed_at timestamptz,                        -- null: no worker had it
  ended_at timestamptz not null default now(),
  worker text,
  reported boolean not null default false,       -- by that worker, which gets the same answer again
  outcome text not null,                         -- as _verdict.outcome
  status text not null,                          -- what the job became
  attempt integer not null,
  cost numeric(20, 6) not null,
  error jsonb,                                   -- {code, stage, message, retryable, attempt}
  stages jsonb not null default '[]',
  retried_at timestamptz,                        -- when its user ran the job again
  primary key (job_id, run)
);

-- Which workers there are, what they have, and when they were last seen.
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
  hold_until timestamptz not null default now(),
  request_id uuid,  -- of the last sweep that had one
  answer jsonb      -- what it was answered
);
insert into uvian.sweeps default values;

-- What functions pass to each other ------------------------------------------------------------

-- What an item of a request for new jobs comes to, before anything is written (create.sql).
create type uvian._judgement as (
  n bigint,                 -- its position in the request
  id uuid,
  user_id uuid,
  type text,
  input jsonb,
  priority integer,
  run_at timestamptz,
  idempotency_key text,
  parent_id uuid,
  price numeric,
  limited boolean,          -- it waits for a slot under max_running_per_user
  existing uuid,            -- the job this request made before
  code text,                -- why not
  explanation jsonb,        -- what goes with the code
  relative boolean,         -- … and would be otherwise, were it requested alone
  conversation_id uuid
);

-- What is to become of a job: ended, or queued again (settle.sql).
create type uvian._verdict as (
  job_id uuid,
  run bigint,
  outcome text,            -- as reported by the worker, or worker_lost, no_executor, manual_edit
  worker text,             -- who reported it and will be answered the same again; null: nobody
  status text,             -- queued, completed, failed, cancelled
  attempt integer,
  delay double precision,  -- queued: seconds until it is due again
  charge numeric,          -- ended: the fraction of the reservation
  result jsonb             -- ended: {output, result_id, error, error_message, stages}
);

-- Closed -------------------------------------------------------------------------------------------

revoke all on type uvian._judgement, uvian._verdict from public, anon, authenticated, service_role;
alter table uvian.schema_migrations enable row level security;
alter table uvian.jobs enable row level security;
alter table uvian.job_types enable row level security;
alter table uvian.job_prices enable row level security;
alter table uvian.job_leases enable row level security;
alter table uvian.job_state enable row level security;
alter table uvian.job_runs enable row level security;
alter table uvian.workers enable row level security;
alter table uvian.sweeps enable row level security;
revoke all on all tables in schema uvian from public, anon, authenticated, service_role;

notify pgrst, 'reload schema';
