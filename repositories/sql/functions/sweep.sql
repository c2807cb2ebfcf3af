-- What workers leave behind is picked up: expired leases, types that nobody has, rows to dispatch, terminal
-- events to announce. One sweep at a time; each `_choose` locks what it chooses, and waits for nobody.

-- Picks up what was left behind; one sweep at a time, and a repeat gets the last answer.
-- {id?, limit, lease_seconds, claiming: [{id, run}], redis_lost_at?} →
-- {swept: false} when another sweep is running, else {swept, expired, dispatch, announce, accounts,
--  forwarded, more, now}
--   id             made by the caller, the same where a call is repeated: the last one's answer is given again.
--                  What it offered is dispatched then, instead of 2 to 5 s later by another sweep
--   claiming       ids a worker took from the queue some time ago and did not claim
--   redis_lost_at  what was dispatched before it is brought forward, a page a call (`forwarded`)
create or replace function uvian.sweep_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  this uuid := (request ->> 'id')::uuid;
  known jsonb;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('uvian sweep', 0)) then
    return jsonb_build_object('swept', false);
  end if;
  select s.answer into known from uvian.sweeps s where s.request_id = this;
  if known is null then
    known := uvian._sweep(request);
    update uvian.sweeps s set request_id = this, answer = known where this is not null;
  end if;
  return known;
end $$;

-- One sweep. The caller holds the lock that keeps a second one out.
create or replace function uvian._sweep(request jsonb) returns jsonb
language plpgsql
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  most integer := least(coalesce((request ->> 'limit')::integer, 500), 500);
  seconds double precision := coalesce((request ->> 'lease_seconds')::double precision, 15);
  beat uvian.sweeps;
  lost uuid[] := '{}';
  orphans uuid[];
  ended uuid[];
  payers uuid[];
  due uuid[];
  waiting uuid[];
  forwarded integer;
  announced uuid[];
  dispatch jsonb;
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
    lost := uvian._choose_lost(most);
  end if;
  orphans := uvian._choose_orphans(most);
  forwarded := uvian._bring_forward(request -> 'claiming', (request ->> 'redis_lost_at')::timestamptz, most);
  select c.due, c.waiting into due, waiting from uvian._choose_due(most) c;

  perform uvian._lock_slots(lost || orphans || waiting);
  payers := uvian._lock_payers(lost || orphans);

  if cardinality(lost) > 0 then
    perform uvian._reap(lost);
  end if;
  if cardinality(orphans) > 0 then
    perform uvian._give_up(orphans);
  end if;
  ended := array(select j.id from uvian._jobs(lost || orphans) j where j.status in ('failed', 'cancelled'));
  if cardinality(waiting) > 0 then
    perform uvian._consider(waiting);
  end if;
  dispatch := uvian._offer(due || lost) || uvian._next(lost || orphans || waiting);

  announced := array(
    select s.job_id from uvian.job_state s
    where s.announce_at <= now() order by s.announce_at limit most for no key update skip locked);
  announced := announced || ended;
  update uvian.job_state s set announce_at = now() + interval '5 s' where s.job_id = any (announced);

  perform uvian._writing(false);
  return jsonb_build_object(
    'swept', true, 'now', clock_timestamp(), 'expired', cardinality(lost), 'forwarded', forwarded,
    'dispatch', dispatch,
    'announce', coalesce((select jsonb_agg(uvian._terminal_event(j)) from uvian._jobs(announced) j
                          where j.status in ('completed', 'failed', 'cancelled')), '[]'),
    'accounts', uvian._accounts(array(
      select j.user_id from uvian._jobs(ended) j where j.user_id = any (payers))),
    'more', most <= greatest(cardinality(lost), cardinality(orphans), cardinality(due) + cardinality(waiting),
                             cardinality(announced), forwarded));
end $$;

-- Locks those of these jobs that no other transaction has locked, with their job_state; returns them.
create or replace function uvian._hold(of_jobs uuid[]) returns uuid[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  of_jobs := array(select j.id from uvian.jobs j where j.id = any (of_jobs) for no key update skip locked);
  return array(select s.job_id from uvian.job_state s where s.job_id = any (of_jobs)
               for no key update skip locked);
end $$;

-- Jobs whose leases have expired.
create or replace function uvian._choose_lost(most integer) returns uuid[]
language plpgsql
set search_path = ''
as $$
declare
  expired uuid[] := array(
    select l.job_id from uvian.job_leases l
    where l.expires_at < clock_timestamp() order by l.expires_at limit most);
begin
  expired := uvian._hold(expired);
  return array(  -- those that were not renewed since
    select l.job_id from uvian.job_leases l
    where l.job_id = any (expired) and l.expires_at < clock_timestamp()
    for no key update skip locked);
end $$;

-- Queued jobs of a type that no worker has had for ten minutes, while others have been there.
create or replace function uvian._choose_orphans(most integer) returns uuid[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  if not exists (select from uvian.workers w where w.last_seen > now() - interval '30 s'
                 and w.started_at < now() - interval '10 min') then
    return '{}';
  end if;
  return array(
    select orphan.id from uvian.job_types t
    cross join lateral (
      select j.id from uvian.jobs j
      where j.type = t.type and j.status = 'queued' and j.admitted
        and greatest(j.run_at, j.created_at) < now() - interval '10 min'
      order by j.score limit most
      for no key update skip locked) orphan
    where not exists (select from uvian.workers w
                      where w.last_seen > now() - interval '10 min' and t.type = any (w.types))
    limit most);
end $$;

-- Brings forward what Redis has lost: ids that a worker took from the queue and did not claim, and
-- after a flush everything that was dispatched before it, a page a call. Answers the page's size: one
-- that is not full is the last, also when some of its rows are held by another.
create or replace function uvian._bring_forward(claiming jsonb, redis_lost_at timestamptz, most integer) returns integer
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  stuck uuid[] := uvian._hold(array(
    select (e ->> 'id')::uuid from jsonb_array_elements(coalesce(claiming, '[]')) e));
  page uuid[] := '{}';
  held uuid[];
begin
  stuck := array(
    select j.id from jsonb_array_elements(coalesce(claiming, '[]')) e join uvian._jobs(stuck) j
      on j.id = (e ->> 'id')::uuid and j.run = (e ->> 'run')::bigint and j.status = 'queued' and j.admitted);
  if redis_lost_at is not null then
    page := array(
      select j.id from uvian.job_state s
      cross join lateral (select o.* from uvian.jobs o where o.id = s.job_id offset 0) j
      where s.redispatch_at > now() and coalesce(s.dispatched_at, '-infinity') < redis_lost_at
        and j.status = 'queued' and j.admitted
      order by s.redispatch_at desc limit most);
  end if;
  held := stuck || uvian._hold(page);
  update uvian.job_state s set redispatch_at = least(s.redispatch_at, now()) where s.job_id = any (held);
  return cardinality(page);
end $$;

-- Queued jobs that are due for dispatch, and jobs that wait and may be let in.
create or replace function uvian._choose_due(most integer, out due uuid[], out waiting uuid[])
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  select coalesce(array_agg(j.id) filter (where j.admitted or j.status <> 'queued'), '{}'),
         coalesce(array_agg(j.id) filter (where not j.admitted and j.status = 'queued'), '{}')
    into due, waiting
    from (select s.job_id from uvian.job_state s
          where s.redispatch_at <= now() order by s.redispatch_at limit most) found
    cross join lateral (select o.* from uvian.jobs o where o.id = found.job_id offset 0) j;
  due := uvian._hold(due);
end $$;

-- Jobs whose leases have expired. A crash burns an attempt only where the job ran alone; a job that
-- crashed often in company may be a poison job, and must run alone before it may be given up. A crash of its
-- worker is not the job's error: it waits before the next run only from the third on.
create or replace function uvian._reap(lost uuid[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  -- Mark all jobs of a crashed worker before the first of them is reaped.
  update uvian.job_leases l set shared = true
    where not l.shared and l.worker in (
      select o.worker from uvian.job_leases o
      where o.worker in (select d.worker from uvian.job_leases d where d.job_id = any (lost))
      group by o.worker having count(*) > 1);
  perform uvian._carry_out(array(
    select (b.id, b.run, 'worker_lost', null, b.status, b.attempt + (b.status <> 'cancelled' and b.alone)::integer,
            case when b.crashed < 3 then 0 else least(30, power(2, least(b.crashed - 1, 6))) end, 0,
            case when b.status = 'cancelled' then '{}' else uvian._error('worker_lost',
              'The worker stopped while running this job.', b.attempt + b.alone::integer,
              b.status = 'queued') end)::uvian._verdict
    from (
      select j.id, j.run, j.attempt, not l.shared as alone, s.crashes + 1 as crashed, case
          when l.cancel_requested then 'cancelled'  -- the request outlives its worker
          when not l.shared and (l.isolated or j.attempt + 1 >= coalesce(t.max_attempts, 1)) then 'failed'
          else 'queued' end as status
      from unnest(lost) o (id)
      cross join lateral (select x.* from uvian.job_leases x where x.job_id = o.id offset 0) l
      cross join lateral (select x.* from uvian.jobs x where x.id = o.id offset 0) j
      cross join lateral (select x.crashes from uvian.job_state x where x.job_id = o.id offset 0) s
      left join uvian.job_types t on t.type = j.type
      where j.run = l.run and j.status = 'processing') b));
end $$;

-- Fails jobs of a type that no worker knows.
create or replace function uvian._give_up(orphans uuid[]) returns void
language plpgsql
set search_path = ''
as $$
begin
  perform uvian._carry_out(array(
    select (j.id, j.run, 'no_executor', null, 'failed', j.attempt, 0, 0,
            uvian._error('no_executor', 'No worker knows this type of job.', j.attempt, false))::uvian._verdict
    from uvian.jobs j where j.id = any (orphans)));
end $$;

-- What is offered for dispatch is offered again after 2 to 5 s unless mark_jobs or a claim says otherwise: a
-- little sooner each, and not all at the same moment. Where every few replies are lost, fixed five seconds
-- could fall in step with the losses, and a job wait for minutes.
create or replace function uvian._offer(due uuid[]) returns jsonb
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  update uvian.job_state s
    set redispatch_at = case when j.status <> 'queued' then null
                             when j.admitted then now() + interval '5 s' * (0.4 + 0.6 * random())
                             when j.run_at > now() then j.run_at end
    from uvian.jobs j where s.job_id = any (due) and j.id = s.job_id;
  return coalesce((select jsonb_agg(uvian._dispatch(j) order by j.score) from uvian._jobs(due) j
                   where j.status = 'queued' and j.admitted), '[]');
end $$;

revoke all on function
  uvian.sweep_jobs(jsonb), uvian._sweep(jsonb), uvian._hold(uuid[]), uvian._choose_lost(integer),
  uvian._choose_orphans(integer), uvian._bring_forward(jsonb, timestamptz, integer), uvian._choose_due(integer),
  uvian._reap(uuid[]), uvian._give_up(uuid[]), uvian._offer(uuid[])
  from public, anon, authenticated, service_role;
grant execute on function
  uvian.sweep_jobs(jsonb)
  to service_role;

select uvian._close();
notify pgrst, 'reload schema';
