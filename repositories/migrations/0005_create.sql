-- min_code: 0.1.0
-- New jobs: checked, counted, paid for and inserted in one transaction, once per id and key.

-- What an item of a request comes to, before anything is written.
create type uvian._judgement as (
  n bigint,                 -- its place in the request
  id uuid,
  user_id uuid,
  type text,
  input jsonb,
  priority integer,
  run_at timestamptz,
  idempotency_key text,
  parent_id uuid,
  price numeric,
  limited boolean,          -- it waits for a place under max_running_per_user
  existing uuid,            -- the job this request made before
  code text,                -- why not
  explanation jsonb,        -- what goes with the code
  relative boolean          -- … and would be otherwise, were it asked alone
);
revoke all on type uvian._judgement from public, anon, authenticated, service_role;

create function uvian._judge(items jsonb) returns setof uvian._judgement
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return query
  with asked as (
    select x.n, coalesce(x.id, gen_random_uuid()) as id, x.user_id, x.type, x.input,
           coalesce(x.priority, 0) as priority, coalesce(x.run_at, now()) as run_at,
           x.idempotency_key, x.parent_id, x.max_cost
    from rows from (jsonb_to_recordset(items) as (
      id uuid, user_id uuid, type text, input jsonb, priority integer, run_at timestamptz,
      idempotency_key text, parent_id uuid, max_cost numeric
    )) with ordinality x (id, user_id, type, input, priority, run_at, idempotency_key, parent_id,
                          max_cost, n)
  ), known as (
    -- The same request again, by its id or by its key, is answered with what it made.
    select a.*, t.type is not null as type_known, t.enabled, t.max_input_bytes, t.max_queued_per_user,
           t.max_running_per_user is not null as limited,
           case when p.type is null then 0 else uvian.calculate_cost(a.type, a.input) end as price,
           coalesce(k.id, i.id) as existing,
           i.id <> k.id or coalesce(k.user_id, i.user_id) <> a.user_id
             or coalesce(k.type, i.type) <> a.type
             or coalesce(k.input, i.input) is distinct from a.input as differs
    from asked a
    left join uvian.job_types t on t.type = a.type
    left join uvian.job_prices p on p.type = a.type
    left join lateral (select o.* from uvian.jobs o where o.id = a.id offset 0) i on true
    left join lateral (
      select o.* from uvian.jobs o
      where o.user_id = a.user_id and o.idempotency_key = a.idempotency_key offset 0) k on true
  ), checked as (
    select k.*, case
        when not k.type_known then 'unknown_type'
        when k.existing is not null then case when k.differs then 'idempotency_conflict' end
        when not k.enabled then 'type_disabled'
        when jsonb_typeof(k.input) is distinct from 'object' then 'invalid_input'
        when octet_length(k.input::text) > k.max_input_bytes then 'input_too_large'
        when not exists (select from auth.users u where u.id = k.user_id) then 'unknown_user'
        when k.parent_id is not null and not exists (
          select from uvian.jobs o where o.id = k.parent_id and o.user_id = k.user_id) then 'unknown_parent'
        when k.price > k.max_cost then 'cost_exceeds_max'
      end as code
    from known k
  ), counted as (
    -- As if all items before it were made; who is refused for their sake is asked again alone.
    select c.*, coalesce(a.balance, 0) as balance,
           sum(c.price) filter (where c.code is null and c.existing is null)
             over (partition by c.user_id order by c.n) as spent,
           count(*) filter (where c.code is null and c.existing is null)
             over (partition by c.user_id, c.type order by c.n)
           + case when c.max_queued_per_user is null then 0 else (
               select count(*) from uvian.jobs q
               where q.user_id = c.user_id and q.type = c.type and q.status = 'queued') end as queued
    from checked c left join uvian.credit_accounts a on a.user_id = c.user_id
  ), judged as (
    select c.*, case
        when c.code is not null or c.existing is not null then c.code
        when c.queued > c.max_queued_per_user then 'too_many_queued'
        when c.price > 0 and c.spent > c.balance then 'insufficient_credits'
      end as verdict
    from counted c
  )
  select j.n, j.id, j.user_id, j.type, j.input, j.priority, j.run_at, j.idempotency_key, j.parent_id,
         j.price, j.limited, j.existing, j.verdict,
         case j.verdict
           when 'input_too_large' then jsonb_build_object('limit', j.max_input_bytes)
           when 'too_many_queued' then jsonb_build_object('limit', j.max_queued_per_user)
           when 'cost_exceeds_max' then jsonb_build_object('cost', j.price::text)
           when 'insufficient_credits' then
             jsonb_build_object('cost', j.price::text, 'balance', j.balance::text)
           else '{}' end,
         j.verdict in ('too_many_queued', 'insufficient_credits', 'unknown_parent')
  from judged j order by j.n;
end $$;

-- One answer per item, in order; null where the item must be asked again, alone: its request was
-- made by another in this moment, or what came before it in the batch stood in its way.
create function uvian._create_batch(items jsonb, redispatch_in interval) returns jsonb[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  judged uvian._judgement[] := array(select j from uvian._judge(items) j);
  alone boolean := cardinality(judged) = 1;
  made uuid[];
  place record;
begin
  with created as (
    insert into uvian.jobs (id, user_id, type, input, priority, run_at, idempotency_key, parent_id,
                            cost, admitted)
      select v.id, v.user_id, v.type, v.input, v.priority, v.run_at, v.idempotency_key, v.parent_id,
             v.price, not v.limited
      from unnest(judged) v where v.code is null and v.existing is null
      -- One order for everybody: two batches with the same keys wait for each other, never both ways.
      order by v.user_id, v.idempotency_key, case when v.idempotency_key is null then v.id end, v.n
      on conflict do nothing
      returning id, user_id, cost, run_at, admitted
  ), remembered as (
    insert into uvian.job_state (job_id, redispatch_at, reservation, reserved)
      select c.id, case when c.admitted then now() + redispatch_in
                        when c.run_at > now() then c.run_at end, (c.cost > 0)::integer, c.cost
      from created c
  ), held as (
    update uvian.credit_accounts a
      set balance = a.balance - p.cost, reserved = a.reserved + p.cost, version = a.version + 1,
          updated_at = now()
      from (select c.user_id, sum(c.cost) as cost from created c where c.cost > 0 group by 1) p
      where a.user_id = p.user_id
  ), booked as (
    insert into uvian.credit_entries (user_id, job_id, reservation, kind, amount)
      select c.user_id, c.id, 1, 'reserve', c.cost from created c where c.cost > 0
  )
  select coalesce(array_agg(c.id), '{}') into made from created c;

  for place in
    select distinct v.user_id, v.type from unnest(judged) v where v.limited and v.id = any (made)
  loop
    perform uvian._admit(place.user_id, place.type, redispatch_in);
  end loop;

  return array(
    select case
        when v.code is not null and (alone or not v.relative) then
          jsonb_build_object('code', v.code) || v.explanation
        when v.existing is not null then
          jsonb_build_object('job', uvian._job(j), 'created', false, 'dispatch', false)
        when j.id is not null and v.n = min(v.n) over (partition by v.id) then
          jsonb_build_object('job', uvian._job(j), 'created', true, 'dispatch', j.admitted,
                             'delayed', j.run_at > now())
      end
    from unnest(judged) v
    left join lateral (
      select o.* from uvian.jobs o where o.id = coalesce(v.existing, case when v.id = any (made) then v.id end)
      offset 0) j on v.code is null
    order by v.n);
end $$;

create function uvian._create_jobs(items jsonb, redispatch_in interval) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  place bigint;
  answers jsonb[];
  n integer;
begin
  for place in
    select uvian._place(p.user_id, p.type) as key
    from (select distinct (e ->> 'user_id')::uuid as user_id, t.type
          from jsonb_array_elements(items) e join uvian.job_types t on t.type = e ->> 'type'
          where t.max_running_per_user is not null or t.max_queued_per_user is not null) p
    order by key
  loop
    perform pg_advisory_xact_lock(place);
  end loop;
  if exists (select from uvian.job_prices) then
    perform uvian._lock_accounts(array(
      select distinct (e ->> 'user_id')::uuid
      from jsonb_array_elements(items) e join uvian.job_prices p on p.type = e ->> 'type'));
  end if;
  answers := uvian._create_batch(items, redispatch_in);
  while array_position(answers, null) is not null loop
    n := array_position(answers, null);
    answers[n] := (uvian._create_batch(jsonb_build_array(items -> (n - 1)), redispatch_in))[1];
  end loop;
  return jsonb_build_object(
    'jobs', to_jsonb(answers),
    'accounts', uvian._accounts(array(
      select (a -> 'job' ->> 'user_id')::uuid from unnest(answers) a
      where (a ->> 'created')::boolean and (a -> 'job' ->> 'cost')::numeric > 0)));
end $$;

-- {jobs: [{id?, user_id, type, input, priority?, run_at?, idempotency_key?, parent_id?, max_cost?}]}
-- → {jobs: [{job, created, dispatch, delayed?} | {code, …}], accounts}; the caller dispatches.
create function uvian.create_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  answer jsonb;
begin
  perform uvian._writing(true);
  answer := uvian._create_jobs(request -> 'jobs', interval '5 s');
  perform uvian._writing(false);
  return answer;
end $$;

-- {} → {types: {type: input_schema}}: what the newest worker takes, for whoever checks an input before.
create function uvian.type_schemas(request jsonb) returns jsonb
language sql stable security definer
set search_path = '' set lock_timeout = '1s'
as $$
  select jsonb_build_object('types', coalesce(jsonb_object_agg(t.type, t.input_schema), '{}')) from uvian.job_types t
$$;

revoke all on function uvian.type_schemas(jsonb) from public, anon, authenticated, service_role;
grant execute on function uvian.type_schemas(jsonb) to service_role;

revoke all on function
  uvian._judge(jsonb), uvian._create_batch(jsonb, interval), uvian._create_jobs(jsonb, interval),
  uvian.create_jobs(jsonb)
  from public, anon, authenticated, service_role;
grant execute on function uvian.create_jobs(jsonb) to service_role;

notify pgrst, 'reload schema';
