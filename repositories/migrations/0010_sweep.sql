-- min_code: 0.1.0
-- Workers come and go, and what they leave behind is picked up.

create function uvian._release_number(of_release text) returns integer[]
language sql immutable
set search_path = ''
as $$
  select coalesce(string_to_array((regexp_match(of_release, '\d{1,9}(?:\.\d{1,9})*'))[1], '.')::integer[], '{0}')
$$;

-- {worker, release, types: [{type, input_schema?, timeout_seconds?, max_attempts?}]} → {}
-- The newest release says what a type is; what the operator says of it stays.
create function uvian.register_worker(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
begin
  insert into uvian.job_types as t (type, input_schema, timeout_seconds, max_attempts, release)
    select e ->> 'type', coalesce(e -> 'input_schema', '{}'),
           coalesce((e ->> 'timeout_seconds')::double precision, 300),
           coalesce((e ->> 'max_attempts')::integer, 3), coalesce(request ->> 'release', '0')
    from jsonb_array_elements(request -> 'types') e order by 1
    on conflict (type) do update
      set input_schema = excluded.input_schema, timeout_seconds = excluded.timeout_seconds,
          max_attempts = excluded.max_attempts, release = excluded.release
      where uvian._release_number(excluded.release) >= uvian._release_number(t.release)
        and (t.input_schema, t.timeout_seconds, t.max_attempts, t.release) is distinct from
            (excluded.input_schema, excluded.timeout_seconds, excluded.max_attempts, excluded.release);
  insert into uvian.workers as w (name, types, release)
    values (request ->> 'worker',
            array(select e ->> 'type' from jsonb_array_elements(request -> 'types') e),
            coalesce(request ->> 'release', '0'))
    on conflict (name) do update set types = excluded.types, release = excluded.release, last_seen = now();
  delete from uvian.workers w where w.last_seen < now() - interval '7 days';
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

-- {types: [{type, enabled?, browser?, anonymous?, max_input_bytes?, max_queued_per_user?, max_running_per_user?,
--           models?, max_tokens?, system_prompt?, price?}]} → {types: [the same, whole]}
-- What the operator says of types: what is named is set, null lifts a limit or takes a price away, everything
-- else stays. All or nothing.
create function uvian.configure_types(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  unknown text := (select e ->> 'type' from jsonb_array_elements(request -> 'types') e
                   where not exists (select from uvian.job_types t where t.type = e ->> 'type') limit 1);
begin
  if unknown is not null then
    raise exception using errcode = 'PT422', message = 'unknown_type',
      detail = format('There is no job type %L: a worker that has it makes it known when it starts.', unknown);
  end if;
  update uvian.job_types t
    set enabled = coalesce((e ->> 'enabled')::boolean, t.enabled),
        browser = coalesce((e ->> 'browser')::boolean, t.browser),
        anonymous = coalesce((e ->> 'anonymous')::boolean, t.anonymous),
        max_input_bytes = coalesce((e ->> 'max_input_bytes')::integer, t.max_input_bytes),
        max_queued_per_user = case when e ? 'max_queued_per_user' then (e ->> 'max_queued_per_user')::integer
                                   else t.max_queued_per_user end,
        max_running_per_user = case when e ? 'max_running_per_user' then (e ->> 'max_running_per_user')::integer
                                    else t.max_running_per_user end,
        models = case jsonb_typeof(e -> 'models') when 'array' then array(select jsonb_array_elements_text(e -> 'models'))
                                                  when 'null' then null else t.models end,
        max_tokens = case when e ? 'max_tokens' then (e ->> 'max_tokens')::integer else t.max_tokens end,
        system_prompt = case when e ? 'system_prompt' then e ->> 'system_prompt' else t.system_prompt end
    from jsonb_array_elements(request -> 'types') e where t.type = e ->> 'type';
  insert into uvian.job_prices as p (type, amount)
    select e ->> 'type', (e ->> 'price')::numeric from jsonb_array_elements(request -> 'types') e
    where e ->> 'price' is not null
    on conflict (type) do update set amount = excluded.amount;
  delete from uvian.job_prices p using jsonb_array_elements(request -> 'types') e
    where p.type = e ->> 'type' and jsonb_typeof(e -> 'price') = 'null';
  return jsonb_build_object('types', (
    select coalesce(jsonb_agg(uvian._type(t) order by t.type), '[]') from uvian.job_types t
    where t.type in (select e ->> 'type' from jsonb_array_elements(request -> 'types') e)));
end $$;

-- What the operator says of a type, its price included.
create function uvian._type(t uvian.job_types) returns jsonb
language plpgsql stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'type', t.type, 'enabled', t.enabled, 'browser', t.browser, 'anonymous', t.anonymous,
    'max_input_bytes', t.max_input_bytes, 'max_queued_per_user', t.max_queued_per_user,
    'max_running_per_user', t.max_running_per_user, 'models', t.models, 'max_tokens', t.max_tokens,
    'system_prompt', t.system_prompt,
    'price', (select p.amount::text from uvian.job_prices p where p.type = t.type));
end $$;

-- {} → {types: [as configure_types answers]}: all of them.
create function uvian.list_types(request jsonb) returns jsonb
language plpgsql stable security definer
set search_path = '' set lock_timeout = '1s'
as $$
begin
  return jsonb_build_object('types', (
    select coalesce(jsonb_agg(uvian._type(t) order by t.type), '[]') from uvian.job_types t));
end $$;

-- ─── choose: each of these locks what it chooses, and waits for nobody ───────────────────────

-- Of these jobs those that nobody else holds; they, and what is remembered of them, are held now.
create function uvian._hold(of_jobs uuid[]) returns uuid[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  of_jobs := array(select j.id from uvian.jobs j where j.id = any (of_jobs) for no key update skip locked);
  return array(select s.job_id from uvian.job_state s where s.job_id = any (of_jobs)
               for no key update skip locked);
end $$;

create function uvian._choose_lost(most integer) returns uuid[]
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
create function uvian._choose_orphans(most integer) returns uuid[]
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
create function uvian._bring_forward(claiming jsonb, redis_lost_at timestamptz, most integer) returns integer
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

create function uvian._choose_due(most integer) returns uuid[]
language sql
set search_path = '' set jit = off set enable_seqscan = off
as $$
  select uvian._hold(array(
    select s.job_id from uvian.job_state s
    where s.redispatch_at <= now() order by s.redispatch_at limit most))
$$;

-- ─── act: the caller holds jobs, places and accounts ─────────────────────────────────────────

-- Jobs whose leases have expired. A crash burns an attempt only where the job ran alone; a job that
-- crashed often in company is a suspect, and must run alone before it may be given up. A crash of its
-- worker is not the job's error: it waits before the next run only from the third on.
create function uvian._bury(lost uuid[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  -- Who died together is marked before the first of them is buried.
  update uvian.job_leases l set shared = true
    where not l.shared and l.worker in (
      select o.worker from uvian.job_leases o
      where o.worker in (select d.worker from uvian.job_leases d where d.job_id = any (lost))
      group by o.worker having count(*) > 1);
  perform uvian._carry_out(array(
    select (b.id, b.run, 'worker_lost', null, b.status, b.attempt + (b.status <> 'cancelled' and b.alone)::integer,
            case when b.crashed < 3 then 0 else least(30, power(2, least(b.crashed - 1, 6))) end, 0,
            case when b.status = 'failed' then uvian._error('worker_lost',
              'The worker stopped while running this job.', b.attempt + 1) else '{}' end)::uvian._verdict
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

create function uvian._give_up(orphans uuid[]) returns void
language plpgsql
set search_path = ''
as $$
begin
  perform uvian._carry_out(array(
    select (j.id, j.run, 'no_executor', null, 'failed', j.attempt, 0, 0,
            uvian._error('no_executor', 'No worker knows this type of job.', j.attempt))::uvian._verdict
    from uvian.jobs j where j.id = any (orphans)));
end $$;

-- What is offered for dispatch is offered again after 5 s unless mark_jobs or a claim says otherwise.
create function uvian._offer(due uuid[]) returns jsonb
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  update uvian.job_state s
    set redispatch_at = case when j.status <> 'queued' then null
                             when j.admitted then now() + interval '5 s'
                             when j.run_at > now() then j.run_at end
    from uvian.jobs j where s.job_id = any (due) and j.id = s.job_id;
  return coalesce((select jsonb_agg(uvian._dispatch(j) order by j.score) from uvian._jobs(due) j
                   where j.status = 'queued' and j.admitted), '[]');
end $$;

-- {limit, lease_seconds, claiming: [{id, run}], redis_lost_at?} →
-- {swept: false} when another sweep is running, else {swept, expired, dispatch, announce, accounts,
--  forwarded, more, now}
--   claiming       ids a worker took from the queue some time ago and did not claim
--   redis_lost_at  what was dispatched before it is brought forward, a page a call (`forwarded`)
create function uvian.sweep_jobs(request jsonb) returns jsonb
language plpgsql security definer
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
  due := uvian._choose_due(most);
  waiting := array(select j.id from uvian._jobs(due) j where j.status = 'queued' and not j.admitted);

  perform uvian._lock_places(lost || orphans || waiting);
  payers := uvian._lock_payers(lost || orphans);

  if cardinality(lost) > 0 then
    perform uvian._bury(lost);
  end if;
  if cardinality(orphans) > 0 then
    perform uvian._give_up(orphans);
  end if;
  ended := array(select j.id from uvian._jobs(lost || orphans) j where j.status in ('failed', 'cancelled'));
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
    'announce', coalesce((select jsonb_agg(uvian._ending(j)) from uvian._jobs(announced) j
                          where j.status in ('completed', 'failed', 'cancelled')), '[]'),
    'accounts', uvian._accounts(array(
      select j.user_id from uvian._jobs(ended) j where j.user_id = any (payers))),
    'more', most <= greatest(cardinality(lost), cardinality(orphans), cardinality(due),
                             cardinality(announced), forwarded));
end $$;

revoke all on function
  uvian._release_number(text), uvian.register_worker(jsonb), uvian.retire_worker(jsonb),
  uvian.configure_types(jsonb), uvian._type(uvian.job_types), uvian.list_types(jsonb),
  uvian._hold(uuid[]), uvian._choose_lost(integer), uvian._choose_orphans(integer),
  uvian._bring_forward(jsonb, timestamptz, integer), uvian._choose_due(integer), uvian._bury(uuid[]),
  uvian._give_up(uuid[]), uvian._offer(uuid[]), uvian.sweep_jobs(jsonb)
  from public, anon, authenticated, service_role;
grant execute on function
  uvian.register_worker(jsonb), uvian.retire_worker(jsonb), uvian.configure_types(jsonb),
  uvian.list_types(jsonb), uvian.sweep_jobs(jsonb)
  to service_role;

notify pgrst, 'reload schema';
