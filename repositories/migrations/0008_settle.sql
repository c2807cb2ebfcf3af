-- min_code: 0.1.0
-- How a run ends: outcome, result and credits in one transaction, the same answer for ever.

-- What the outcomes that a worker tells come to. Only the run that holds the job has a say, and of
-- several outcomes for one run the first.
create function uvian._verdicts(items jsonb, by_worker text) returns setof uvian._verdict
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return query
  with told as (
    select distinct on (j.id)
           j.id as job_id, j.run, e as item, e ->> 'outcome' as outcome, l.cancel_requested,
           j.attempt, t.max_attempts, s.refusals,
           (e ->> 'outcome' in ('failed', 'retry') and coalesce((e ->> 'burn')::boolean, true))::integer as burns
    from jsonb_array_elements(items) with ordinality x (e, n)
    cross join lateral (select o.* from uvian.jobs o where o.id = (e ->> 'id')::uuid offset 0) j
    cross join lateral (select o.* from uvian.job_leases o where o.job_id = j.id offset 0) l
    cross join lateral (select o.refusals from uvian.job_state o where o.job_id = j.id offset 0) s
    left join uvian.job_types t on t.type = j.type
    where j.status = 'processing' and j.run = (e ->> 'run')::bigint
      and l.run = j.run and l.worker = by_worker
    order by j.id, n
  ), decided as (
    select t.*, case
        when t.outcome in ('completed', 'failed', 'cancelled') then t.outcome
        when t.cancel_requested then 'cancelled'
        when t.burns = 1 and t.attempt + 1 >= coalesce(t.max_attempts, 1) then 'failed'
        else 'queued' end as status
    from told t
  )
  select d.job_id, d.run, d.outcome, by_worker, d.status,
         d.attempt + case when d.status = 'cancelled' then 0 else d.burns end,
         case d.outcome
           when 'retry' then least(greatest(coalesce((d.item ->> 'delay')::double precision, 1), 0), 604800)
           when 'not_mine' then least(30, power(2, d.refusals))
           else 0 end,
         case when d.outcome = 'retry' then 0
              else coalesce((d.item ->> 'charge')::numeric, (d.outcome = 'completed')::integer) end,
         case when d.status = 'cancelled' then d.item - 'error' - 'error_message' else d.item end
  from decided d;
end $$;

-- {worker, jobs: [{id, run, outcome, output?, result_id?, error?, error_message?, stages?,
--   delay? (seconds), burn? (an attempt; default true), charge? (fraction of the reservation)}]}
-- → {jobs: [{id, run, settled, status, attempt, cost, next_run}], dispatch: […], accounts: […]}
create function uvian.settle_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off
as $$
declare
  by_worker text := request ->> 'worker';
  items jsonb := request -> 'jobs';
  ids uuid[] := array(select (e ->> 'id')::uuid from jsonb_array_elements(items) e);
  paying uuid[];
  answers jsonb;
  dispatch jsonb;
begin
  if exists (select from jsonb_array_elements(items) e where coalesce(e ->> 'outcome', '') not in
             ('completed', 'failed', 'cancelled', 'retry', 'interrupted', 'not_mine')) then
    raise exception using errcode = 'PT422', message = 'unknown_outcome',
      detail = 'completed, failed, cancelled, retry, interrupted or not_mine';
  end if;
  perform uvian._writing(true);
  perform 1 from uvian.jobs j where j.id = any (ids) order by j.id for no key update;
  perform uvian._lock_places(ids);
  paying := uvian._lock_payers(ids);
  perform uvian._carry_out(array(select v from uvian._verdicts(items, by_worker) v));

  select jsonb_agg(
           case when r.job_id is null then jsonb_build_object('id', a.id, 'run', a.run, 'settled', false)
                else jsonb_build_object(
                  'id', a.id, 'run', a.run, 'settled', true, 'status', r.status, 'attempt', r.attempt,
                  'cost', r.cost::text, 'next_run', a.run + (r.status = 'queued')::integer) end
           order by a.n),
         -- What was not mine goes through the sweep, when its pause is over.
         jsonb_agg(uvian._dispatch(j)) filter (where j.id is not null)
    into answers, dispatch
    from (select n, (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run
          from jsonb_array_elements(items) with ordinality x (e, n)) a
    left join lateral (select o.* from uvian.job_runs o where o.job_id = a.id and o.run = a.run offset 0) r
      on r.worker = by_worker
    left join lateral (select o.* from uvian.jobs o where o.id = r.job_id offset 0) j
      on r.status = 'queued' and r.outcome <> 'not_mine'
        and j.run = r.run + 1 and j.status = 'queued' and j.admitted;

  dispatch := coalesce(dispatch, '[]') || uvian._next(ids);
  perform uvian._writing(false);
  return jsonb_build_object('jobs', coalesce(answers, '[]'), 'dispatch', dispatch,
                            'accounts', uvian._accounts(paying));
end $$;

revoke all on function uvian._verdicts(jsonb, text), uvian.settle_jobs(jsonb)
  from public, anon, authenticated, service_role;
grant execute on function uvian.settle_jobs(jsonb) to service_role;

notify pgrst, 'reload schema';
