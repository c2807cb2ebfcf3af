-- min_code: 0.1.0
-- While a job runs: leases, progress, marks, checkpoints, what it stores.

-- {worker, lease_seconds, jobs: [{id, run, stage?, progress?, message?, stages?}]}
-- → {lost: [id], cancel: [id]}. A lease that expired but was not swept is renewed.
create function uvian.renew_leases(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  by_worker text := request ->> 'worker';
  seconds double precision := coalesce((request ->> 'lease_seconds')::double precision, 15);
  lost jsonb;
  cancel jsonb;
begin
  update uvian.workers w set last_seen = now() where w.name = by_worker;
  if jsonb_array_length(coalesce(request -> 'jobs', '[]')) = 0 then
    return jsonb_build_object('lost', '[]'::jsonb, 'cancel', '[]'::jsonb);
  end if;

  with asked as (
    select (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run
    from jsonb_array_elements(request -> 'jobs') e
  ), free as (
    select l.job_id from uvian.job_leases l join asked a on a.id = l.job_id and a.run = l.run
    where l.worker = by_worker
    for no key update of l skip locked
  )
  update uvian.job_leases l set expires_at = clock_timestamp() + make_interval(secs => seconds)
    from free where free.job_id = l.job_id;

  with changed as (
    select j.id, e ->> 'stage' as stage, least(greatest((e ->> 'progress')::real, 0), 1) as progress,
           e ->> 'message' as message, coalesce(nullif(e -> 'stages', 'null'), j.stages) as stages
    from jsonb_array_elements(request -> 'jobs') e
    join uvian.job_leases l on l.job_id = (e ->> 'id')::uuid and l.run = (e ->> 'run')::bigint
      and l.worker = by_worker
    join uvian.jobs j on j.id = l.job_id and j.status = 'processing'
    where e ? 'progress'
      and (j.stage, j.progress, j.progress_message) is distinct from
          (e ->> 'stage', (e ->> 'progress')::real, e ->> 'message')
    for no key update of j skip locked
  )
  update uvian.jobs j
    set stage = c.stage, progress = c.progress, progress_message = c.message, stages = c.stages,
        updated_at = now()
    from changed c where c.id = j.id;

  select coalesce(jsonb_agg(a.id) filter (where l.job_id is null), '[]'),
         coalesce(jsonb_agg(a.id) filter (where l.cancel_requested), '[]')
    into lost, cancel
    from (select (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run
          from jsonb_array_elements(request -> 'jobs') e) a
    left join uvian.job_leases l on l.job_id = a.id and l.run = a.run and l.worker = by_worker;
  return jsonb_build_object('lost', lost, 'cancel', cancel);
end $$;

-- {dispatched: [{id, run}], announced: [{id, run}]} → {}. Lost marks cost a repeated no-op.
create function uvian.mark_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
begin
  with told as (
    select s.job_id from jsonb_array_elements(coalesce(request -> 'dispatched', '[]')) e
    join uvian.jobs j on j.id = (e ->> 'id')::uuid and j.run = (e ->> 'run')::bigint
      and j.status = 'queued' and j.admitted
    join uvian.job_state s on s.job_id = j.id
    for no key update of s skip locked
  )
  update uvian.job_state s
    set dispatched_at = clock_timestamp(), dispatches = least(s.dispatches + 1, 6),
        redispatch_at = now() + least(interval '30 s' * power(2, s.dispatches), interval '10 min')
    from told where told.job_id = s.job_id and s.redispatch_at is not null;

  with told as (
    select s.job_id from jsonb_array_elements(coalesce(request -> 'announced', '[]')) e
    join uvian.jobs j on j.id = (e ->> 'id')::uuid and j.run = (e ->> 'run')::bigint
    join uvian.job_state s on s.job_id = j.id
    for no key update of s skip locked
  )
  update uvian.job_state s set announce_at = null
    from told where told.job_id = s.job_id and s.announce_at is not null;
  return '{}';
end $$;

-- {worker, jobs: [{id, run, checkpoints: {…}}]} → {jobs: [{saved: bool}]}. Merged into what is there.
create function uvian.save_checkpoints(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  answers jsonb[] := array_fill(null::jsonb, array[jsonb_array_length(request -> 'jobs')]);
  item record;
begin
  for item in
    select n, (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run, e -> 'checkpoints' as checkpoints
    from jsonb_array_elements(request -> 'jobs') with ordinality x (e, n) order by 2, 1
  loop
    perform 1 from uvian.jobs j join uvian.job_leases l on l.job_id = j.id and l.run = j.run
      where j.id = item.id and j.run = item.run and j.status = 'processing'
        and l.worker = request ->> 'worker'
      for no key update of j;
    if found then
      update uvian.job_state s set checkpoints = s.checkpoints || item.checkpoints
        where s.job_id = item.id;
    end if;
    answers[item.n] := jsonb_build_object('saved', found);
  end loop;
  return jsonb_build_object('jobs', to_jsonb(answers));
end $$;

-- The concept of a generation or refinement, with its variations, written only by the run that
-- holds the job; its id is the caller's, so that a repetition replaces instead of adding.
-- {worker, job_id, run, concept: {id, …}, variations: [{id, position, …}]} → {stored: bool}
create function uvian.store_concept(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  owner uuid;
  c uvian.concepts;
begin
  select j.user_id into owner
    from uvian.jobs j join uvian.job_leases l on l.job_id = j.id and l.run = j.run
    where j.id = (request ->> 'job_id')::uuid and j.run = (request ->> 'run')::bigint
      and j.status = 'processing' and l.worker = request ->> 'worker'
    for no key update of j;
  if owner is null then
    return jsonb_build_object('stored', false);
  end if;
  c := jsonb_populate_record(null::uvian.concepts, request -> 'concept');
  if c.parent_id is not null and not exists (
      select from uvian.concepts p where p.id = c.parent_id and p.user_id = owner) then
    raise exception using errcode = 'PT404', message = 'not_found', detail = 'There is no such concept.';
  end if;
  insert into uvian.concepts as o (id, user_id, job_id, run, parent_id, logo_description,
      theme_description, image_path, width, height, details)
    values (c.id, owner, (request ->> 'job_id')::uuid, (request ->> 'run')::bigint, c.parent_id,
      c.logo_description, c.theme_description, c.image_path, c.width, c.height, coalesce(c.details, '{}'))
    on conflict (id) do update
      set run = excluded.run, parent_id = excluded.parent_id,
          logo_description = excluded.logo_description, theme_description = excluded.theme_description,
          image_path = excluded.image_path, width = excluded.width, height = excluded.height,
          details = excluded.details
      where o.user_id = owner and o.job_id = excluded.job_id;
  if not found then
    raise exception using errcode = 'PT409', message = 'conflict',
      detail = 'The concept id belongs to another job.';
  end if;
  delete from uvian.concept_variations v where v.concept_id = c.id;
  insert into uvian.concept_variations (id, concept_id, user_id, position, name, palette, image_path, width, height)
    select v.id, c.id, owner, v.position, v.name, v.palette, v.image_path, v.width, v.height
    from jsonb_populate_recordset(null::uvian.concept_variations, request -> 'variations') v;
  return jsonb_build_object('stored', true);
end $$;

revoke all on function
  uvian.renew_leases(jsonb), uvian.mark_jobs(jsonb), uvian.save_checkpoints(jsonb),
  uvian.store_concept(jsonb)
  from public, anon, authenticated;
grant execute on function
  uvian.renew_leases(jsonb), uvian.mark_jobs(jsonb), uvian.save_checkpoints(jsonb),
  uvian.store_concept(jsonb)
  to service_role;

notify pgrst, 'reload schema';
