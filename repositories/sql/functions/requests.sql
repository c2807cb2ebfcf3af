-- What a user may do with a job of their own, and the service for one: cancel it, run it again.

-- Cancels a job. Queued: it ends at once. Processing: its worker is requested to stop. Ended: returns how it ended.
-- → {job, cancelled, requested, terminal_event?, dispatch, accounts}
create or replace function uvian.cancel_job(job_id uuid, user_id uuid default null) returns jsonb
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
    perform uvian._lock_slots(array[j.id]);
    perform uvian._lock_payers(array[j.id]);
    perform uvian._end(array[(j.id, j.run, 'cancelled', null, 'cancelled', j.attempt, 0, 0, '{}')::uvian._verdict]);
    select * into j from uvian.jobs x where x.id = j.id;
  elsif j.status = 'processing' then
    update uvian.job_leases l set cancel_requested = true where l.job_id = j.id;
    requested := true;
  end if;
  answer := jsonb_build_object(
    'job', uvian._job(j), 'cancelled', j.status = 'cancelled', 'requested', requested,
    'terminal_event', case when j.status <> was.status then uvian._terminal_event(j) end,
    'dispatch', case when j.status <> was.status then uvian._next(array[j.id]) else '[]' end,
    'accounts', case when was.cost > 0 and j.status <> was.status
                     then uvian._accounts(array[j.user_id]) else '[]' end);
  perform uvian._writing(false);
  return answer;
end $$;

-- A failed or cancelled job runs again. `expected_run` is the run the caller saw: repeating the call
-- after a lost reply is answered with what the first one did. `door` is the service's to say: see _door.
-- → {job, dispatch, accounts}
create or replace function uvian.retry_job(job_id uuid, expected_run bigint, user_id uuid default null, door text default null)
returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  j uvian.jobs := uvian._own_job(retry_job.job_id, retry_job.user_id);
  was text := j.status;
  again boolean := j.run > expected_run
    and exists (select from uvian.job_runs r where r.job_id = j.id and r.run = expected_run and r.retried_at is not null);
begin
  perform uvian._writing(true);
  if not again then
    perform uvian._require_retryable(j, expected_run, uvian._door(retry_job.door));
    j := uvian._restart(j, true, now(), interval '5 s');
    insert into uvian.job_runs as r (job_id, run, outcome, status, attempt, cost, retried_at)
      values (j.id, expected_run, was, was, 0, 0, now())
      on conflict on constraint job_runs_pkey do update set retried_at = now();
  end if;
  perform uvian._writing(false);
  return jsonb_build_object(
    'job', uvian._job(j),
    'dispatch', case when j.status = 'queued' and j.admitted
                     then jsonb_build_array(uvian._dispatch(j)) else '[]' end,
    'accounts', case when j.cost > 0 then uvian._accounts(array[j.user_id]) else '[]' end);
end $$;

-- The caller's own job, held; anybody's for the service (its user's, when it names one).
create or replace function uvian._own_job(of_job uuid, of_user uuid) returns uvian.jobs
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

-- What would keep a user from creating this job keeps it from being retried.
create or replace function uvian._require_retryable(j uvian.jobs, expected_run bigint, door text) returns void
language plpgsql
set search_path = ''
as $$
declare
  most integer := (select t.max_queued_per_user from uvian.job_types t where t.type = j.type);
begin
  if j.run <> expected_run or j.status not in ('failed', 'cancelled') then
    raise exception using errcode = 'PT409', message = 'not_retryable',
      detail = format('The job is %s (run %s); only failed and cancelled jobs are retried.', j.status, j.run);
  end if;
  perform uvian._require_allowed(j.type, j.input, door);
  perform uvian._lock_slots(array[j.id]);
  if j.conversation_id is not null and not uvian._may_speak(j.type, j.conversation_id, j.user_id) then
    raise exception using errcode = 'PT404', message = 'not_found', detail = 'There is no such conversation.';
  end if;
  if most is null then
    return;
  end if;
  if most <= (select count(*) from uvian.jobs q
              where q.user_id = j.user_id and q.type = j.type and q.status = 'queued') then
    raise exception using errcode = 'PT429', message = 'too_many_queued',
      detail = format('At most %s jobs of type %L wait at a time.', most, j.type);
  end if;
end $$;

-- Queued again as a new run, as if new: attempts, crashes and outcome are cleared. The caller holds
-- the row. `keeps_checkpoints`: what finished stages made is used again. A chat that had ended gets in line
-- behind those who wait; one that had its turn keeps it, and its number unless that is another's by now.
create or replace function uvian._restart(j uvian.jobs, keeps_checkpoints boolean, starts timestamptz,
                                          redispatch_in interval) returns uvian.jobs
language plpgsql
set search_path = ''
as $$
declare
  price numeric := greatest(uvian.calculate_cost(j.type, j.input) - uvian._paid_before(j.id, 2), 0);  -- the rest
  limited boolean := exists (select from uvian.job_types t
                             where t.type = j.type and t.max_running_per_user is not null);
  held numeric;
  is_new boolean;
begin
  perform uvian._lock_slots(array[j.id]);
  perform uvian._lock_accounts(array[j.user_id]);
  insert into uvian.job_state (job_id) values (j.id) on conflict do nothing;
  is_new := found;  -- inserted by a manual edit
  select s.reserved into held from uvian.job_state s where s.job_id = j.id;
  update uvian.jobs w
    set status = 'queued', run = w.run + (not is_new)::integer, attempt = 0,
        admitted = not limited and w.its_turn,
        turn = case when w.its_turn and not exists (
                      select from uvian.jobs o
                      where o.conversation_id = w.conversation_id and o.turn = w.turn and o.id <> w.id
                        and o.status in ('queued', 'processing'))
                    then w.turn else uvian._last_turn(w.conversation_id) + 1 end,
        run_at = starts, queued_at = now(),
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

revoke all on function
  uvian.cancel_job(uuid, uuid), uvian.retry_job(uuid, bigint, uuid, text), uvian._own_job(uuid, uuid),
  uvian._require_retryable(uvian.jobs, bigint, text), uvian._restart(uvian.jobs, boolean, timestamptz, interval)
  from public, anon, authenticated, service_role;
grant execute on function
  uvian.cancel_job(uuid, uuid), uvian.retry_job(uuid, bigint, uuid, text)
  to authenticated, service_role;

select uvian._close();
notify pgrst, 'reload schema';
