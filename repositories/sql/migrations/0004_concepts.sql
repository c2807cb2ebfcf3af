-- min_code: 0.1.0
-- Concepts and their variations, and the files that they name.

-- What a generation or a refinement has made: the image, and where it comes from.
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

-- The same image in another palette.
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

alter table uvian.concepts enable row level security;
alter table uvian.concept_variations enable row level security;
alter table uvian.files enable row level security;
revoke all on uvian.concepts, uvian.concept_variations, uvian.files from public, anon, authenticated, service_role;

notify pgrst, 'reload schema';
