-- min_code: 0.1.0
-- Chats among the jobs: created with a turn in their conversation, by whoever takes part in it.

alter type uvian._judgement add attribute conversation_id uuid;

create or replace function uvian._judge(items jsonb) returns setof uvian._judgement
language plpgsql
set search_path = '' set enable_seqscan = off
as $$
begin
  return query
  with asked as (
    select x.n, coalesce(x.id, gen_random_uuid()) as id, x.user_id, x.type, x.input,
           coalesce(x.priority, 0) as priority, coalesce(x.run_at, now()) as run_at,
           x.idempotency_key, x.parent_id, x.max_cost, uvian._conversation_of(x.type, x.input) as conversation_id
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
        when not uvian._may_speak(k.type, k.conversation_id, k.user_id) then 'not_found'
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
         j.verdict in ('too_many_queued', 'insufficient_credits', 'unknown_parent'),
         j.conversation_id
  from judged j order by j.n;
end $$;

-- A chat speaks in a conversation that its user takes part in; other jobs speak in none.
create function uvian._may_speak(type text, in_conversation uuid, of_user uuid) returns boolean
language plpgsql stable
set search_path = '' set enable_seqscan = off
as $$
begin
  return type <> 'chat' or exists (
    select from uvian.conversation_members m
    where m.conversation_id = in_conversation and m.user_id = of_user);
end $$;

-- The last turn that is taken in a conversation. The caller holds it.
create function uvian._last_turn(in_conversation uuid) returns integer
language plpgsql stable
set search_path = '' set enable_seqscan = off
as $$
begin
  return coalesce((select j.turn from uvian.jobs j
                   where j.conversation_id = in_conversation and j.status in ('queued', 'processing')
                   order by j.turn desc limit 1), 0);
end $$;

create or replace function uvian._create_batch(items jsonb, redispatch_in interval) returns jsonb[]
language plpgsql
set search_path = '' set enable_seqscan = off
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
  perform uvian._hold_places(conversations, users, types);
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

create or replace function uvian._job(j uvian.jobs) returns jsonb
language plpgsql stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', j.id, 'user_id', j.user_id, 'type', j.type, 'status', j.status, 'run', j.run,
    'attempt', j.attempt, 'priority', j.priority, 'run_at', j.run_at, 'cost', j.cost::text,
    'created_at', j.created_at, 'idempotency_key', j.idempotency_key, 'parent_id', j.parent_id,
    'conversation_id', j.conversation_id);
end $$;

-- ─── again ───────────────────────────────────────────────────────────────────────────────────

-- A chat that had ended gets in line behind those who wait; one that had its turn keeps it.
create or replace function uvian._restart(j uvian.jobs, keeps_checkpoints boolean, starts timestamptz,
                                          redispatch_in interval) returns uvian.jobs
language plpgsql
set search_path = ''
as $$
declare
  price numeric := uvian.calculate_cost(j.type, j.input);
  limited boolean := exists (select from uvian.job_types t
                             where t.type = j.type and t.max_running_per_user is not null);
  held numeric;
  is_new boolean;
begin
  perform uvian._lock_places(array[j.id]);
  perform uvian._lock_accounts(array[j.user_id]);
  insert into uvian.job_state (job_id) values (j.id) on conflict do nothing;
  is_new := found;  -- inserted by hand
  select s.reserved into held from uvian.job_state s where s.job_id = j.id;
  update uvian.jobs w
    set status = 'queued', run = w.run + (not is_new)::integer, attempt = 0,
        admitted = not limited and w.its_turn,
        turn = case when w.its_turn then w.turn else uvian._last_turn(w.conversation_id) + 1 end,
        run_at = starts,
        output = null, result_id = null, error = null, error_message = null, stage = null,
        stages = '[]', progress = 0, progress_message = null, started_at = null, finished_at = null,
        cost = case when held > 0 then held else price end, updated_at = now()
    where w.id = j.id returning * into j;
  update uvian.job_state s
    set redispatch_at = case when j.admitted then now() + redispatch_in
                             when starts > now() then starts end,
        dispatches = 0, dispatched_at = null, announce_at = null, crashes = 0, isolated = false,
        refusals = 0, checkpoints = case when keeps_checkpoints then s.checkpoints else '{}' end
    where s.job_id = j.id;
  delete from uvian.job_leases l where l.job_id = j.id;
  if held = 0 and not uvian._reserve(j.id, j.user_id, price) then
    raise exception using errcode = 'PT402', message = 'insufficient_credits',
      detail = format('The job costs %s credits; the balance is %s.', price,
                      uvian._account(j.user_id) ->> 'balance');
  end if;
  if not j.admitted then
    perform uvian._let_in(array[j.id], redispatch_in);
    select * into j from uvian.jobs w where w.id = j.id;
  end if;
  return j;
end $$;

create or replace function uvian._require_retryable(j uvian.jobs, expected_run bigint) returns void
language plpgsql
set search_path = ''
as $$
declare
  t uvian.job_types;
begin
  if j.run <> expected_run or j.status not in ('failed', 'cancelled') then
    raise exception using errcode = 'PT409', message = 'not_retryable',
      detail = format('The job is %s (run %s); only failed and cancelled jobs are retried.', j.status, j.run);
  end if;
  select * into t from uvian.job_types x where x.type = j.type;
  if t.enabled is not true then
    raise exception using errcode = 'PT422', message = 'type_disabled',
      detail = format('Jobs of type %L are not accepted at the moment.', j.type);
  end if;
  perform uvian._lock_places(array[j.id]);
  if j.conversation_id is not null and not uvian._may_speak(j.type, j.conversation_id, j.user_id) then
    raise exception using errcode = 'PT404', message = 'not_found', detail = 'There is no such conversation.';
  end if;
  if t.max_queued_per_user is null then
    return;
  end if;
  if t.max_queued_per_user <= (select count(*) from uvian.jobs q
                               where q.user_id = j.user_id and q.type = j.type and q.status = 'queued') then
    raise exception using errcode = 'PT429', message = 'too_many_queued',
      detail = format('At most %s jobs of type %L wait at a time.', t.max_queued_per_user, j.type);
  end if;
end $$;

-- ─── from the browser ────────────────────────────────────────────────────────────────────────

create function uvian._require_open(of_type text) returns void
language plpgsql stable
set search_path = ''
as $$
begin
  if not exists (
      select from uvian.job_types t
      where t.type = of_type and t.browser
        and (t.anonymous or not coalesce((auth.jwt() ->> 'is_anonymous')::boolean, false))) then
    raise exception using errcode = 'PT403', message = 'type_not_open',
      detail = 'This type of job cannot be submitted from a browser; the operator opens it in uvian.job_types.';
  end if;
end $$;

-- What create_jobs answered for one item; a refusal is raised.
create function uvian._created(answer jsonb) returns jsonb
language plpgsql immutable
set search_path = ''
as $$
declare
  code text := answer -> 'jobs' -> 0 ->> 'code';
begin
  if code is not null then
    raise exception using
      errcode = case code when 'insufficient_credits' then 'PT402' when 'not_found' then 'PT404'
                          when 'idempotency_conflict' then 'PT409' when 'input_too_large' then 'PT413'
                          when 'too_many_queued' then 'PT429' else 'PT422' end,
      message = code, detail = (answer -> 'jobs' -> 0)::text;
  end if;
  return answer -> 'jobs' -> 0;
end $$;

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
  perform uvian._require_open(submit_job.type);
  perform uvian._writing(true);
  answer := uvian._create_jobs(jsonb_build_array(jsonb_build_object(
    'user_id', caller, 'type', submit_job.type, 'input', submit_job.input,
    'idempotency_key', submit_job.idempotency_key, 'max_cost', submit_job.max_cost)), interval '0');
  perform uvian._writing(false);
  created := uvian._created(answer);
  perform pg_notify('uvian_jobs', '');
  return created - 'dispatch' - 'delayed' || jsonb_build_object('accounts', answer -> 'accounts');
end $$;

-- ─── by hand ─────────────────────────────────────────────────────────────────────────────────

create or replace function uvian._before_hand() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  if new.status = 'processing' and (tg_op = 'INSERT' or old.status <> 'processing') then
    raise exception using errcode = 'PT409', message = 'claimed_by_workers_only',
      detail = 'A job becomes processing when a worker claims it; set it to queued.';
  end if;
  if tg_op = 'INSERT' then
    new.conversation_id := uvian._conversation_of(new.type, new.input);
    new.its_turn := new.conversation_id is null;  -- a chat gets in line
    if new.status = 'queued' then
      if not exists (select from uvian.job_types t where t.type = new.type and t.enabled) then
        raise exception using errcode = 'PT422', message = 'unknown_type',
          detail = format('There is no enabled job type %L in uvian.job_types.', new.type);
      end if;
      if not uvian._may_speak(new.type, new.conversation_id, new.user_id) then
        raise exception using errcode = 'PT404', message = 'not_found',
          detail = 'There is no such conversation, or the user takes no part in it.';
      end if;
      new.run := 1;
      new.attempt := 0;
      new.admitted := new.its_turn;
    end if;
  else
    if (new.id, new.user_id) <> (old.id, old.user_id)
       or uvian._conversation_of(new.type, new.input) is distinct from uvian._conversation_of(old.type, old.input) then
      raise exception using errcode = 'PT409', message = 'owner_is_fixed',
        detail = 'A job keeps its id, its user and its conversation; insert another one.';
    end if;
    new.run := old.run;  -- the fence is nobody's to set
    new.attempt := old.attempt;
    new.cost := old.cost;
    new.admitted := old.admitted;
    new.conversation_id := old.conversation_id;
    new.turn := old.turn;
    new.its_turn := old.its_turn;
  end if;
  return new;
end $$;

create or replace function uvian._after_hand() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  perform uvian._writing(true);
  if new.status = 'queued' and (tg_op = 'INSERT' or old.status <> 'queued') then
    perform uvian._restart(new, tg_op = 'UPDATE' and old.status <> 'completed',
                           case when tg_op = 'INSERT' then greatest(new.run_at, now()) else now() end,
                           interval '0');
    perform pg_notify('uvian_jobs', '');
  elsif tg_op = 'UPDATE' and old.status in ('queued', 'processing')
        and new.status in ('completed', 'failed', 'cancelled') then
    perform uvian._lock_places(array[new.id]);
    perform uvian._lock_payers(array[new.id]);
    perform uvian._end(array[(
      new.id, new.run, 'by_hand', null, new.status, new.attempt, 0, (new.status = 'completed')::integer,
      jsonb_build_object('output', new.output, 'result_id', new.result_id, 'error', new.error,
                         'error_message', new.error_message))::uvian._verdict]);
    perform uvian._reconsider(new.user_id, new.type, interval '0');
    perform uvian._reconsider_turn(new.conversation_id, interval '0');
  elsif tg_op = 'INSERT' then
    insert into uvian.job_state (job_id) values (new.id);
  end if;
  perform uvian._writing(false);
  return null;
end $$;

create or replace function uvian._before_delete() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  perform uvian._release(old.id, old.user_id);
  perform uvian._reconsider(old.user_id, old.type, interval '0');
  if old.its_turn then
    perform uvian._reconsider_turn(old.conversation_id, interval '0');
  end if;
  return old;
end $$;

drop trigger by_hand on uvian.jobs;
create trigger by_hand
  before insert or update of id, user_id, type, input, status, run, attempt, cost, admitted,
                             conversation_id, turn, its_turn on uvian.jobs
  for each row when (coalesce(current_setting('uvian.writer', true), '') <> 'function') execute function uvian._before_hand();

revoke all on function
  uvian._may_speak(text, uuid, uuid), uvian._last_turn(uuid), uvian._require_open(text), uvian._created(jsonb)
  from public, anon, authenticated, service_role;

select uvian._close();
notify pgrst, 'reload schema';
