-- Credits: reserve with the row, charge and release with the settlement, never more than reserved.

-- What a job of this type costs: the only place that applies a price.
create or replace function uvian.calculate_cost(type text, input jsonb default '{}') returns numeric
language sql stable security definer
set search_path = ''
as $$
  select coalesce((select p.amount from uvian.job_prices p where p.type = calculate_cost.type), 0)
$$;

-- The same (user, reference) grants once; a repeat is answered with the account as it is, one with
-- another amount is refused.
create or replace function uvian.grant_credits(user_id uuid, amount numeric, reference text) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  granted numeric;
begin
  if amount is null or amount <= 0 or amount >= 1e14 or round(amount, 6) = 0 then
    raise exception using errcode = 'PT422', message = 'invalid_amount',
      detail = 'The amount must be greater than 0, below 100,000,000,000,000, with at most 6 decimals.';
  end if;
  if coalesce(reference, '') = '' then
    raise exception using errcode = 'PT422', message = 'invalid_reference',
      detail = 'Name the payment or reason: the same reference is granted once.';
  end if;
  if not exists (select from auth.users u where u.id = grant_credits.user_id) then
    raise exception using errcode = 'PT404', message = 'unknown_user', detail = 'There is no such user.';
  end if;
  -- The account first: entries are only written by who holds it.
  insert into uvian.credit_accounts as a (user_id) values (grant_credits.user_id)
    on conflict on constraint credit_accounts_pkey do nothing;
  perform uvian._lock_accounts(array[grant_credits.user_id]);
  select e.amount into granted from uvian.credit_entries e
    where e.user_id = grant_credits.user_id and e.reference = grant_credits.reference;
  if granted <> round(grant_credits.amount, 6) then
    raise exception using errcode = 'PT409', message = 'reference_conflict',
      detail = format('%L has been granted before, with %s credits.', reference, granted);
  end if;
  if granted is null then
    insert into uvian.credit_entries (user_id, kind, amount, reference)
      values (grant_credits.user_id, 'grant', round(grant_credits.amount, 6), grant_credits.reference);
    update uvian.credit_accounts a
      set balance = a.balance + round(grant_credits.amount, 6), version = a.version + 1, updated_at = now()
      where a.user_id = grant_credits.user_id;
  end if;
  return uvian._account(grant_credits.user_id);
end $$;

-- A user's account as it is published: amounts as text, zero where there is no row.
create or replace function uvian._account(of_user uuid) returns jsonb
language sql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
  select jsonb_build_object('user_id', of_user,
                            'balance', coalesce(max(a.balance), 0)::text,
                            'reserved', coalesce(max(a.reserved), 0)::text,
                            'version', coalesce(max(a.version), 0))
  from uvian.credit_accounts a where a.user_id = of_user
$$;

-- The accounts of these users, each once.
create or replace function uvian._accounts(of_users uuid[]) returns jsonb
language sql stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(uvian._account(u) order by u), '[]')
  from (select distinct u from unnest(of_users) u where u is not null) users
$$;

-- Holds the accounts of these users, in order.
create or replace function uvian._lock_accounts(of_users uuid[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  perform 1 from uvian.credit_accounts a where a.user_id = any (of_users)
    order by a.user_id for no key update;
end $$;

-- Locks the accounts that these jobs hold something of; answers whose they are.
create or replace function uvian._lock_payers(of_jobs uuid[]) returns uuid[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  payers uuid[] := array(
    select distinct j.user_id from uvian.jobs j
    cross join lateral (select o.reserved from uvian.job_state o where o.job_id = j.id offset 0) s
    where j.id = any (of_jobs) and s.reserved > 0);
begin
  if cardinality(payers) > 0 then
    perform uvian._lock_accounts(payers);
  end if;
  return payers;
end $$;

-- Holds `amount` for the job; false when the balance does not allow it. The job's state row exists.
create or replace function uvian._reserve(of_job uuid, of_user uuid, amount numeric) returns boolean
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  number integer;
begin
  if amount = 0 then
    return true;
  end if;
  update uvian.credit_accounts a
    set balance = a.balance - amount, reserved = a.reserved + amount,
        version = a.version + 1, updated_at = now()
    where a.user_id = of_user and a.balance >= amount;
  if not found then
    return false;
  end if;
  update uvian.job_state s set reservation = s.reservation + 1, reserved = amount
    where s.job_id = of_job returning s.reservation into number;
  insert into uvian.credit_entries (user_id, job_id, reservation, kind, amount)
    values (of_user, of_job, number, 'reserve', amount);
  return true;
end $$;

-- Gives back what a job holds that will be no more.
create or replace function uvian._release(of_job uuid, of_user uuid) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  held numeric;
  number integer;
begin
  perform uvian._lock_accounts(array[of_user]);
  select s.reserved, s.reservation into held, number from uvian.job_state s where s.job_id = of_job;
  if held > 0 then
    update uvian.job_state s set reserved = 0 where s.job_id = of_job;
    update uvian.credit_accounts a
      set balance = a.balance + held, reserved = a.reserved - held,
          version = a.version + 1, updated_at = now()
      -- The account of a user who is being deleted goes with its user.
      where a.user_id = of_user and exists (select from auth.users u where u.id = of_user);
    insert into uvian.credit_entries (user_id, job_id, reservation, kind, amount)
      values (of_user, of_job, number, 'release', held);
  end if;
end $$;

-- What was charged before for what is still there. A job that was cancelled keeps its pictures; run again
-- it makes the same ones, and the rest: what they have cost is not paid twice, nor held (_restart). Of a chat
-- nothing is kept of the earlier answer, and a whole new one is written.
create or replace function uvian._paid_before(of_job uuid, in_reservation integer) returns numeric
language plpgsql stable
set search_path = ''
as $$
begin
  if in_reservation < 2 or not exists (select from uvian.concepts c where c.job_id = of_job and c.kept) then
    return 0;
  end if;
  return (select coalesce(sum(e.amount), 0) from uvian.credit_entries e
          where e.job_id = of_job and e.kind = 'charge');
end $$;

-- What a cancelled run and those before it have delivered together: an earlier picture that it did not come
-- to again stays (_put_concept).
create or replace function uvian._share_of_pictures(v uvian._verdict) returns numeric
language plpgsql stable
set search_path = ''
as $$
declare
  made jsonb := coalesce(nullif(v.result -> 'variations', 'null'), '[]');
  earlier bigint := (
    select count(*) from uvian.concepts c join uvian.concept_variations o on o.concept_id = c.id
    where c.job_id = v.job_id and o.kept and c.image_path = v.result -> 'concept' ->> 'image_path'
      and not exists (select from jsonb_array_elements(made) m where (m ->> 'position')::integer = o.position));
begin
  return v.charge * (1 + jsonb_array_length(made) + earlier) / (1 + jsonb_array_length(made));
end $$;

-- What a stopped answer costs, as a share of the price: what was delivered of it, against a whole one. Four
-- bytes are a token, 500 tokens a whole answer; a smaller limit of the user's or the operator's makes whole
-- answers smaller, a larger one changes nothing. A tenth at least: the question was read. One place, so
-- that every worker's answers cost alike; docs/decisions has the reasons.
create or replace function uvian._share_of_answer(content text, user_limit jsonb, operator_limit integer) returns numeric
language sql immutable
set search_path = ''
as $$
  select round(greatest(0.1, least(1, ceil(octet_length(content) / 4.0) / greatest(1, least(
    500, case when jsonb_typeof(user_limit) = 'number' then user_limit::numeric else 500 end,
    coalesce(operator_limit, 500))))), 6)
$$;

-- Refuses to change or delete an entry of the credit ledger.
create or replace function uvian._credit_ledger_is_append_only() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  raise exception 'credit_entries is append-only; write a new entry instead' using errcode = 'P0001';
end $$;

revoke all on function
  uvian.calculate_cost(text, jsonb), uvian.grant_credits(uuid, numeric, text), uvian._account(uuid),
  uvian._accounts(uuid[]), uvian._lock_accounts(uuid[]), uvian._lock_payers(uuid[]),
  uvian._reserve(uuid, uuid, numeric), uvian._release(uuid, uuid), uvian._paid_before(uuid, integer),
  uvian._share_of_pictures(uvian._verdict), uvian._share_of_answer(text, jsonb, integer),
  uvian._credit_ledger_is_append_only()
  from public, anon, authenticated, service_role;
grant execute on function
  uvian.calculate_cost(text, jsonb)
  to authenticated, service_role;
grant execute on function
  uvian.grant_credits(uuid, numeric, text)
  to service_role;

select uvian._close();
notify pgrst, 'reload schema';
