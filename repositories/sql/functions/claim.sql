-- Who works on what: by id (a queue said so) or the next that is due (polling without a queue).
--
-- A job that may be a poison job (job_state.isolated: it crashed several workers) runs alone: an idle worker takes
-- it and nothing beside it.

-- Claims jobs by their ids and runs, which a queue named; a repeat gets the same answer.
-- {worker, lease_seconds, jobs: [{id, run}]}
-- → {jobs: [{claimed: true, id, run, user_id, type, attempt, max_attempts, input, checkpoints,
--            cancel_requested, created_at, parent_id, models, max_tokens, system_prompt}
--         | {claimed: false, id, reason: not_found | stale | waiting | worker_busy | worker_isolating, run}]}
create or replace function uvian.claim_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off
as $$
declare
  by_worker text := request ->> 'worker';
  seconds double precision := coalesce((request ->> 'lease_seconds')::double precision, 15);
  ids uuid[] := array(select (e ->> 'id')::uuid from jsonb_array_elements(request -> 'jobs') e);
  free uuid[];
  waiting uuid[];
  poison uuid[];
  isolating boolean;
  reasons jsonb := '{}';
  held jsonb;
begin
  perform uvian._writing(true);
  perform uvian._lock_worker(by_worker);
  perform 1 from uvian.jobs j where j.id = any (ids) order by j.id for no key update;

  -- One look at all that was requested: who may start, who waits for a slot, who may be poison.
  select coalesce(array_agg(j.id) filter (where j.admitted and not s.isolated), '{}'),
         coalesce(array_agg(j.id) filter (where not j.admitted), '{}'),
         coalesce(array_agg(j.id order by j.score, j.id) filter (where j.admitted and s.isolated), '{}')
    into free, waiting, poison
    from (select distinct (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run
          from jsonb_array_elements(request -> 'jobs') e) a
    cross join lateral (select o.* from uvian.jobs o where o.id = a.id offset 0) j
    cross join lateral (select o.isolated from uvian.job_state o where o.job_id = j.id offset 0) s
    where j.run = a.run and j.status = 'queued';
  select bool_or(l.isolated) into isolating from uvian.job_leases l where l.worker = by_worker;

  if isolating then
    reasons := uvian._reasons(free || poison, 'worker_isolating');
    free := '{}';
  elsif cardinality(poison) > 0 then
    if isolating is null and cardinality(free) = 0 then  -- idle: the first of them runs, alone
      free := poison[1:1];
      poison := poison[2:];
    end if;
    reasons := uvian._reasons(poison, 'worker_busy');
  end if;
  if cardinality(waiting) > 0 then
    reasons := reasons || uvian._reasons(waiting, 'waiting');
  end if;
  if reasons <> '{}' then
    perform uvian._refuse(array(select r::uuid from jsonb_object_keys(reasons) r));
  end if;
  if cardinality(free) > 0 then
    perform uvian._start(free, by_worker, seconds, null);
  end if;
  perform uvian._writing(false);

  -- What this worker holds, be it since now or since a claim whose reply was lost.
  select jsonb_object_agg(c.id, c.job) into held from uvian._claimed(ids, by_worker) c;
  return jsonb_build_object('jobs', (
    select coalesce(jsonb_agg(
        case when j.id is null then jsonb_build_object('claimed', false, 'id', a.id, 'reason', 'not_found')
             when j.run = a.run and held ? a.id::text then held -> a.id::text
             else jsonb_build_object('claimed', false, 'id', a.id, 'run', j.run, 'reason',
               coalesce(case when j.run = a.run + 1 then reasons ->> a.id::text end, 'stale')) end
        order by a.n), '[]')
    from (select n, (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run
          from jsonb_array_elements(request -> 'jobs') with ordinality x (e, n)) a
    left join lateral (select o.id, o.run from uvian.jobs o where o.id = a.id offset 0) j on true));
end $$;

-- A reason for each of these jobs.
create or replace function uvian._reasons(of_jobs uuid[], reason text) returns jsonb
language sql immutable
set search_path = ''
as $$
  select coalesce(jsonb_object_agg(id, reason), '{}') from unnest(of_jobs) id
$$;

-- Polling without a queue: due, oldest first with priority, only types the worker has.
-- {worker, nonce, types: [text], limit, lease_seconds} → {jobs: [{claimed: true, …}]}
create or replace function uvian.claim_next_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off
as $$
declare
  by_worker text := request ->> 'worker';
  by_nonce uuid := (request ->> 'nonce')::uuid;
  most integer := least(coalesce((request ->> 'limit')::integer, 1), 500);
  seconds double precision := coalesce((request ->> 'lease_seconds')::double precision, 15);
  held integer;
  isolating boolean;
  poison boolean[];
  ids uuid[];
begin
  if by_nonce is null then
    raise exception using errcode = 'PT422', message = 'nonce_missing',
      detail = 'Send a fresh uuid as nonce, and the same one again when the reply was lost.';
  end if;
  perform uvian._lock_worker(by_worker);
  select count(*), coalesce(bool_or(l.isolated), false), array_agg(l.job_id) filter (where l.nonce = by_nonce)
    into held, isolating, ids
    from uvian.job_leases l where l.worker = by_worker;

  if ids is null and not isolating then
    perform uvian._writing(true);
    select array_agg(due.id order by due.score, due.id),
           array_agg(due.isolated order by due.score, due.id)
      into ids, poison
      from (
        select d.* from (select distinct t.type from jsonb_array_elements_text(request -> 'types') t (type)) wanted
        cross join lateral (
          select j.id, j.score, s.isolated from uvian.jobs j
          cross join lateral (select o.isolated from uvian.job_state o where o.job_id = j.id offset 0) s
          where j.type = wanted.type and j.status = 'queued' and j.admitted and j.run_at <= now()
            and (held = 0 or not s.isolated)
          order by j.score limit most
          for no key update of j skip locked) d
        order by d.score, d.id limit most) due;
    if poison[1] then
      ids := ids[1:1];
    else
      ids := array(select x.id from unnest(ids, poison) x (id, isolated) where not x.isolated);
    end if;
    if cardinality(ids) > 0 then
      perform uvian._start(ids, by_worker, seconds, by_nonce);
    end if;
    perform uvian._writing(false);
  end if;
  return jsonb_build_object('jobs', (
    select coalesce(jsonb_agg(c.job order by o.n), '[]')
    from unnest(ids) with ordinality o (id, n) join uvian._claimed(ids, by_worker) c on c.id = o.id));
end $$;

-- Serialises the claims of one worker, so that its set of jobs cannot change in between.
create or replace function uvian._lock_worker(by_worker text) returns void
language plpgsql
set search_path = ''
as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('uvian worker ' || by_worker, 0));
end $$;

-- Queued → processing. The caller holds the rows. `redispatch_at` is not cleared here: the sweep clears it for
-- the few jobs that still run when it is due.
create or replace function uvian._start(these uuid[], by_worker text, lease_seconds double precision, by_nonce uuid)
returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  with started as (
    update uvian.jobs j
      set status = 'processing', started_at = now(), updated_at = now(), stages = '[]',
          progress = 0, stage = null, progress_message = null
      from unnest(these) o (id) where j.id = o.id
      returning j.id, j.run
  )
  insert into uvian.job_leases (job_id, run, worker, expires_at, isolated, nonce)
    select j.id, j.run, by_worker, clock_timestamp() + make_interval(secs => lease_seconds),
           s.isolated, by_nonce
    from started j join uvian.job_state s on s.job_id = j.id;
end $$;

-- Refuses a claim: arq has forgotten the id, so the job gets a new run, which is dispatched later each time. For a
-- job that waits for its turn or slot `redispatch_at` stays: it is dispatched when that comes.
create or replace function uvian._refuse(these uuid[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  update uvian.jobs j set run = j.run + 1, updated_at = now() where j.id = any (these);
  update uvian.job_state s
    set refusals = least(s.refusals + 1, 6), dispatches = 0, dispatched_at = null,
        redispatch_at = case when j.admitted then now() + make_interval(secs => least(30, power(2, s.refusals)))
                             else s.redispatch_at end
    from uvian.jobs j where j.id = any (these) and s.job_id = j.id;
end $$;

-- What a worker gets of the jobs it holds.
create or replace function uvian._claimed(of_jobs uuid[], by_worker text) returns table (id uuid, job jsonb)
language plpgsql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return query
  select j.id, jsonb_build_object(
    'claimed', true, 'id', j.id, 'run', j.run, 'user_id', j.user_id, 'type', j.type,
    'attempt', j.attempt, 'max_attempts', t.max_attempts, 'input', j.input,
    'checkpoints', s.checkpoints, 'cancel_requested', l.cancel_requested,
    'created_at', j.created_at, 'parent_id', j.parent_id,
    'models', t.models, 'max_tokens', t.max_tokens, 'system_prompt', t.system_prompt)
  from unnest(of_jobs) wanted (id)
  cross join lateral (select o.* from uvian.jobs o where o.id = wanted.id offset 0) j
  cross join lateral (select o.* from uvian.job_leases o where o.job_id = j.id offset 0) l
  cross join lateral (select o.* from uvian.job_state o where o.job_id = j.id offset 0) s
  left join uvian.job_types t on t.type = j.type
  where j.status = 'processing' and l.worker = by_worker and l.run = j.run;
end $$;

revoke all on function
  uvian.claim_jobs(jsonb), uvian._reasons(uuid[], text), uvian.claim_next_jobs(jsonb), uvian._lock_worker(text),
  uvian._start(uuid[], text, double precision, uuid), uvian._refuse(uuid[]), uvian._claimed(uuid[], text)
  from public, anon, authenticated, service_role;
grant execute on function
  uvian.claim_jobs(jsonb), uvian.claim_next_jobs(jsonb)
  to service_role;

select uvian._close();
notify pgrst, 'reload schema';
