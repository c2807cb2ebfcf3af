-- min_code: 0.1.0
-- What a user may do, and the service for one: cancel, retry, submit from the browser.

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
-- → {job, cancelled, requested, ending?, dispatch, accounts}
create function uvian.cancel_job(job_id uuid, user_id uuid default null) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
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
    perform uvian._lock_payers(array[j.id]);
    perform uvian._end(array[(j.id, j.run, 'cancelled', null, 'cancelled', j.attempt, 0, 0, '{}')::uvian._verdict]);
    select * into j from uvian.jobs x where x.id = j.id;
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
-- the row. `keeps_checkpoints`: what finished stages made is used again.
create function uvian._restart(j uvian.jobs, keeps_checkpoints boolean, starts timestamptz,
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
        admitted = not limited, run_at = starts,
        output = null, result_id = null, error = null, error_message = null, stage = null,
        stages = '[]', progress = 0, progress_message = null, started_at = null, finished_at = null,
        cost = case when held > 0 then held else price end, updated_at = now()
    where w.id = j.id;
  update uvian.job_state s
    set redispatch_at = case when not limited then now() + redispatch_in
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
  if limited then
    perform uvian._admit(j.user_id, j.type, redispatch_in);
  end if;
  select * into j from uvian.jobs w where w.id = j.id;
  return j;
end $$;

-- A failed or cancelled job runs again. `expected_run` is the run the caller saw: repeating the call
-- after a lost reply is answered with what the first one did. `door` is the service's to say: see _door.
-- → {job, dispatch, accounts}
create function uvian.retry_job(job_id uuid, expected_run bigint, user_id uuid default null, door text default null)
returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  j uvian.jobs := uvian._own_job(retry_job.job_id, retry_job.user_id);
  again boolean := j.run > expected_run
    and exists (select from uvian.job_runs r where r.job_id = j.id and r.run = expected_run and r.outcome = 'retried');
begin
  perform uvian._writing(true);
  if not again then
    perform uvian._require_retryable(j, expected_run, uvian._door(retry_job.door));
    j := uvian._restart(j, true, now(), interval '5 s');
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
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
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

revoke all on function
  uvian._own_job(uuid, uuid), uvian.cancel_job(uuid, uuid),
  uvian._restart(uvian.jobs, boolean, timestamptz, interval),
  uvian.retry_job(uuid, bigint, uuid, text),
  uvian.submit_job(text, jsonb, text, numeric)
  from public, anon, authenticated, service_role;
grant execute on function uvian.cancel_job(uuid, uuid), uvian.retry_job(uuid, bigint, uuid, text)
  to authenticated, service_role;
grant execute on function uvian.submit_job(text, jsonb, text, numeric) to authenticated;

notify pgrst, 'reload schema';
