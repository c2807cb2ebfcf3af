-- min_code: 0.1.0
-- Workers come and go, and what they leave behind is picked up.

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
  uvian.register_worker(jsonb), uvian.retire_worker(jsonb),
  uvian._bury(uvian.jobs, uvian.job_leases, boolean), uvian._expire_leases(integer),
  uvian._fail_orphans(integer), uvian._due_for_dispatch(integer), uvian.sweep_jobs(jsonb)
  from public, anon, authenticated;
grant execute on function
  uvian.register_worker(jsonb), uvian.retire_worker(jsonb), uvian.sweep_jobs(jsonb)
  to service_role;

notify pgrst, 'reload schema';
