-- New jobs: checked, counted, paid for and inserted in one transaction, once per id and key.

-- What each type takes, as the newest worker says it.
-- {} → {types: {type: input_schema}}: what the newest worker takes, for whoever checks an input before.
create or replace function uvian.type_schemas(request jsonb) returns jsonb
language sql stable security definer
set search_path = '' set lock_timeout = '1s'
as $$
  select jsonb_build_object('types', coalesce(jsonb_object_agg(t.type, t.input_schema), '{}')) from uvian.job_types t
$$;

-- Creates jobs for users: checked, counted, paid for.
-- {jobs: [{id?, user_id, type, input, priority?, run_at?, idempotency_key?, parent_id?, max_cost?}]}
-- → {jobs: [{job, created, dispatch, delayed?} | {code, …}], accounts}; the caller dispatches.
create or replace function uvian.create_jobs(request jsonb) returns jsonb
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

-- Creates jobs, and those alone that a batch could not decide.
create or replace function uvian._create_jobs(items jsonb, redispatch_in interval) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  conversations uuid[];
  users uuid[];
  types text[];
  answers jsonb[];
  n integer;
begin
  select array_agg(distinct a.conversation_id) filter (where a.conversation_id is not null),
         array_agg(a.user_id), array_agg(a.type)
    into conversations, users, types
    from (select distinct (e ->> 'user_id')::uuid as user_id, e ->> 'type' as type,
                 uvian._conversation_of(e ->> 'type', e -> 'input') as conversation_id
          from jsonb_array_elements(items) e) a;
  perform uvian._hold_slots(conversations, users, types);
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

-- One answer per item, in order; null if the item must be tried again alone: another call made the same request
-- at this moment, or earlier items of the batch used up the balance or the limit.
create or replace function uvian._create_batch(items jsonb, redispatch_in interval) returns jsonb[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  judged uvian._judgement[] := array(select j from uvian._judge(items) j);
  alone boolean := cardinality(judged) = 1;
  made uuid[];
begin
  with created as (
    insert into uvian.jobs (id, user_id, type, input, priority, run_at, idempotency_key, parent_id,
                            cost, admitted, conversation_id, its_turn, turn)
      select v.id, v.user_id, v.type, v.input, v.priority, v.run_at, v.idempotency_key, v.parent_id,
             v.price, not v.limited and v.conversation_id is null, v.conversation_id, v.conversation_id is null,
             case when v.conversation_id is not null then
               uvian._last_turn(v.conversation_id) + row_number() over (partition by v.conversation_id order by v.n)
             end
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

  perform uvian._let_in(w.jobs, redispatch_in)
    from (select array_agg(v.id) as jobs from unnest(judged) v
          where v.id = any (made) and (v.limited or v.conversation_id is not null)) w
    where w.jobs is not null;

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

-- What each item of a request comes to, before anything is written.
create or replace function uvian._judge(items jsonb) returns setof uvian._judgement
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return query
  with requested as (
    select x.n, coalesce(x.id, gen_random_uuid()) as id, x.user_id, x.type, x.input,
           coalesce(x.priority, 0) as priority,
           case when uvian._is_moment(x.run_at) then x.run_at::timestamptz else now() end as run_at,
           not uvian._is_moment(x.run_at) as is_naive,
           x.idempotency_key, x.parent_id, x.max_cost, x.door, uvian._conversation_of(x.type, x.input) as conversation_id
    from rows from (jsonb_to_recordset(items) as (
      id uuid, user_id uuid, type text, input jsonb, priority integer, run_at text,
      idempotency_key text, parent_id uuid, max_cost numeric, door text
    )) with ordinality x (id, user_id, type, input, priority, run_at, idempotency_key, parent_id,
                          max_cost, door, n)
  ), known as (
    -- The same request again, by its id or by its key, is answered with what it made.
    select a.*, t.max_queued_per_user, t.max_running_per_user,
           case when p.type is null then 0 else uvian.calculate_cost(a.type, a.input) end as price,
           coalesce(k.id, i.id) as existing,
           i.id <> k.id or coalesce(k.user_id, i.user_id) <> a.user_id
             or coalesce(k.type, i.type) <> a.type
             or coalesce(k.input, i.input) is distinct from a.input as differs
    from requested a
    left join uvian.job_types t on t.type = a.type
    left join uvian.job_prices p on p.type = a.type
    left join lateral (select o.* from uvian.jobs o where o.id = a.id offset 0) i on true
    left join lateral (
      select o.* from uvian.jobs o
      where o.user_id = a.user_id and o.idempotency_key = a.idempotency_key offset 0) k on true
  ), weighed as (
    select k.*, case when k.existing is null then uvian._against(k.type, k.input, k.door) end as against from known k
  ), checked as (
    select k.*, case
        when k.existing is not null then case when k.differs then 'idempotency_conflict' end
        when k.against is not null then k.against ->> 'code'
        when k.is_naive then 'invalid_input'
        when not exists (select from auth.users u where u.id = k.user_id) then 'unknown_user'
        when k.parent_id is not null and not exists (
          select from uvian.jobs o where o.id = k.parent_id and o.user_id = k.user_id) then 'unknown_parent'
        when not uvian._may_speak(k.type, k.conversation_id, k.user_id) then 'not_found'
        when k.price > k.max_cost then 'cost_exceeds_max'
      end as code
    from weighed k
  ), counted as (
    -- As if all items before it were made; an item that is refused only because of them is tried again alone.
    select c.*, coalesce(a.balance, 0) as balance,
           sum(c.price) filter (where c.code is null and c.existing is null)
             over (partition by c.user_id order by c.n) as spent,
           count(*) filter (where c.code is null and c.existing is null)
             over (partition by c.user_id, c.type order by c.n) as in_line,
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
         j.price,
         -- Who waits to be let in. Where slots are free and nobody waits for one, nobody is looked for.
         j.max_running_per_user is not null and (
           j.run_at > now()
           or j.in_line > uvian._slots_free(j.user_id, j.type)
           or exists (select from uvian.jobs w
                      where w.user_id = j.user_id and w.type = j.type and w.status = 'queued'
                        and not w.admitted and w.its_turn)),
         j.existing, j.verdict,
         case when j.against is not null then j.against - 'code'
              when j.verdict = 'invalid_input' then jsonb_build_object('field', 'run_at', 'message',
                'run_at is a moment with its offset from UTC, as in 2026-11-29T12:00:00Z.')
         else case j.verdict
           when 'too_many_queued' then jsonb_build_object('limit', j.max_queued_per_user)
           when 'cost_exceeds_max' then jsonb_build_object('cost', j.price::text)
           when 'insufficient_credits' then
             jsonb_build_object('cost', j.price::text, 'balance', j.balance::text)
           else '{}' end end,
         j.verdict in ('too_many_queued', 'insufficient_credits', 'unknown_parent'),
         j.conversation_id
  from judged j order by j.n;
end $$;

-- Why the operator's settings forbid this job; null if they allow it. Everything that creates a job, or queues one
-- that had ended, calls it. `door` is null for the service and for manual edits; `browser` is a signed-in
-- user, anything else an anonymous one.
create or replace function uvian._against(of_type text, input jsonb, door text) returns jsonb
language plpgsql stable
set search_path = ''
as $$
declare
  t record;
  known boolean;
  tokens jsonb := input -> 'max_tokens';
begin
  select x.enabled, x.browser, x.anonymous, x.max_input_bytes, x.models, x.max_tokens, x.system_prompt
    into t from uvian.job_types x where x.type = of_type;
  known := found;
  if door is not null and not coalesce(t.browser and (door = 'browser' or t.anonymous), false) then
    return jsonb_build_object('code', 'type_not_open', 'message', 'This type of job is not open to '
      || case when t.browser then 'anonymous sign-ins' else 'signed-in users' end
      || '; the operator opens it: uvian types open.');
  elsif not known then
    return '{"code": "unknown_type"}';
  elsif not t.enabled then
    return '{"code": "type_disabled"}';
  elsif jsonb_typeof(input) is distinct from 'object' then
    return '{"code": "invalid_input"}';
  elsif octet_length(input::text) > t.max_input_bytes then
    return jsonb_build_object('code', 'input_too_large', 'limit', t.max_input_bytes);
  elsif input ->> 'model' is not null and input ->> 'model' <> all (t.models) then
    return jsonb_build_object('code', 'not_allowed', 'field', 'model', 'message',
      'The model may be: ' || array_to_string(t.models, ', ') || '.');
  elsif t.max_tokens is not null and jsonb_typeof(tokens) <> 'null'
        and (case when jsonb_typeof(tokens) = 'number' then tokens::numeric > t.max_tokens else true end) then
    return jsonb_build_object('code', 'not_allowed', 'field', 'max_tokens', 'limit', t.max_tokens, 'message',
      format('max_tokens may be a number up to %s.', t.max_tokens));
  elsif t.system_prompt <> input ->> 'system_prompt' then
    return jsonb_build_object('code', 'not_allowed', 'field', 'system_prompt', 'message',
      'The system prompt is the operator''s: leave it out.');
  end if;
  return null;
end $$;

-- From supabase-js, as the signed-in user. → {job, created, accounts}; the sweeper dispatches.
create or replace function uvian.submit_job(type text, input jsonb, idempotency_key text default null,
                                            max_cost numeric default null) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  caller uuid := auth.uid();
  answer jsonb;
  created jsonb;
begin
  if caller is null then
    raise exception using errcode = 'PT401', message = 'unauthorized', detail = 'Sign in first.';
  end if;
  perform uvian._writing(true);
  answer := uvian._create_jobs(jsonb_build_array(jsonb_build_object(
    'user_id', caller, 'type', submit_job.type, 'input', submit_job.input,
    'idempotency_key', submit_job.idempotency_key, 'max_cost', submit_job.max_cost,
    'door', uvian._door(null))), interval '0');
  perform uvian._writing(false);
  created := uvian._created(answer);
  perform pg_notify('uvian_jobs', '');
  return created - 'dispatch' - 'delayed' || jsonb_build_object('accounts', answer -> 'accounts');
end $$;

-- What create_jobs answered for one item; a refusal is raised.
create or replace function uvian._created(answer jsonb) returns jsonb
language plpgsql immutable
set search_path = ''
as $$
begin
  perform uvian._raise(answer -> 'jobs' -> 0);
  return answer -> 'jobs' -> 0;
end $$;

-- Raises the refusal of such a job, if the settings forbid it.
create or replace function uvian._require_allowed(of_type text, input jsonb, door text) returns void
language plpgsql stable
set search_path = ''
as $$
declare
  refusal jsonb := uvian._against(of_type, input, door);
begin
  perform uvian._raise(case refusal ->> 'code'
    when 'unknown_type' then jsonb_build_object('message', format('There is no job type %L in uvian.job_types.', of_type))
    when 'type_disabled' then jsonb_build_object('message', format('Jobs of type %L are switched off.', of_type))
    else '{}' end || refusal);
end $$;

revoke all on function
  uvian.type_schemas(jsonb), uvian.create_jobs(jsonb), uvian._create_jobs(jsonb, interval),
  uvian._create_batch(jsonb, interval), uvian._judge(jsonb), uvian._against(text, jsonb, text),
  uvian.submit_job(text, jsonb, text, numeric), uvian._created(jsonb), uvian._require_allowed(text, jsonb, text)
  from public, anon, authenticated, service_role;
grant execute on function
  uvian.submit_job(text, jsonb, text, numeric)
  to authenticated;
grant execute on function
  uvian.type_schemas(jsonb), uvian.create_jobs(jsonb)
  to service_role;

select uvian._close();
notify pgrst, 'reload schema';
