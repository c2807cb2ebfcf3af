-- min_code: 0.1.0
-- Credits: what may be spent, what open jobs hold, and the credit ledger.

-- What a user has. A user without a row has a balance of 0.
create table uvian.credit_accounts (
  user_id uuid primary key references auth.users (id) on delete cascade,
  balance numeric(20, 6) not null default 0 check (balance >= 0),    -- what may still be spent
  reserved numeric(20, 6) not null default 0 check (reserved >= 0),  -- what open jobs hold
  version bigint not null default 0,
  updated_at timestamptz not null default now()
);

-- The credit ledger: append-only. The user's id has no foreign key, because it outlives the account.
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

alter table uvian.credit_accounts enable row level security;
alter table uvian.credit_entries enable row level security;
revoke all on uvian.credit_accounts, uvian.credit_entries from public, anon, authenticated, service_role;
revoke all on all sequences in schema uvian from public, anon, authenticated, service_role;

notify pgrst, 'reload schema';
