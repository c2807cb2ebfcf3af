-- While a job runs: its lease, its progress, marks and checkpoints.

-- Renews the leases of running jobs, and shows their progress.
-- {worker, lease_seconds, jobs: [{id, run, stage?, progress?, message?, stages?}]}
-- → {lost: [id], cancel: [id]}. A lease that expired but was not swept is renewed.
create or replace function uvian.renew_leases(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off
as $$
declare
  by_worker text := request ->> 'worker';
  seconds double precision := coalesce((request ->> 'lease_seconds')::double precision, 15);
  items jsonb := coalesce(request -> 'jobs', '[]');
  mine uuid[];
  answer jsonb;
begin
  update uvian.workers w set last_seen = now() where w.name = by_worker;

  mine := array(
    select l.job_id from jsonb_array_elements(items) e
    cross join lateral (select o.* from uvian.job_leases o where o.job_id = (e ->> 'id')::uuid offset 0) l
    where l.run = (e ->> 'run')::bigint and l.worker = by_worker);
  -- Who holds a lease is ending it, or requests its cancel for a moment: neither is waited for.
  mine := array(select l.job_id from uvian.job_leases l where l.job_id = any (mine)
                for no key update skip locked);
  update uvian.job_leases l set expires_at = clock_timestamp() + make_interval(secs => seconds)
    where l.job_id = any (mine);

  perform uvian._show_progress(items, mine);

  select jsonb_build_object(
      'lost', coalesce(jsonb_agg(e ->> 'id') filter (where l.job_id is null), '[]'),
      'cancel', coalesce(jsonb_agg(e ->> 'id') filter (where l.cancel_requested), '[]'))
    into answer
    from jsonb_array_elements(items) e
    left join lateral (select o.* from uvian.job_leases o where o.job_id = (e ->> 'id')::uuid offset 0) l
      on l.run = (e ->> 'run')::bigint and l.worker = by_worker;
  return answer;
end $$;

-- What the owner sees of it, where that has changed; `mine` are jobs whose leases the caller holds.
create or replace function uvian._show_progress(items jsonb, mine uuid[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  held uuid[] := array(
    select j.id from jsonb_array_elements(items) e
    cross join lateral (select o.* from uvian.jobs o where o.id = (e ->> 'id')::uuid offset 0) j
    where j.id = any (mine) and e ? 'progress'
      and (j.stage, j.progress, j.progress_message) is distinct from
          (e ->> 'stage', (e ->> 'progress')::real, e ->> 'message'));
begin
  if cardinality(held) = 0 then
    return;
  end if;
  held := array(select j.id from uvian.jobs j where j.id = any (held) for no key update skip locked);
  update uvian.jobs j
    set stage = reported.e ->> 'stage', progress = least(greatest((reported.e ->> 'progress')::real, 0), 1),
        progress_message = reported.e ->> 'message', stages = coalesce(nullif(reported.e -> 'stages', 'null'), j.stages),
        updated_at = now()
    from (select item.e, o.id from jsonb_array_elements(items) item (e)
          cross join lateral (
            select x.* from uvian.jobs x where x.id = (item.e ->> 'id')::uuid offset 0) o
          where o.id = any (held) and o.run = (item.e ->> 'run')::bigint and o.status = 'processing') reported
    where j.id = reported.id;
end $$;

-- Marks what was dispatched and what was announced.
-- {dispatched: [{id, run}], announced: [{id, run}]} → {}. Lost marks cost a repeated no-op.
create or replace function uvian.mark_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  dispatched jsonb := coalesce(request -> 'dispatched', '[]');
  announced jsonb := coalesce(request -> 'announced', '[]');
  held uuid[];
begin
  -- Who holds a row is changing it; a mark that is not made is made next time. The runs are looked
  -- at once the rows are held: a mark must not hit what has become of the job since.
  held := array(
    select s.job_id from uvian.job_state s
    where s.job_id = any (array(select (e ->> 'id')::uuid from jsonb_array_elements(dispatched || announced) e))
    for no key update skip locked);
  update uvian.job_state s
    set dispatched_at = clock_timestamp(), dispatches = least(s.dispatches + 1, 6),
        -- What waits for its time in Redis is not offered again before it.
        redispatch_at = greatest(
          reported.run_at, now() + least(interval '30 s' * power(2, s.dispatches), interval '10 min'))
    from (select j.id, j.run_at from jsonb_array_elements(dispatched) e
          cross join lateral (select o.* from uvian.jobs o where o.id = (e ->> 'id')::uuid offset 0) j
          where j.id = any (held) and j.run = (e ->> 'run')::bigint and j.status = 'queued' and j.admitted) reported
    where s.job_id = reported.id;
  update uvian.job_state s set announce_at = null
    from (select j.id from jsonb_array_elements(announced) e
          cross join lateral (select o.id, o.run from uvian.jobs o where o.id = (e ->> 'id')::uuid offset 0) j
          where j.id = any (held) and j.run = (e ->> 'run')::bigint) reported
    where s.job_id = reported.id;
  return '{}';
end $$;

-- Keeps what finished stages need not do again, and registers files before they are stored.
-- {worker, jobs: [{id, run, checkpoints: {…}, files?: [path]}]} → {jobs: [{saved: bool, busy: bool}]}
-- Checkpoints are merged into what is there. `files` are about to be stored; busy: one of them is being
-- removed at this moment, so request again before it is stored.
create or replace function uvian.save_checkpoints(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  answers jsonb[] := array_fill(null::jsonb, array[jsonb_array_length(request -> 'jobs')]);
  item record;
  saved boolean;
begin
  if exists (select from jsonb_array_elements(request -> 'jobs') e
             where jsonb_typeof(e -> 'checkpoints') is distinct from 'object') then
    raise exception using errcode = '22023', message = 'checkpoints are one JSON object';
  end if;
  perform uvian._lock_files(array(
    select j.user_id from jsonb_array_elements(request -> 'jobs') e
    join uvian.jobs j on j.id = (e ->> 'id')::uuid where e ? 'files'));
  for item in
    select n, (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run, e -> 'checkpoints' as checkpoints,
           e -> 'files' as files
    from jsonb_array_elements(request -> 'jobs') with ordinality x (e, n) order by 2, 1
  loop
    perform 1 from uvian.jobs j join uvian.job_leases l on l.job_id = j.id and l.run = j.run
      where j.id = item.id and j.run = item.run and j.status = 'processing'
        and l.worker = request ->> 'worker'
      for no key update of j;
    saved := found;
    if saved and item.checkpoints <> '{}' then
      update uvian.job_state s set checkpoints = s.checkpoints || item.checkpoints
        where s.job_id = item.id;
    end if;
    answers[item.n] := jsonb_build_object(
      'saved', saved, 'busy', saved and item.files is not null and uvian._register_files(item.id, item.files));
  end loop;
  return jsonb_build_object('jobs', to_jsonb(answers));
end $$;

revoke all on function
  uvian.renew_leases(jsonb), uvian._show_progress(jsonb, uuid[]), uvian.mark_jobs(jsonb),
  uvian.save_checkpoints(jsonb)
  from public, anon, authenticated, service_role;
grant execute on function
  uvian.renew_leases(jsonb), uvian.mark_jobs(jsonb), uvian.save_checkpoints(jsonb)
  to service_role;

select uvian._close();
notify pgrst, 'reload schema';
