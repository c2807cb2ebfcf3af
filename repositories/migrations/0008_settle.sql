-- min_code: 0.1.0
-- How a run ends: outcome, result and credits in one transaction, the same answer for ever.

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

revoke all on function
  uvian._settle(uvian.jobs, jsonb, boolean), uvian.settle_jobs(jsonb)
  from public, anon, authenticated;
grant execute on function
  uvian.settle_jobs(jsonb)
  to service_role;

notify pgrst, 'reload schema';
