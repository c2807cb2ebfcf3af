-- min_code: 0.1.0
-- The queue's moves that several functions share: what is written by whom, who sees what of a job,
-- places under a limit, back to the queue, the end.
--
-- The functions that move state each take and answer one jsonb, work on up to 500 jobs, may be
-- repeated after a lost reply, and ignore keys they do not know. What they write is marked by a
-- setting (`_writing`): everything else is a hand in the SQL editor, and normalised by the triggers
-- of 0011. Only the outermost function sets and clears it; an error rolls it back with all else.
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

create function uvian._record_run(j uvian.jobs, of_run bigint, by_worker text, as_outcome text) returns void
language sql
set search_path = ''
as $$
  insert into uvian.job_runs (job_id, run, worker, outcome, status, attempt, cost)
    values (j.id, of_run, by_worker, as_outcome, j.status, j.attempt, j.cost)
    on conflict do nothing
$$;

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

revoke all on function
  uvian._writing(boolean), uvian._job(uvian.jobs), uvian._dispatch(uvian.jobs),
  uvian._ending(uvian.jobs), uvian._lock_places(uuid[]), uvian._places_free(uuid, text),
  uvian._admit(uuid, text), uvian._requeue(uvian.jobs, double precision, integer),
  uvian._end(uvian.jobs, text, numeric, jsonb), uvian._error(text, text, integer),
  uvian._record_run(uvian.jobs, bigint, text, text), uvian._next(uuid[])
  from public, anon, authenticated;

notify pgrst, 'reload schema';
