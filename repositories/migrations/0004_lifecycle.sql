-- min_code: 0.1.0
-- The life of a job. Each function takes and answers one jsonb, works on up to 500 jobs, may be
-- repeated after a lost reply, and ignores keys it does not know.
--
-- What these functions write is marked by a setting (`_writing`): everything else is a hand in the
-- SQL editor, and normalised by the triggers of 0005. Only the outermost function sets and clears
-- it; an error rolls it back with everything else.
-- Lock order: jobs by id, places by (user, type), accounts by user.

create function uvian._writing(by_function boolean) returns void
language sql
set search_path = ''
as $$
  select set_config('uvian.writer', case when by_function then 'function' else '' end, true)
$$;

-- How the service sees a job; without its input, which may be large.
create function uvian._job(j uvian.jobs) returns jsonb
language sql stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', j.id, 'user_id', j.user_id, 'type', j.type, 'status', j.status, 'run', j.run,
    'attempt', j.attempt, 'priority', j.priority, 'run_at', j.run_at, 'cost', j.cost::text,
    'created_at', j.created_at, 'idempotency_key', j.idempotency_key, 'parent_id', j.parent_id)
$$;

-- What dispatch needs.
create function uvian._dispatch(j uvian.jobs) returns jsonb
language sql stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', j.id, 'user_id', j.user_id, 'type', j.type, 'run', j.run, 'attempt', j.attempt,
    'priority', j.priority, 'run_at', j.run_at, 'delayed', j.run_at > now())
$$;

-- What the announcement of an ending needs.
create function uvian._ending(j uvian.jobs) returns jsonb
language sql stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', j.id, 'user_id', j.user_id, 'type', j.type, 'run', j.run, 'attempt', j.attempt,
    'status', j.status, 'output', j.output, 'result_id', j.result_id, 'error', j.error,
    'error_message', j.error_message, 'stages', j.stages, 'cost', j.cost::text)
$$;

-- Places under max_running_per_user. Who holds the lock may count and admit: the limit is exact.
create function uvian._lock_places(of_jobs uuid[]) returns void
language plpgsql
set search_path = ''
as $$
declare
  place bigint;
begin
  for place in
    select distinct hashtextextended('uvian place ' || j.user_id || ' ' || j.type, 0) as key
    from uvian.jobs j join uvian.job_types t on t.type = j.type
    where j.id = any (of_jobs) and t.max_running_per_user is not null
    order by key
  loop
    perform pg_advisory_xact_lock(place);
  end loop;
end $$;

create function uvian._places_free(of_user uuid, of_type text) returns integer
language sql stable
set search_path = ''
as $$
  select coalesce(
    (select t.max_running_per_user from uvian.job_types t where t.type = of_type)
    - (select count(*)::integer from uvian.jobs j
       where j.user_id = of_user and j.type = of_type and j.admitted
         and j.status in ('queued', 'processing')),
    2147483647)
$$;

-- Admits those who wait and are due, oldest first, as far as there are places; answers them for
-- dispatch. The caller holds the place lock. Rows somebody holds are left to them.
create function uvian._admit(of_user uuid, of_type text) returns setof jsonb
language plpgsql
set search_path = ''
as $$
declare
  free integer := uvian._places_free(of_user, of_type);
  j uvian.jobs;
begin
  if free <= 0 then
    return;
  end if;
  for j in
    select * from uvian.jobs w
    where w.user_id = of_user and w.type = of_type and w.status = 'queued' and not w.admitted
      and w.run_at <= now()
    order by w.score limit least(free, 500)
    for no key update skip locked
  loop
    update uvian.jobs w set admitted = true, updated_at = now() where w.id = j.id returning * into j;
    update uvian.job_state s set redispatch_at = now() + interval '5 s' where s.job_id = j.id;
    return next uvian._dispatch(j);
  end loop;
end $$;

-- Back to the queue as a new run, `delay` seconds from now. A job that will not be due at once
-- gives its place to the next.
create function uvian._requeue(j uvian.jobs, delay double precision, attempts integer) returns uvian.jobs
language plpgsql
set search_path = ''
as $$
declare
  keeps boolean := delay <= 1
    or (select t.max_running_per_user is null from uvian.job_types t where t.type = j.type);
begin
  update uvian.jobs w
    set status = 'queued', run = w.run + 1, attempt = attempts, admitted = keeps,
        run_at = now() + make_interval(secs => delay), stage = null, progress = 0,
        progress_message = null, started_at = null, updated_at = now()
    where w.id = j.id returning * into j;
  update uvian.job_state s
    set dispatches = 0, dispatched_at = null,
        redispatch_at = case when keeps then now() + interval '5 s' else j.run_at end
    where s.job_id = j.id;
  return j;
end $$;

-- The end of a job: its row, its reservation, its lease, its announcement.
create function uvian._end(j uvian.jobs, ending text, fraction numeric, result jsonb) returns uvian.jobs
language plpgsql
set search_path = ''
as $$
declare
  charged numeric := uvian._settle_credits(j.id, j.user_id, fraction);
begin
  update uvian.jobs w
    set status = ending, cost = charged, finished_at = now(), updated_at = now(),
        progress = case when ending = 'completed' then 1 else w.progress end,
        stage = null, progress_message = null,
        output = result -> 'output', result_id = (result ->> 'result_id')::uuid,
        error = nullif(result -> 'error', 'null'), error_message = result ->> 'error_message',
        stages = coalesce(nullif(result -> 'stages', 'null'), w.stages)
    where w.id = j.id returning * into j;
  update uvian.job_state s
    set redispatch_at = null, announce_at = now() + interval '5 s',
        checkpoints = case when ending = 'completed' then '{}' else s.checkpoints end
    where s.job_id = j.id;
  delete from uvian.job_leases l where l.job_id = j.id;
  if ending <> 'completed' then
    -- What this run stored belongs to no finished job: nobody paid for it, nobody shall see it.
    delete from uvian.concepts c where c.job_id = j.id and c.run = j.run;
  end if;
  return j;
end $$;

create function uvian._error(code text, message text, attempt integer) returns jsonb
language sql immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'error', jsonb_build_object('code', code, 'stage', null, 'message', message,
                                'retryable', false, 'attempt', attempt),
    'error_message', message)
$$;

-- ─── create ──────────────────────────────────────────────────────────────────────────────────

-- One job. The caller holds the places and accounts it needs.
create function uvian._create_job(item jsonb, redispatch_in interval) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  owner uuid := (item ->> 'user_id')::uuid;
  key text := item ->> 'idempotency_key';
  t uvian.job_types;
  j uvian.jobs;
  price numeric;
  starts timestamptz := coalesce((item ->> 'run_at')::timestamptz, now());
  admits boolean := true;
begin
  select * into t from uvian.job_types x where x.type = item ->> 'type';
  if t.type is null then
    return jsonb_build_object('code', 'unknown_type');
  end if;

  -- The same request again, by its id or by its key, is answered with what it made.
  select * into j from uvian.jobs x
    where x.id = (item ->> 'id')::uuid or (key is not null and x.user_id = owner and x.idempotency_key = key)
    limit 1;
  if j.id is not null then
    if j.user_id <> owner or j.type <> t.type or j.input <> item -> 'input' then
      return jsonb_build_object('code', 'idempotency_conflict');
    end if;
    return jsonb_build_object('job', uvian._job(j), 'created', false, 'dispatch', false);
  end if;

  price := uvian.calculate_cost(t.type, item -> 'input');
  if not t.enabled then
    return jsonb_build_object('code', 'type_disabled');
  elsif jsonb_typeof(item -> 'input') is distinct from 'object' then
    return jsonb_build_object('code', 'invalid_input');
  elsif octet_length((item -> 'input')::text) > t.max_input_bytes then
    return jsonb_build_object('code', 'input_too_large', 'limit', t.max_input_bytes);
  elsif not exists (select from auth.users u where u.id = owner) then
    return jsonb_build_object('code', 'unknown_user');
  elsif t.max_queued_per_user is not null and t.max_queued_per_user <= (
      select count(*) from uvian.jobs x
      where x.user_id = owner and x.type = t.type and x.status = 'queued') then
    return jsonb_build_object('code', 'too_many_queued', 'limit', t.max_queued_per_user);
  elsif price > (item ->> 'max_cost')::numeric then
    return jsonb_build_object('code', 'cost_exceeds_max', 'cost', price::text);
  elsif price > 0 and price > coalesce(
      (select a.balance from uvian.credit_accounts a where a.user_id = owner), 0) then
    return jsonb_build_object('code', 'insufficient_credits', 'cost', price::text,
                              'balance', uvian._account(owner) ->> 'balance');
  end if;

  if t.max_running_per_user is not null then
    admits := starts <= now() and uvian._places_free(owner, t.type) > 0;
  end if;
  insert into uvian.jobs (id, user_id, type, input, priority, run_at, idempotency_key, parent_id,
                          cost, admitted)
    values (coalesce((item ->> 'id')::uuid, gen_random_uuid()), owner, t.type, item -> 'input',
            coalesce((item ->> 'priority')::integer, 0), starts, key,
            (item ->> 'parent_id')::uuid, price, admits)
    on conflict do nothing
    returning * into j;
  if j.id is null then
    -- Somebody committed the same key between our look and our insert: look again.
    return uvian._create_job(item, redispatch_in);
  end if;
  insert into uvian.job_state (job_id, redispatch_at)
    values (j.id, case when admits then now() + redispatch_in
                       when starts > now() then starts end);
  perform uvian._reserve(j.id, owner, price);
  return jsonb_build_object('job', uvian._job(j), 'created', true,
                            'dispatch', admits, 'delayed', starts > now());
end $$;

create function uvian._create_jobs(items jsonb, redispatch_in interval) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  place bigint;
  answers jsonb[] := array_fill(null::jsonb, array[jsonb_array_length(items)]);
  item record;
begin
  for place in
    select distinct hashtextextended('uvian place ' || (e ->> 'user_id') || ' ' || t.type, 0) as key
    from jsonb_array_elements(items) e join uvian.job_types t on t.type = e ->> 'type'
    where t.max_running_per_user is not null or t.max_queued_per_user is not null
    order by key
  loop
    perform pg_advisory_xact_lock(place);
  end loop;
  perform uvian._lock_accounts(array(
    select distinct (e ->> 'user_id')::uuid
    from jsonb_array_elements(items) e join uvian.job_prices p on p.type = e ->> 'type'));
  -- One order for everybody: two batches with the same keys wait for each other, never both ways.
  for item in
    select e, n from jsonb_array_elements(items) with ordinality x (e, n)
    order by e ->> 'user_id', e ->> 'idempotency_key', e ->> 'id', n
  loop
    answers[item.n] := uvian._create_job(item.e, redispatch_in);
  end loop;
  return jsonb_build_object(
    'jobs', to_jsonb(answers),
    'accounts', uvian._accounts(array(
      select (a -> 'job' ->> 'user_id')::uuid from unnest(answers) a
      where (a ->> 'created')::boolean and (a -> 'job' ->> 'cost')::numeric > 0)));
end $$;

-- {jobs: [{id?, user_id, type, input, priority?, run_at?, idempotency_key?, parent_id?, max_cost?}]}
-- → {jobs: [{job, created, dispatch} | {code, …}], accounts}; the caller dispatches.
create function uvian.create_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  answer jsonb;
begin
  perform uvian._writing(true);
  answer := uvian._create_jobs(request -> 'jobs', interval '5 s');
  perform uvian._writing(false);
  return answer;
end $$;

-- ─── claim ───────────────────────────────────────────────────────────────────────────────────

create function uvian._claimed(j uvian.jobs, asks_cancel boolean) returns jsonb
language sql stable
set search_path = ''
as $$
  select uvian._job(j) || jsonb_build_object(
    'claimed', true, 'input', j.input, 'cancel_requested', asks_cancel,
    'started_at', j.started_at,
    'checkpoints', (select s.checkpoints from uvian.job_state s where s.job_id = j.id),
    'max_attempts', (select t.max_attempts from uvian.job_types t where t.type = j.type))
$$;

-- Queued → processing. The caller holds the row.
create function uvian._claim(j uvian.jobs, by_worker text, lease_seconds double precision, by_nonce uuid)
returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  update uvian.jobs w
    set status = 'processing', started_at = now(), updated_at = now(), stages = '[]',
        progress = 0, stage = null, progress_message = null
    where w.id = j.id returning * into j;
  update uvian.job_state s
    set redispatch_at = null, dispatches = 0, refusals = 0 where s.job_id = j.id;
  insert into uvian.job_leases (job_id, run, worker, expires_at, isolated, nonce)
    select j.id, j.run, by_worker, clock_timestamp() + make_interval(secs => lease_seconds), s.isolated, by_nonce
    from uvian.job_state s where s.job_id = j.id;
  return uvian._claimed(j, false);
end $$;

-- A claim refused: arq has forgotten the id, so the run is bumped and offered again, later each time.
create function uvian._refuse(j uvian.jobs, reason text) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  update uvian.jobs w set run = w.run + 1, updated_at = now() where w.id = j.id returning * into j;
  update uvian.job_state s
    set refusals = least(s.refusals + 1, 6), dispatches = 0, dispatched_at = null,
        redispatch_at = case when j.admitted
          then now() + make_interval(secs => least(30, power(2, s.refusals))) end
    where s.job_id = j.id;
  return jsonb_build_object('id', j.id, 'claimed', false, 'reason', reason, 'run', j.run);
end $$;

-- Why this worker may not have the job now, if so. A suspect (isolated) runs alone in its worker.
create function uvian._objection(j uvian.jobs, by_worker text) returns text
language sql stable
set search_path = ''
as $$
  select case
    when not j.admitted then 'waiting'
    when exists (select from uvian.job_leases l where l.worker = by_worker and l.isolated)
      then 'worker_isolating'
    when (select s.isolated from uvian.job_state s where s.job_id = j.id)
      and exists (select from uvian.job_leases l where l.worker = by_worker) then 'worker_busy'
  end
$$;

-- {worker, lease_seconds, jobs: [{id, run}]} → {jobs: [{claimed: true, …} | {claimed: false, reason}]}
create function uvian.claim_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  by_worker text := request ->> 'worker';
  seconds double precision := coalesce((request ->> 'lease_seconds')::double precision, 15);
  answers jsonb[] := array_fill(null::jsonb, array[jsonb_array_length(request -> 'jobs')]);
  item record;
  j uvian.jobs;
  l uvian.job_leases;
  objection text;
begin
  perform uvian._writing(true);
  for item in
    select n, (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run
    from jsonb_array_elements(request -> 'jobs') with ordinality x (e, n) order by 2, 3
  loop
    select * into j from uvian.jobs x where x.id = item.id for no key update;
    if j.id is null then
      answers[item.n] := jsonb_build_object('id', item.id, 'claimed', false, 'reason', 'not_found');
    elsif j.run <> item.run or j.status not in ('queued', 'processing') then
      answers[item.n] := jsonb_build_object('id', item.id, 'claimed', false, 'reason', 'stale', 'run', j.run);
    elsif j.status = 'processing' then
      select * into l from uvian.job_leases x where x.job_id = j.id;
      answers[item.n] := case when l.worker = by_worker and l.run = item.run
        then uvian._claimed(j, l.cancel_requested)
        else jsonb_build_object('id', j.id, 'claimed', false, 'reason', 'stale', 'run', j.run) end;
    else
      objection := uvian._objection(j, by_worker);
      answers[item.n] := case when objection is null
        then uvian._claim(j, by_worker, seconds, null) else uvian._refuse(j, objection) end;
    end if;
  end loop;
  perform uvian._writing(false);
  return jsonb_build_object('jobs', to_jsonb(answers));
end $$;

-- Polling without a queue: due, oldest first with priority, only types the worker has.
-- {worker, nonce, types: [text], limit, lease_seconds} → {jobs: [{claimed: true, …}]}
create function uvian.claim_next_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  by_worker text := request ->> 'worker';
  by_nonce uuid := (request ->> 'nonce')::uuid;
  most integer := least(coalesce((request ->> 'limit')::integer, 1), 500);
  seconds double precision := coalesce((request ->> 'lease_seconds')::double precision, 15);
  answers jsonb;
  j uvian.jobs;
begin
  if by_nonce is null then
    raise exception using errcode = 'PT422', message = 'nonce_missing',
      detail = 'Send a fresh uuid as nonce, and the same one again when the reply was lost.';
  end if;
  select jsonb_agg(uvian._claimed(x, l.cancel_requested) order by x.score) into answers
    from uvian.job_leases l join uvian.jobs x on x.id = l.job_id
    where l.worker = by_worker and l.nonce = by_nonce;
  if answers is not null then
    return jsonb_build_object('jobs', answers);
  end if;
  answers := '[]';
  perform uvian._writing(true);
  for j in
    select due.* from jsonb_array_elements_text(request -> 'types') asked (type)
    cross join lateral (
      select * from uvian.jobs x
      where x.type = asked.type and x.status = 'queued' and x.admitted and x.run_at <= now()
      order by x.score limit most
      for no key update skip locked) due
    order by due.score limit most
  loop
    if uvian._objection(j, by_worker) is null then
      answers := answers || uvian._claim(j, by_worker, seconds, by_nonce);
    end if;
  end loop;
  perform uvian._writing(false);
  return jsonb_build_object('jobs', answers);
end $$;

-- ─── while it runs ───────────────────────────────────────────────────────────────────────────

-- {worker, lease_seconds, jobs: [{id, run, stage?, progress?, message?, stages?}]}
-- → {lost: [id], cancel: [id]}. A lease that expired but was not swept is renewed.
create function uvian.renew_leases(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  by_worker text := request ->> 'worker';
  seconds double precision := coalesce((request ->> 'lease_seconds')::double precision, 15);
  lost jsonb;
  cancel jsonb;
begin
  update uvian.workers w set last_seen = now() where w.name = by_worker;
  if jsonb_array_length(coalesce(request -> 'jobs', '[]')) = 0 then
    return jsonb_build_object('lost', '[]'::jsonb, 'cancel', '[]'::jsonb);
  end if;

  with asked as (
    select (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run
    from jsonb_array_elements(request -> 'jobs') e
  ), free as (
    select l.job_id from uvian.job_leases l join asked a on a.id = l.job_id and a.run = l.run
    where l.worker = by_worker
    for no key update of l skip locked
  )
  update uvian.job_leases l set expires_at = clock_timestamp() + make_interval(secs => seconds)
    from free where free.job_id = l.job_id;

  with changed as (
    select j.id, e ->> 'stage' as stage, least(greatest((e ->> 'progress')::real, 0), 1) as progress,
           e ->> 'message' as message, coalesce(nullif(e -> 'stages', 'null'), j.stages) as stages
    from jsonb_array_elements(request -> 'jobs') e
    join uvian.job_leases l on l.job_id = (e ->> 'id')::uuid and l.run = (e ->> 'run')::bigint
      and l.worker = by_worker
    join uvian.jobs j on j.id = l.job_id and j.status = 'processing'
    where e ? 'progress'
      and (j.stage, j.progress, j.progress_message) is distinct from
          (e ->> 'stage', (e ->> 'progress')::real, e ->> 'message')
    for no key update of j skip locked
  )
  update uvian.jobs j
    set stage = c.stage, progress = c.progress, progress_message = c.message, stages = c.stages,
        updated_at = now()
    from changed c where c.id = j.id;

  select coalesce(jsonb_agg(a.id) filter (where l.job_id is null), '[]'),
         coalesce(jsonb_agg(a.id) filter (where l.cancel_requested), '[]')
    into lost, cancel
    from (select (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run
          from jsonb_array_elements(request -> 'jobs') e) a
    left join uvian.job_leases l on l.job_id = a.id and l.run = a.run and l.worker = by_worker;
  return jsonb_build_object('lost', lost, 'cancel', cancel);
end $$;

-- {dispatched: [{id, run}], announced: [{id, run}]} → {}. Lost marks cost a repeated no-op.
create function uvian.mark_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
begin
  with told as (
    select s.job_id from jsonb_array_elements(coalesce(request -> 'dispatched', '[]')) e
    join uvian.jobs j on j.id = (e ->> 'id')::uuid and j.run = (e ->> 'run')::bigint
      and j.status = 'queued' and j.admitted
    join uvian.job_state s on s.job_id = j.id
    for no key update of s skip locked
  )
  update uvian.job_state s
    set dispatched_at = clock_timestamp(), dispatches = least(s.dispatches + 1, 6),
        redispatch_at = now() + least(interval '30 s' * power(2, s.dispatches), interval '10 min')
    from told where told.job_id = s.job_id and s.redispatch_at is not null;

  with told as (
    select s.job_id from jsonb_array_elements(coalesce(request -> 'announced', '[]')) e
    join uvian.jobs j on j.id = (e ->> 'id')::uuid and j.run = (e ->> 'run')::bigint
    join uvian.job_state s on s.job_id = j.id
    for no key update of s skip locked
  )
  update uvian.job_state s set announce_at = null
    from told where told.job_id = s.job_id and s.announce_at is not null;
  return '{}';
end $$;

-- {worker, jobs: [{id, run, checkpoints: {…}}]} → {jobs: [{saved: bool}]}. Merged into what is there.
create function uvian.save_checkpoints(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  answers jsonb[] := array_fill(null::jsonb, array[jsonb_array_length(request -> 'jobs')]);
  item record;
begin
  for item in
    select n, (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run, e -> 'checkpoints' as checkpoints
    from jsonb_array_elements(request -> 'jobs') with ordinality x (e, n) order by 2, 1
  loop
    perform 1 from uvian.jobs j join uvian.job_leases l on l.job_id = j.id and l.run = j.run
      where j.id = item.id and j.run = item.run and j.status = 'processing'
        and l.worker = request ->> 'worker'
      for no key update of j;
    if found then
      update uvian.job_state s set checkpoints = s.checkpoints || item.checkpoints
        where s.job_id = item.id;
    end if;
    answers[item.n] := jsonb_build_object('saved', found);
  end loop;
  return jsonb_build_object('jobs', to_jsonb(answers));
end $$;

-- The concept of a generation or refinement, with its variations, written only by the run that
-- holds the job; its id is the caller's, so that a repetition replaces instead of adding.
-- {worker, job_id, run, concept: {id, …}, variations: [{id, position, …}]} → {stored: bool}
create function uvian.store_concept(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  owner uuid;
  c uvian.concepts;
begin
  select j.user_id into owner
    from uvian.jobs j join uvian.job_leases l on l.job_id = j.id and l.run = j.run
    where j.id = (request ->> 'job_id')::uuid and j.run = (request ->> 'run')::bigint
      and j.status = 'processing' and l.worker = request ->> 'worker'
    for no key update of j;
  if owner is null then
    return jsonb_build_object('stored', false);
  end if;
  c := jsonb_populate_record(null::uvian.concepts, request -> 'concept');
  if c.parent_id is not null and not exists (
      select from uvian.concepts p where p.id = c.parent_id and p.user_id = owner) then
    raise exception using errcode = 'PT404', message = 'not_found', detail = 'There is no such concept.';
  end if;
  insert into uvian.concepts as o (id, user_id, job_id, run, parent_id, logo_description,
      theme_description, image_path, width, height, details)
    values (c.id, owner, (request ->> 'job_id')::uuid, (request ->> 'run')::bigint, c.parent_id,
      c.logo_description, c.theme_description, c.image_path, c.width, c.height, coalesce(c.details, '{}'))
    on conflict (id) do update
      set run = excluded.run, parent_id = excluded.parent_id,
          logo_description = excluded.logo_description, theme_description = excluded.theme_description,
          image_path = excluded.image_path, width = excluded.width, height = excluded.height,
          details = excluded.details
      where o.user_id = owner and o.job_id = excluded.job_id;
  if not found then
    raise exception using errcode = 'PT409', message = 'conflict',
      detail = 'The concept id belongs to another job.';
  end if;
  delete from uvian.concept_variations v where v.concept_id = c.id;
  insert into uvian.concept_variations (id, concept_id, user_id, position, name, palette, image_path, width, height)
    select v.id, c.id, owner, v.position, v.name, v.palette, v.image_path, v.width, v.height
    from jsonb_populate_recordset(null::uvian.concept_variations, request -> 'variations') v;
  return jsonb_build_object('stored', true);
end $$;

-- ─── settle ──────────────────────────────────────────────────────────────────────────────────

create function uvian._record_run(j uvian.jobs, of_run bigint, by_worker text, as_outcome text) returns void
language sql
set search_path = ''
as $$
  insert into uvian.job_runs (job_id, run, worker, outcome, status, attempt, cost)
    values (j.id, of_run, by_worker, as_outcome, j.status, j.attempt, j.cost)
    on conflict do nothing
$$;

-- What a settlement comes to, once the row is held.
create function uvian._settle(j uvian.jobs, item jsonb, cancels boolean) returns uvian.jobs
language plpgsql
set search_path = ''
as $$
declare
  outcome text := item ->> 'outcome';
  burnt integer := j.attempt + (coalesce((item ->> 'burn')::boolean, true))::integer;
  most integer;
begin
  if outcome = 'completed' then
    return uvian._end(j, 'completed', coalesce((item ->> 'charge')::numeric, 1), item);
  elsif outcome = 'failed' then
    update uvian.jobs w set attempt = burnt where w.id = j.id;
    return uvian._end(j, 'failed', coalesce((item ->> 'charge')::numeric, 0), item);
  elsif outcome = 'cancelled' or cancels then
    return uvian._end(j, 'cancelled', coalesce((item ->> 'charge')::numeric, 0),
                      item - 'error' - 'error_message');
  elsif outcome = 'retry' then
    select t.max_attempts into most from uvian.job_types t where t.type = j.type;
    if burnt > j.attempt and burnt >= coalesce(most, 1) then
      update uvian.jobs w set attempt = burnt where w.id = j.id;
      return uvian._end(j, 'failed', 0, item);
    end if;
    return uvian._requeue(j, coalesce((item ->> 'delay')::double precision, 1), burnt);
  elsif outcome = 'interrupted' then
    return uvian._requeue(j, 0, j.attempt);
  elsif outcome = 'not_mine' then
    update uvian.job_state s set refusals = least(s.refusals + 1, 6) where s.job_id = j.id
      returning s.refusals - 1 into most;
    return uvian._requeue(j, least(30, power(2, most)), j.attempt);
  end if;
  raise exception using errcode = 'PT422', message = 'unknown_outcome',
    detail = 'completed, failed, cancelled, retry, interrupted or not_mine';
end $$;

-- {worker, jobs: [{id, run, outcome, output?, result_id?, error?, error_message?, stages?,
--   delay? (seconds), burn? (an attempt; default true), charge? (fraction of the reservation)}]}
-- → {jobs: [{id, run, settled, status, attempt, cost, next_run}], dispatch: […], accounts: […]}
create function uvian.settle_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  by_worker text := request ->> 'worker';
  ids uuid[] := array(select (e ->> 'id')::uuid from jsonb_array_elements(request -> 'jobs') e);
  paying uuid[];
  answers jsonb[] := array_fill(null::jsonb, array[jsonb_array_length(request -> 'jobs')]);
  dispatch jsonb := '[]';
  item record;
  j uvian.jobs;
  l uvian.job_leases;
  r uvian.job_runs;
begin
  perform uvian._writing(true);
  perform 1 from uvian.jobs x where x.id = any (ids) order by x.id for no key update;
  perform uvian._lock_places(ids);
  paying := array(select x.user_id from uvian.jobs x join uvian.job_state s on s.job_id = x.id
                  where x.id = any (ids) and s.reserved > 0);
  if cardinality(paying) > 0 then
    perform uvian._lock_accounts(paying);
  end if;

  for item in
    select n, e, (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run
    from jsonb_array_elements(request -> 'jobs') with ordinality x (e, n) order by 3, 4
  loop
    select * into j from uvian.jobs x where x.id = item.id;
    select * into l from uvian.job_leases x where x.job_id = item.id;
    if j.status = 'processing' and j.run = item.run and l.run = item.run and l.worker = by_worker then
      delete from uvian.job_leases x where x.job_id = j.id;
      j := uvian._settle(j, item.e, l.cancel_requested);
      perform uvian._record_run(j, item.run, by_worker, item.e ->> 'outcome');
    end if;
    select * into r from uvian.job_runs x
      where x.job_id = item.id and x.run = item.run and x.worker = by_worker;
    if r.job_id is null then
      answers[item.n] := jsonb_build_object('id', item.id, 'run', item.run, 'settled', false);
    else
      answers[item.n] := jsonb_build_object(
        'id', item.id, 'run', item.run, 'settled', true, 'status', r.status,
        'attempt', r.attempt, 'cost', r.cost::text, 'next_run', j.run);
      if j.status = 'queued' and j.admitted and j.run = item.run + 1 then
        dispatch := dispatch || uvian._dispatch(j);
      end if;
    end if;
  end loop;

  dispatch := dispatch || uvian._next(ids);
  perform uvian._writing(false);
  return jsonb_build_object('jobs', to_jsonb(answers), 'dispatch', dispatch,
                            'accounts', uvian._accounts(paying));
end $$;

-- Who may go next where these jobs have left a place. The caller holds the places.
create function uvian._next(after_jobs uuid[]) returns jsonb
language sql
set search_path = ''
as $$
  select coalesce(jsonb_agg(d), '[]') from (
    select uvian._admit(p.user_id, p.type) as d from (
      select distinct j.user_id, j.type
      from uvian.jobs j join uvian.job_types t on t.type = j.type
      where j.id = any (after_jobs) and t.max_running_per_user is not null) p) x
$$;

-- ─── cancel, retry ───────────────────────────────────────────────────────────────────────────

-- The caller's own job, held; anybody's for the service (its user's, when it names one).
create function uvian._own_job(of_job uuid, of_user uuid) returns uvian.jobs
language plpgsql
set search_path = ''
as $$
declare
  caller uuid := case when uvian._is_service() then of_user else auth.uid() end;
  j uvian.jobs;
begin
  select * into j from uvian.jobs x
    where x.id = of_job and (x.user_id = caller or (caller is null and uvian._is_service()))
    for no key update;
  if j.id is null then
    raise exception using errcode = 'PT404', message = 'not_found', detail = 'There is no such job.';
  end if;
  return j;
end $$;

-- Queued: ends at once. Processing: asks its worker. Ended: answers how.
-- → {job, cancelled, requested, dispatch, accounts}
create function uvian.cancel_job(job_id uuid, user_id uuid default null) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  j uvian.jobs := uvian._own_job(cancel_job.job_id, cancel_job.user_id);
  requested boolean := false;
  was uvian.jobs := j;
  answer jsonb;
begin
  perform uvian._writing(true);
  if j.status = 'queued' then
    perform uvian._lock_places(array[j.id]);
    perform uvian._lock_accounts(array[j.user_id]);
    j := uvian._end(j, 'cancelled', 0, '{}');
    perform uvian._record_run(j, j.run, null, 'cancelled');
  elsif j.status = 'processing' then
    update uvian.job_leases l set cancel_requested = true where l.job_id = j.id;
    requested := true;
  end if;
  answer := jsonb_build_object(
    'job', uvian._job(j), 'cancelled', j.status = 'cancelled', 'requested', requested,
    'ending', case when j.status <> was.status then uvian._ending(j) end,
    'dispatch', case when j.status <> was.status then uvian._next(array[j.id]) else '[]' end,
    'accounts', case when was.cost > 0 and j.status <> was.status
                     then uvian._accounts(array[j.user_id]) else '[]' end);
  perform uvian._writing(false);
  return answer;
end $$;

-- Queued again as a new run, as if new: attempts, crashes and outcome are cleared. The caller holds
-- the row; `keeps_checkpoints`: what finished stages made is used again.
create function uvian._restart(j uvian.jobs, keeps_checkpoints boolean, redispatch_in interval) returns uvian.jobs
language plpgsql
set search_path = ''
as $$
declare
  price numeric := uvian.calculate_cost(j.type, j.input);
  held numeric;
  admits boolean;
begin
  perform uvian._lock_places(array[j.id]);
  perform uvian._lock_accounts(array[j.user_id]);
  -- The row still counts while it is processing; let go of its place before counting.
  update uvian.jobs w set admitted = false where w.id = j.id;
  admits := uvian._places_free(j.user_id, j.type) > 0;
  insert into uvian.job_state (job_id) values (j.id) on conflict do nothing;
  select s.reserved into held from uvian.job_state s where s.job_id = j.id;
  update uvian.jobs w
    set status = 'queued', run = w.run + 1, attempt = 0, admitted = admits, run_at = now(),
        output = null, result_id = null, error = null, error_message = null, stage = null,
        stages = '[]', progress = 0, progress_message = null, started_at = null, finished_at = null,
        cost = case when held > 0 then held else price end, updated_at = now()
    where w.id = j.id returning * into j;
  update uvian.job_state s
    set redispatch_at = case when admits then now() + redispatch_in end, dispatches = 0,
        dispatched_at = null, announce_at = null, crashes = 0, isolated = false, refusals = 0,
        checkpoints = case when keeps_checkpoints then s.checkpoints else '{}' end
    where s.job_id = j.id;
  delete from uvian.job_leases l where l.job_id = j.id;
  if held = 0 and not uvian._reserve(j.id, j.user_id, price) then
    raise exception using errcode = 'PT402', message = 'insufficient_credits',
      detail = format('The job costs %s credits; the balance is %s.', price,
                      uvian._account(j.user_id) ->> 'balance');
  end if;
  return j;
end $$;

-- A failed or cancelled job runs again. `expected_run` is the run the caller saw: repeating the call
-- after a lost reply is answered with what the first one did. → {job, dispatch, accounts}
create function uvian.retry_job(job_id uuid, expected_run bigint, user_id uuid default null) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  j uvian.jobs := uvian._own_job(retry_job.job_id, retry_job.user_id);
  again boolean := j.run > expected_run
    and exists (select from uvian.job_runs r where r.job_id = j.id and r.run = expected_run and r.outcome = 'retried');
begin
  perform uvian._writing(true);
  if not again then
    if j.run <> expected_run or j.status not in ('failed', 'cancelled') then
      raise exception using errcode = 'PT409', message = 'not_retryable',
        detail = format('The job is %s (run %s); only failed and cancelled jobs are retried.', j.status, j.run);
    end if;
    j := uvian._restart(j, true, interval '5 s');
    insert into uvian.job_runs as r (job_id, run, outcome, status, attempt, cost)
      values (j.id, expected_run, 'retried', 'queued', 0, j.cost)
      on conflict on constraint job_runs_pkey do update set outcome = 'retried';
  end if;
  perform uvian._writing(false);
  return jsonb_build_object(
    'job', uvian._job(j),
    'dispatch', case when j.status = 'queued' and j.admitted
                     then jsonb_build_array(uvian._dispatch(j)) else '[]' end,
    'accounts', case when j.cost > 0 then uvian._accounts(array[j.user_id]) else '[]' end);
end $$;

-- From supabase-js, as the signed-in user. → {job, created, accounts}; the sweeper dispatches.
create function uvian.submit_job(type text, input jsonb, idempotency_key text default null,
                                 max_cost numeric default null) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  caller uuid := auth.uid();
  answer jsonb;
  code text;
  t uvian.job_types;
begin
  if caller is null then
    raise exception using errcode = 'PT401', message = 'unauthorized', detail = 'Sign in first.';
  end if;
  select * into t from uvian.job_types x where x.type = submit_job.type;
  if t.type is null or not t.browser
     or (coalesce((auth.jwt() ->> 'is_anonymous')::boolean, false) and not t.anonymous) then
    raise exception using errcode = 'PT403', message = 'type_not_open',
      detail = 'This type of job cannot be submitted from a browser; the operator opens it in uvian.job_types.';
  end if;
  perform uvian._writing(true);
  answer := uvian._create_jobs(jsonb_build_array(jsonb_build_object(
    'user_id', caller, 'type', submit_job.type, 'input', submit_job.input,
    'idempotency_key', submit_job.idempotency_key, 'max_cost', submit_job.max_cost)), interval '0');
  perform uvian._writing(false);
  code := answer -> 'jobs' -> 0 ->> 'code';
  if code is not null then
    raise exception using
      errcode = case code when 'insufficient_credits' then 'PT402' when 'too_many_queued' then 'PT429'
                          when 'idempotency_conflict' then 'PT409' when 'input_too_large' then 'PT413'
                          else 'PT422' end,
      message = code, detail = (answer -> 'jobs' -> 0)::text;
  end if;
  perform pg_notify('uvian_jobs', '');
  return (answer -> 'jobs' -> 0) - 'dispatch' - 'delayed' || jsonb_build_object('accounts', answer -> 'accounts');
end $$;

-- ─── workers, sweep ──────────────────────────────────────────────────────────────────────────

-- {worker, release, types: [{type, input_schema, timeout_seconds, max_attempts}]} → {}
-- The newest release says what a type is; what the operator says of it stays.
create function uvian.register_worker(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
begin
  insert into uvian.job_types as t (type, input_schema, timeout_seconds, max_attempts, release)
    select e ->> 'type', e -> 'input_schema', (e ->> 'timeout_seconds')::double precision,
           (e ->> 'max_attempts')::integer, request ->> 'release'
    from jsonb_array_elements(request -> 'types') e order by 1
    on conflict (type) do update
      set input_schema = excluded.input_schema, timeout_seconds = excluded.timeout_seconds,
          max_attempts = excluded.max_attempts, release = excluded.release
      where string_to_array(regexp_replace(excluded.release, '[^0-9.]', '', 'g'), '.')::integer[]
            >= string_to_array(regexp_replace(t.release, '[^0-9.]', '', 'g'), '.')::integer[]
        and (t.input_schema, t.timeout_seconds, t.max_attempts, t.release) is distinct from
            (excluded.input_schema, excluded.timeout_seconds, excluded.max_attempts, excluded.release);
  insert into uvian.workers as w (name, types, release)
    values (request ->> 'worker',
            array(select e ->> 'type' from jsonb_array_elements(request -> 'types') e),
            request ->> 'release')
    on conflict (name) do update set types = excluded.types, release = excluded.release, last_seen = now();
  delete from uvian.workers w where w.last_seen < now() - interval '1 day';
  return '{}';
end $$;

-- {worker} → {}: it stops in good order and will not be waited for.
create function uvian.retire_worker(request jsonb) returns jsonb
language sql security definer
set search_path = ''
as $$
  delete from uvian.workers w where w.name = request ->> 'worker';
  select '{}'::jsonb
$$;

-- A job whose lease has expired. A crash burns an attempt only where the job ran alone; a job that
-- crashed often in company is a suspect, and must run alone before it may be given up.
create function uvian._bury(j uvian.jobs, l uvian.job_leases, alone boolean) returns uvian.jobs
language plpgsql
set search_path = ''
as $$
declare
  most integer := coalesce((select t.max_attempts from uvian.job_types t where t.type = j.type), 1);
  burnt integer := j.attempt + alone::integer;
  crashed integer;
begin
  delete from uvian.job_leases x where x.job_id = j.id;
  if l.cancel_requested then
    return uvian._end(j, 'cancelled', 0, '{}');
  elsif alone and (l.isolated or burnt >= most) then
    update uvian.jobs w set attempt = burnt where w.id = j.id;
    return uvian._end(j, 'failed', 0, uvian._error('worker_lost',
      'The worker stopped while running this job, more than once.', burnt));
  end if;
  update uvian.job_state s
    set crashes = s.crashes + 1, isolated = s.crashes + 1 >= greatest(most, 2)
    where s.job_id = j.id returning s.crashes into crashed;
  return uvian._requeue(j, case when crashed < 2 then 0 else least(30, power(2, crashed)) end, burnt);
end $$;

create function uvian._expire_leases(most integer) returns uuid[]
language plpgsql
set search_path = ''
as $$
declare
  ids uuid[];
  j uvian.jobs;
  l uvian.job_leases;
  alone boolean;
begin
  ids := array(
    select x.id from uvian.job_leases e join uvian.jobs x on x.id = e.job_id
    where e.expires_at < clock_timestamp() order by x.id limit most
    for no key update of x, e skip locked);
  perform uvian._lock_places(ids);
  perform uvian._lock_accounts(array(select x.user_id from uvian.jobs x where x.id = any (ids)));
  -- Who died together is marked before the first of them is buried.
  update uvian.job_leases x set shared = true
    where not x.shared and x.worker in (
      select o.worker from uvian.job_leases o
      where o.worker in (select d.worker from uvian.job_leases d where d.job_id = any (ids))
      group by o.worker having count(*) > 1);
  for j in select * from uvian.jobs x where x.id = any (ids) order by x.id loop
    select * into l from uvian.job_leases x where x.job_id = j.id;
    if l.job_id is null or j.status <> 'processing' or j.run <> l.run then
      delete from uvian.job_leases x where x.job_id = j.id;  -- ended by hand
      continue;
    end if;
    alone := not l.shared;
    j := uvian._bury(j, l, alone);
    perform uvian._record_run(j, l.run, null, 'worker_lost');
  end loop;
  return ids;
end $$;

-- Queued jobs of a type that no worker has had for ten minutes, while others have been there.
create function uvian._fail_orphans(most integer) returns uuid[]
language plpgsql
set search_path = ''
as $$
declare
  ids uuid[];
  j uvian.jobs;
begin
  if not exists (select from uvian.workers w where w.last_seen > now() - interval '30 s'
                 and w.started_at < now() - interval '10 min') then
    return '{}';
  end if;
  ids := array(
    select orphan.id from uvian.job_types t
    cross join lateral (
      select x.id from uvian.jobs x
      where x.type = t.type and x.status = 'queued' and x.admitted
        and x.score < extract(epoch from now() - interval '10 min') * 1000
        and greatest(x.run_at, x.created_at) < now() - interval '10 min'
      order by x.score limit most
      for no key update skip locked) orphan
    where not exists (select from uvian.workers w
                      where w.last_seen > now() - interval '10 min' and t.type = any (w.types))
    limit most);
  if cardinality(ids) > 0 then
    perform uvian._lock_places(ids);
    perform uvian._lock_accounts(array(select x.user_id from uvian.jobs x where x.id = any (ids)));
    for j in select * from uvian.jobs x where x.id = any (ids) order by x.id loop
      j := uvian._end(j, 'failed', 0, uvian._error('no_executor',
        'No worker knows this type of job.', j.attempt));
      perform uvian._record_run(j, j.run, null, 'no_executor');
    end loop;
  end if;
  return ids;
end $$;

-- Rows whose time to be dispatched (again) has come. Each is offered once per call and again
-- after 5 s unless mark_jobs or a claim says otherwise.
create function uvian._due_for_dispatch(most integer) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  due uuid[];
  waiting uuid[];
  dispatch jsonb;
begin
  due := array(
    select s.job_id from uvian.job_state s where s.redispatch_at <= now()
    order by s.redispatch_at limit most for no key update skip locked);
  update uvian.job_state s
    set redispatch_at = case when j.status = 'queued' and j.admitted then now() + interval '5 s' end
    from uvian.jobs j where s.job_id = any (due) and j.id = s.job_id;
  waiting := array(select j.id from uvian.jobs j
                   where j.id = any (due) and j.status = 'queued' and not j.admitted);
  select coalesce(jsonb_agg(uvian._dispatch(j)), '[]') into dispatch
    from uvian.jobs j where j.id = any (due) and j.status = 'queued' and j.admitted;
  if cardinality(waiting) > 0 then
    perform uvian._lock_places(waiting);
    dispatch := dispatch || uvian._next(waiting);
  end if;
  return dispatch;
end $$;

-- {limit, lease_seconds, claiming: [{id, run}], redis_lost_at?} →
-- {swept: false} when another sweep is running, else {swept, expired, dispatch, announce, accounts,
--  more, now}
--   claiming       ids a worker took from the queue some time ago and did not claim
--   redis_lost_at  what was dispatched before it is brought forward, a page a call (`forwarded`)
create function uvian.sweep_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  most integer := least(coalesce((request ->> 'limit')::integer, 500), 500);
  seconds double precision := coalesce((request ->> 'lease_seconds')::double precision, 15);
  beat uvian.sweeps;
  ended uuid[] := '{}';
  orphans uuid[];
  announced uuid[];
  dispatch jsonb;
  forwarded integer := 0;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('uvian sweep', 0)) then
    return jsonb_build_object('swept', false);
  end if;
  perform uvian._writing(true);
  -- Nobody swept for 10 s: Postgres was away, and renewals with it. Give every lease its length.
  update uvian.sweeps s
    set last_at = clock_timestamp(),
        hold_until = case when s.last_at < clock_timestamp() - interval '10 s'
          then clock_timestamp() + make_interval(secs => seconds) else s.hold_until end
    returning * into beat;

  if beat.hold_until <= clock_timestamp() then
    ended := uvian._expire_leases(most);
  end if;
  orphans := uvian._fail_orphans(most);

  if request ->> 'redis_lost_at' is not null then
    with page as (
      select s.job_id from uvian.job_state s
      where s.redispatch_at > now()
        and coalesce(s.dispatched_at, '-infinity') < (request ->> 'redis_lost_at')::timestamptz
      order by s.redispatch_at desc limit most for no key update skip locked)
    update uvian.job_state s set redispatch_at = now() from page where page.job_id = s.job_id;
    get diagnostics forwarded = row_count;
  end if;
  update uvian.job_state s set redispatch_at = now()
    from jsonb_array_elements(coalesce(request -> 'claiming', '[]')) e
    join uvian.jobs j on j.id = (e ->> 'id')::uuid and j.run = (e ->> 'run')::bigint
      and j.status = 'queued'
    where s.job_id = j.id and s.redispatch_at > now();

  dispatch := uvian._due_for_dispatch(most) || uvian._next(ended || orphans);

  announced := array(
    select s.job_id from uvian.job_state s
    where s.announce_at <= now() or (s.announce_at is not null and s.job_id = any (ended || orphans))
    order by s.announce_at limit most for no key update skip locked);
  update uvian.job_state s set announce_at = now() + interval '5 s' where s.job_id = any (announced);

  perform uvian._writing(false);
  return jsonb_build_object(
    'swept', true, 'now', clock_timestamp(), 'expired', cardinality(ended),
    'forwarded', forwarded,
    'dispatch', dispatch,
    'announce', coalesce((select jsonb_agg(uvian._ending(j)) from uvian.jobs j
                          where j.id = any (announced)
                            and j.status in ('completed', 'failed', 'cancelled')), '[]'),
    'accounts', uvian._accounts(array(
      select j.user_id from uvian.jobs j where j.id = any (ended || orphans) and j.status <> 'processing')),
    'more', jsonb_array_length(dispatch) >= most or cardinality(announced) >= most
            or cardinality(ended) >= most or forwarded >= most);
end $$;

revoke all on function
  uvian._writing(boolean), uvian._job(uvian.jobs), uvian._dispatch(uvian.jobs), uvian._ending(uvian.jobs),
  uvian._lock_places(uuid[]), uvian._places_free(uuid, text), uvian._admit(uuid, text),
  uvian._requeue(uvian.jobs, double precision, integer), uvian._end(uvian.jobs, text, numeric, jsonb),
  uvian._error(text, text, integer), uvian._create_job(jsonb, interval),
  uvian._create_jobs(jsonb, interval), uvian.create_jobs(jsonb), uvian._claimed(uvian.jobs, boolean),
  uvian._claim(uvian.jobs, text, double precision, uuid), uvian._refuse(uvian.jobs, text),
  uvian._objection(uvian.jobs, text), uvian.claim_jobs(jsonb), uvian.claim_next_jobs(jsonb),
  uvian.renew_leases(jsonb), uvian.mark_jobs(jsonb), uvian.save_checkpoints(jsonb),
  uvian.store_concept(jsonb), uvian._record_run(uvian.jobs, bigint, text, text),
  uvian._settle(uvian.jobs, jsonb, boolean), uvian.settle_jobs(jsonb), uvian._next(uuid[]),
  uvian._own_job(uuid, uuid), uvian.cancel_job(uuid, uuid),
  uvian._restart(uvian.jobs, boolean, interval), uvian.retry_job(uuid, bigint, uuid),
  uvian.submit_job(text, jsonb, text, numeric), uvian.register_worker(jsonb),
  uvian.retire_worker(jsonb), uvian._bury(uvian.jobs, uvian.job_leases, boolean),
  uvian._expire_leases(integer), uvian._fail_orphans(integer), uvian._due_for_dispatch(integer),
  uvian.sweep_jobs(jsonb)
  from public, anon, authenticated;
grant execute on function
  uvian.create_jobs(jsonb), uvian.claim_jobs(jsonb), uvian.claim_next_jobs(jsonb),
  uvian.renew_leases(jsonb), uvian.mark_jobs(jsonb), uvian.save_checkpoints(jsonb),
  uvian.store_concept(jsonb), uvian.settle_jobs(jsonb), uvian.register_worker(jsonb),
  uvian.retire_worker(jsonb), uvian.sweep_jobs(jsonb), uvian.cancel_job(uuid, uuid),
  uvian.retry_job(uuid, bigint, uuid)
  to service_role;
grant execute on function
  uvian.submit_job(text, jsonb, text, numeric), uvian.cancel_job(uuid, uuid),
  uvian.retry_job(uuid, bigint, uuid)
  to authenticated;

notify pgrst, 'reload schema';
