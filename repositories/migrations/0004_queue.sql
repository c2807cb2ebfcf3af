-- min_code: 0.1.0
-- The queue's moves that several functions share: who sees what of a job, places under a limit,
-- verdicts (what is to become of a job: ended, or queued again).
--
-- The functions that move state each take and answer one jsonb, work on up to 500 jobs, may be
-- repeated after a lost reply, and ignore keys they do not know. What they write is marked by a
-- setting (`_writing`): everything else is a hand in the SQL editor, and normalised by the triggers
-- of 0011. Only the outermost function sets and clears it; an error rolls it back with all else.
--
-- Lock order, everywhere: jobs by id (with each its state), places by (user, type), accounts by
-- user, leases. Whoever locks jobs in another order skips those that are locked.
--
-- Plans are cached (plan_cache_mode; PL/pgSQL, since PostgreSQL 17 and older plan a function in SQL
-- anew for every call), and outlive the growth of their tables until the next analyze: what was cheap
-- on an empty queue (a scan of all that is queued, a hash join) would be a disaster on a full one. So
-- jobs are found by their ids alone, in `lateral (… offset 0)` where a list is joined, and looked at
-- afterwards; and the settings of the functions leave the planner no other way.

create function uvian._writing(by_function boolean) returns void
language plpgsql
set search_path = ''
as $$
begin
  perform set_config('uvian.writer', case when by_function then 'function' else '' end, true);
end $$;

-- Jobs by their ids alone, wherever what they are is asked about afterwards.
create function uvian._jobs(of_ids uuid[]) returns setof uvian.jobs
language plpgsql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return query select * from uvian.jobs j where j.id = any (of_ids);
end $$;

-- How the service sees a job; without its input, which may be large.
create function uvian._job(j uvian.jobs) returns jsonb
language plpgsql stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', j.id, 'user_id', j.user_id, 'type', j.type, 'status', j.status, 'run', j.run,
    'attempt', j.attempt, 'priority', j.priority, 'run_at', j.run_at, 'cost', j.cost::text,
    'created_at', j.created_at, 'idempotency_key', j.idempotency_key, 'parent_id', j.parent_id);
end $$;

-- What dispatch needs.
create function uvian._dispatch(j uvian.jobs) returns jsonb
language plpgsql stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', j.id, 'user_id', j.user_id, 'type', j.type, 'run', j.run, 'attempt', j.attempt,
    'priority', j.priority, 'run_at', j.run_at, 'delayed', j.run_at > now());
end $$;

-- What the announcement of an ending needs.
create function uvian._ending(j uvian.jobs) returns jsonb
language plpgsql stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', j.id, 'user_id', j.user_id, 'type', j.type, 'run', j.run, 'attempt', j.attempt,
    'status', j.status, 'output', j.output, 'result_id', j.result_id, 'error', j.error,
    'error_message', j.error_message, 'stages', j.stages, 'cost', j.cost::text);
end $$;

-- ─── places under max_running_per_user ───────────────────────────────────────────────────────

create function uvian._place(of_user uuid, of_type text) returns bigint
language plpgsql immutable
set search_path = ''
as $$
begin
  return hashtextextended('uvian place ' || of_user || ' ' || of_type, 0);
end $$;

-- Who holds the lock may count and admit: the limits are exact.
create function uvian._lock_places(of_jobs uuid[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  place bigint;
begin
  if not exists (select from uvian.job_types t where t.max_running_per_user is not null
                 or t.max_queued_per_user is not null) then
    return;
  end if;
  for place in
    select uvian._place(p.user_id, p.type) as key
    from (select distinct j.user_id, j.type
          from uvian.jobs j join uvian.job_types t on t.type = j.type
          where j.id = any (of_jobs)
            and (t.max_running_per_user is not null or t.max_queued_per_user is not null)) p
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
-- dispatch. The caller holds the place. A row that somebody holds is left to the next sweep.
create function uvian._admit(of_user uuid, of_type text, redispatch_in interval) returns uuid[]
language plpgsql
set search_path = ''
as $$
declare
  free integer := least(uvian._places_free(of_user, of_type), 500);
  admitted_now uuid[];
begin
  if free <= 0 then
    return '{}';
  end if;
  admitted_now := array(
    select w.id from uvian.jobs w
    where w.user_id = of_user and w.type = of_type and w.status = 'queued' and not w.admitted
      and w.run_at <= now()
    order by w.score limit free
    for no key update skip locked);
  update uvian.jobs w set admitted = true, updated_at = now() where w.id = any (admitted_now);
  update uvian.job_state s set redispatch_at = now() + redispatch_in where s.job_id = any (admitted_now);
  if cardinality(admitted_now) < free then
    perform uvian._reconsider(of_user, of_type, interval '1 s');
  end if;
  return admitted_now;
end $$;

-- The next sweep admits who waits for a place of this user and type: it is enough to wake the first.
-- Who is not due yet wakes on its own: its redispatch_at is its run_at.
create function uvian._reconsider(of_user uuid, of_type text, after interval) returns void
language sql
set search_path = ''
as $$
  update uvian.job_state s set redispatch_at = now() + after
    from (select j.id from uvian.jobs j
          where j.user_id = of_user and j.type = of_type and j.status = 'queued' and not j.admitted
            and j.run_at <= now()
          order by j.score limit 1) w
    where s.job_id = w.id
$$;

-- Who may go next where these jobs have left a place, or wait for one. The caller holds the places.
create function uvian._next(after_jobs uuid[]) returns jsonb
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  place record;
  admitted_now uuid[] := '{}';
begin
  if cardinality(after_jobs) > 0 then
    for place in
      select distinct j.user_id, j.type from uvian.jobs j join uvian.job_types t on t.type = j.type
      where j.id = any (after_jobs)
        and (t.max_running_per_user is not null or (j.status = 'queued' and not j.admitted))
    loop
      admitted_now := admitted_now || uvian._admit(place.user_id, place.type, interval '5 s');
    end loop;
  end if;
  return coalesce((select jsonb_agg(uvian._dispatch(j) order by j.score)
                   from uvian._jobs(admitted_now) j), '[]');
end $$;

-- ─── verdicts ────────────────────────────────────────────────────────────────────────────────

-- What is to become of a job that the caller holds, with its place and its account.
create type uvian._verdict as (
  job_id uuid,
  run bigint,
  outcome text,            -- as told by the worker, or worker_lost, no_executor, by_hand
  worker text,             -- who will be answered the same again; null: nobody
  status text,             -- queued, completed, failed, cancelled
  attempt integer,
  delay double precision,  -- queued: seconds until it is due again
  charge numeric,          -- ended: the fraction of the reservation
  result jsonb             -- ended: {output, result_id, error, error_message, stages}
);
revoke all on type uvian._verdict from public, anon, authenticated, service_role;

create function uvian._error(code text, message text, attempt integer) returns jsonb
language sql immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'error', jsonb_build_object('code', code, 'stage', null, 'message', message,
                                'retryable', false, 'attempt', attempt),
    'error_message', message)
$$;

create function uvian._carry_out(verdicts uvian._verdict[]) returns void
language plpgsql
set search_path = ''
as $$
declare
  endings uvian._verdict[] := array(select v from unnest(verdicts) v where v.status <> 'queued');
  again uvian._verdict[] := array(select v from unnest(verdicts) v where v.status = 'queued');
begin
  if cardinality(endings) > 0 then
    perform uvian._end(endings);
  end if;
  if cardinality(again) > 0 then
    perform uvian._requeue(again);
  end if;
end $$;

-- The end: the row, its reservation, its lease, its announcement, and what this run is answered.
create function uvian._end(verdicts uvian._verdict[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  with v as (
    select e.*, s.reserved as held, s.reservation,
           coalesce(round(s.reserved * least(greatest(e.charge, 0), 1), 6), 0) as charged
    from unnest(verdicts) e left join uvian.job_state s on s.job_id = e.job_id
  ), ended as (
    update uvian.jobs j
      set status = v.status, cost = v.charged, attempt = v.attempt, finished_at = now(),
          updated_at = now(), progress = case when v.status = 'completed' then 1 else j.progress end,
          stage = null, progress_message = null,
          output = nullif(v.result -> 'output', 'null'), result_id = (v.result ->> 'result_id')::uuid,
          error = nullif(v.result -> 'error', 'null'), error_message = v.result ->> 'error_message',
          stages = coalesce(nullif(v.result -> 'stages', 'null'), j.stages)
      from v where j.id = v.job_id
      returning j.id, j.user_id, v.held, v.charged, v.reservation
  ), remembered as (
    update uvian.job_state s
      set redispatch_at = null, announce_at = now() + interval '5 s', reserved = 0,
          checkpoints = case when v.status = 'completed' then '{}' else s.checkpoints end
      from v where s.job_id = v.job_id
  ), let_go as (
    delete from uvian.job_leases l using v where l.job_id = v.job_id
  ), booked as (
    insert into uvian.credit_entries (user_id, job_id, reservation, kind, amount)
      select e.user_id, e.id, e.reservation, b.kind, b.amount
      from ended e
      cross join lateral (values ('charge', e.charged), ('release', e.held - e.charged)) b (kind, amount)
      where b.amount > 0
  ), paid as (
    update uvian.credit_accounts a
      set balance = a.balance + p.released, reserved = a.reserved - p.held,
          version = a.version + 1, updated_at = now()
      from (select e.user_id, sum(e.held - e.charged) as released, sum(e.held) as held
            from ended e where e.held > 0 group by e.user_id) p
      where a.user_id = p.user_id
  )
  insert into uvian.job_runs (job_id, run, worker, outcome, status, attempt, cost)
    select v.job_id, v.run, v.worker, v.outcome, v.status, v.attempt, v.charged from v
    on conflict do nothing;
  -- What a run stored that did not complete: nobody paid for it, nobody shall see it.
  delete from uvian.concepts c
    using unnest(verdicts) v
    where c.job_id = v.job_id and not exists (
      select from uvian.job_runs r
      where r.job_id = c.job_id and r.run = c.run and r.status = 'completed');
end $$;

-- Back to the queue as a new run. A job that will not be due at once gives its place to the next;
-- one that the worker could not run keeps it, and its age: no_executor counts from there.
create function uvian._requeue(verdicts uvian._verdict[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  with v as (
    select e.*, e.outcome = 'not_mine' as not_mine, e.outcome = 'worker_lost' as lost, t.max_attempts,
           make_interval(secs => e.delay) as pause,
           e.delay <= 1 or e.outcome = 'not_mine' or t.max_running_per_user is null as keeps
    from unnest(verdicts) e join uvian.jobs j on j.id = e.job_id
    left join uvian.job_types t on t.type = j.type
  ), moved as (
    update uvian.jobs j
      set status = 'queued', run = j.run + 1, attempt = v.attempt, admitted = v.keeps,
          run_at = case when v.not_mine then j.run_at else now() + v.pause end, stage = null,
          progress = 0, progress_message = null, started_at = null, updated_at = now()
      from v where j.id = v.job_id
  ), remembered as (
    update uvian.job_state s
      set dispatches = 0, dispatched_at = null,
          -- Whoever settled or swept dispatches; what was not mine, the sweep when its pause is over.
          redispatch_at = now() + case when v.not_mine or not v.keeps then v.pause
                                       else interval '5 s' end,
          refusals = case when v.not_mine then least(s.refusals + 1, 6) else 0 end,
          crashes = s.crashes + v.lost::integer,
          isolated = s.isolated or (v.lost and s.crashes + 1 >= greatest(v.max_attempts, 2))
      from v where s.job_id = v.job_id
  ), let_go as (
    delete from uvian.job_leases l using v where l.job_id = v.job_id
  )
  insert into uvian.job_runs (job_id, run, worker, outcome, status, attempt, cost)
    select v.job_id, v.run, v.worker, v.outcome, 'queued', v.attempt, j.cost
    from v join uvian.jobs j on j.id = v.job_id
    on conflict do nothing;
end $$;

revoke all on function
  uvian._writing(boolean), uvian._jobs(uuid[]), uvian._job(uvian.jobs), uvian._dispatch(uvian.jobs),
  uvian._ending(uvian.jobs), uvian._place(uuid, text), uvian._lock_places(uuid[]),
  uvian._places_free(uuid, text), uvian._admit(uuid, text, interval),
  uvian._reconsider(uuid, text, interval), uvian._next(uuid[]), uvian._error(text, text, integer),
  uvian._carry_out(uvian._verdict[]), uvian._end(uvian._verdict[]), uvian._requeue(uvian._verdict[])
  from public, anon, authenticated, service_role;

notify pgrst, 'reload schema';
