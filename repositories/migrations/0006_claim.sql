-- min_code: 0.1.0
-- Who works on what: by id (a queue said so) or the next that is due (polling without a queue).

create function uvian._claimed(j uvian.jobs, asks_cancel boolean) returns jsonb
language sql stable
set search_path = ''
as $$
  select uvian._job(j) || jsonb_build_object(
    'claimed', true, 'input', j.input, 'cancel_requested', asks_cancel,
    'started_at', j.started_at,
    'checkpoints', (select s.checkpoints from uvian.job_state s where s.job_id = j.id),
    'max_attempts', (select t.max_attempts from uvian.job_types t where t.type = j.type))
$$;

-- Queued → processing. The caller holds the row.
create function uvian._claim(j uvian.jobs, by_worker text, lease_seconds double precision, by_nonce uuid)
returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  update uvian.jobs w
    set status = 'processing', started_at = now(), updated_at = now(), stages = '[]',
        progress = 0, stage = null, progress_message = null
    where w.id = j.id returning * into j;
  update uvian.job_state s
    set redispatch_at = null, dispatches = 0, refusals = 0 where s.job_id = j.id;
  insert into uvian.job_leases (job_id, run, worker, expires_at, isolated, nonce)
    select j.id, j.run, by_worker, clock_timestamp() + make_interval(secs => lease_seconds), s.isolated, by_nonce
    from uvian.job_state s where s.job_id = j.id;
  return uvian._claimed(j, false);
end $$;

-- A claim refused: arq has forgotten the id, so the run is bumped and offered again, later each time.
create function uvian._refuse(j uvian.jobs, reason text) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  update uvian.jobs w set run = w.run + 1, updated_at = now() where w.id = j.id returning * into j;
  update uvian.job_state s
    set refusals = least(s.refusals + 1, 6), dispatches = 0, dispatched_at = null,
        redispatch_at = case when j.admitted
          then now() + make_interval(secs => least(30, power(2, s.refusals))) end
    where s.job_id = j.id;
  return jsonb_build_object('id', j.id, 'claimed', false, 'reason', reason, 'run', j.run);
end $$;

-- Why this worker may not have the job now, if so. A suspect (isolated) runs alone in its worker.
create function uvian._objection(j uvian.jobs, by_worker text) returns text
language sql stable
set search_path = ''
as $$
  select case
    when not j.admitted then 'waiting'
    when exists (select from uvian.job_leases l where l.worker = by_worker and l.isolated)
      then 'worker_isolating'
    when (select s.isolated from uvian.job_state s where s.job_id = j.id)
      and exists (select from uvian.job_leases l where l.worker = by_worker) then 'worker_busy'
  end
$$;

-- {worker, lease_seconds, jobs: [{id, run}]} → {jobs: [{claimed: true, …} | {claimed: false, reason}]}
create function uvian.claim_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  by_worker text := request ->> 'worker';
  seconds double precision := coalesce((request ->> 'lease_seconds')::double precision, 15);
  answers jsonb[] := array_fill(null::jsonb, array[jsonb_array_length(request -> 'jobs')]);
  item record;
  j uvian.jobs;
  l uvian.job_leases;
  objection text;
begin
  perform uvian._writing(true);
  for item in
    select n, (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run
    from jsonb_array_elements(request -> 'jobs') with ordinality x (e, n) order by 2, 3
  loop
    select * into j from uvian.jobs x where x.id = item.id for no key update;
    if j.id is null then
      answers[item.n] := jsonb_build_object('id', item.id, 'claimed', false, 'reason', 'not_found');
    elsif j.run <> item.run or j.status not in ('queued', 'processing') then
      answers[item.n] := jsonb_build_object('id', item.id, 'claimed', false, 'reason', 'stale', 'run', j.run);
    elsif j.status = 'processing' then
      select * into l from uvian.job_leases x where x.job_id = j.id;
      answers[item.n] := case when l.worker = by_worker and l.run = item.run
        then uvian._claimed(j, l.cancel_requested)
        else jsonb_build_object('id', j.id, 'claimed', false, 'reason', 'stale', 'run', j.run) end;
    else
      objection := uvian._objection(j, by_worker);
      answers[item.n] := case when objection is null
        then uvian._claim(j, by_worker, seconds, null) else uvian._refuse(j, objection) end;
    end if;
  end loop;
  perform uvian._writing(false);
  return jsonb_build_object('jobs', to_jsonb(answers));
end $$;

-- Polling without a queue: due, oldest first with priority, only types the worker has.
-- {worker, nonce, types: [text], limit, lease_seconds} → {jobs: [{claimed: true, …}]}
create function uvian.claim_next_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  by_worker text := request ->> 'worker';
  by_nonce uuid := (request ->> 'nonce')::uuid;
  most integer := least(coalesce((request ->> 'limit')::integer, 1), 500);
  seconds double precision := coalesce((request ->> 'lease_seconds')::double precision, 15);
  answers jsonb;
  j uvian.jobs;
begin
  if by_nonce is null then
    raise exception using errcode = 'PT422', message = 'nonce_missing',
      detail = 'Send a fresh uuid as nonce, and the same one again when the reply was lost.';
  end if;
  select jsonb_agg(uvian._claimed(x, l.cancel_requested) order by x.score) into answers
    from uvian.job_leases l join uvian.jobs x on x.id = l.job_id
    where l.worker = by_worker and l.nonce = by_nonce;
  if answers is not null then
    return jsonb_build_object('jobs', answers);
  end if;
  answers := '[]';
  perform uvian._writing(true);
  for j in
    select due.* from jsonb_array_elements_text(request -> 'types') asked (type)
    cross join lateral (
      select * from uvian.jobs x
      where x.type = asked.type and x.status = 'queued' and x.admitted and x.run_at <= now()
      order by x.score limit most
      for no key update skip locked) due
    order by due.score limit most
  loop
    if uvian._objection(j, by_worker) is null then
      answers := answers || uvian._claim(j, by_worker, seconds, by_nonce);
    end if;
  end loop;
  perform uvian._writing(false);
  return jsonb_build_object('jobs', answers);
end $$;

revoke all on function
  uvian._claimed(uvian.jobs, boolean), uvian._claim(uvian.jobs, text, double precision, uuid),
  uvian._refuse(uvian.jobs, text), uvian._objection(uvian.jobs, text), uvian.claim_jobs(jsonb),
  uvian.claim_next_jobs(jsonb)
  from public, anon, authenticated;
grant execute on function
  uvian.claim_jobs(jsonb), uvian.claim_next_jobs(jsonb)
  to service_role;

notify pgrst, 'reload schema';
