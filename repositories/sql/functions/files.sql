-- Concepts, and the files that they name. A file is registered before it is stored (save_checkpoints), and
-- looked at again when its job has ended or what named it is gone; what nothing names is removed.
--
-- Whoever registers files of a user, or chooses some to remove, holds a lock on the user's files: what is
-- about to be stored is never chosen, and what was chosen is not stored before it has been removed.

-- The concept of a generation or refinement, with its variations, written only by the run that
-- holds the job; its id is the caller's, so that a repetition replaces instead of adding.
-- {worker, job_id, run, concept: {id, …}, variations: [{id, position, …}]} → {stored: bool}
create or replace function uvian.store_concept(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  owner uuid;
  parent uuid := (request -> 'concept' ->> 'parent_id')::uuid;
begin
  select j.user_id into owner
    from uvian.jobs j join uvian.job_leases l on l.job_id = j.id and l.run = j.run
    where j.id = (request ->> 'job_id')::uuid and j.run = (request ->> 'run')::bigint
      and j.status = 'processing' and l.worker = request ->> 'worker'
    for no key update of j;
  if owner is null then
    return jsonb_build_object('stored', false);
  end if;
  if parent is not null and not exists (
      select from uvian.concepts p where p.id = parent and p.user_id = owner) then
    raise exception using errcode = 'PT404', message = 'not_found', detail = 'There is no such concept.';
  end if;
  perform uvian._put_concept((request ->> 'job_id')::uuid, (request ->> 'run')::bigint, owner, request);
  return jsonb_build_object('stored', true);
end $$;

-- Writes `{concept, variations}` of a run; the caller holds the job, and has looked at the parent. Of the same
-- picture what an earlier run was charged for stays, also where this one did not come to it.
create or replace function uvian._put_concept(of_job uuid, of_run bigint, owner uuid, made jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  c uvian.concepts := jsonb_populate_record(null::uvian.concepts, made -> 'concept');
  paid integer[] := array(select v.position from uvian.concepts o join uvian.concept_variations v on v.concept_id = o.id
                          where o.id = c.id and o.image_path = c.image_path and v.kept);
begin
  insert into uvian.concepts as o (id, user_id, job_id, run, parent_id, logo_description,
      theme_description, image_path, width, height, details)
    values (c.id, owner, of_job, of_run, c.parent_id, c.logo_description, c.theme_description,
      c.image_path, c.width, c.height, coalesce(c.details, '{}'))
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
  delete from uvian.concept_variations v
    where v.concept_id = c.id and (v.position <> all (paid) or v.position in (
      select (m ->> 'position')::integer from jsonb_array_elements(made -> 'variations') m));
  insert into uvian.concept_variations (id, concept_id, user_id, position, name, palette, image_path, width, height, kept)
    select v.id, c.id, owner, v.position, v.name, v.palette, v.image_path, v.width, v.height, v.position = any (paid)
    from jsonb_populate_recordset(null::uvian.concept_variations, made -> 'variations') v;
end $$;

-- Holds the files of these users, in order.
create or replace function uvian._lock_files(of_users uuid[]) returns void
language plpgsql
set search_path = ''
as $$
declare
  lock bigint;
begin
  for lock in
    select distinct hashtextextended('uvian files ' || u, 0) as key from unnest(of_users) u order by key
  loop
    perform pg_advisory_xact_lock(lock);
  end loop;
end $$;

-- Registers files before they are stored; true if one of them is being removed at this moment. A removal that is
-- older than two minutes counts as failed.
create or replace function uvian._register_files(of_job uuid, paths jsonb) returns boolean
language plpgsql
set search_path = ''
as $$
begin
  insert into uvian.files as f (path, job_id, user_id)
    select distinct p.path, j.id, j.user_id
    from jsonb_array_elements_text(paths) p (path) join uvian.jobs j on j.id = of_job
    order by p.path
    on conflict (path, job_id) do update
      set check_at = null,
          removing_at = case when f.removing_at > now() - interval '2 min' then f.removing_at end;
  return exists (
    select from jsonb_array_elements_text(paths) p (path) join uvian.files f on f.path = p.path
    where f.removing_at > now() - interval '2 min');
end $$;

-- Whether a result has this file, or a job that may still get one.
create or replace function uvian._is_named(file text) returns boolean
language plpgsql stable
set search_path = ''
as $$
begin
  return exists (select from uvian.concepts c where c.image_path = file)
      or exists (select from uvian.concept_variations v where v.image_path = file)
      or exists (select from uvian.files f join uvian.jobs j on j.id = f.job_id
                 where f.path = file and j.status in ('queued', 'processing'));
end $$;

-- Chooses files of one user that nothing names, to be removed.
-- {id, limit?} → {files: [path], more}: files of one user that nothing names, to be removed now and then
-- forgotten (forget_files). Each is given to one call; to another only when it has not been forgotten
-- in two minutes. `id` is the call's own: repeated after a lost reply, it gets the same answer.
create or replace function uvian.choose_unnamed_files(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
  by_call uuid := (request ->> 'id')::uuid;
  most integer := least(coalesce((request ->> 'limit')::integer, 100), 500);
  owner uuid;
  due text[];
  unnamed text[];
begin
  unnamed := array(select distinct f.path from uvian.files f
                   where f.check_at is not null and f.removing_by = by_call order by f.path);
  if cardinality(unnamed) > 0 then
    return jsonb_build_object('files', to_jsonb(unnamed), 'more', true);
  end if;
  select f.user_id into owner from uvian.files f
    where f.check_at <= now() and coalesce(f.removing_at, '-infinity') < now() - interval '2 min'
    order by f.check_at limit 1;
  if owner is null then
    return jsonb_build_object('files', '[]'::jsonb, 'more', false);
  end if;
  perform uvian._lock_files(array[owner]);
  due := array(
    select f.path from uvian.files f
    where f.check_at <= now() and f.user_id = owner
      and coalesce(f.removing_at, '-infinity') < now() - interval '2 min'
    order by f.check_at limit most);
  unnamed := array(select d.path from (select distinct path from unnest(due) path) d
                   where not uvian._is_named(d.path) order by d.path);
  update uvian.files f set check_at = null
    where f.path = any (due) and f.check_at <= now() and not f.path = any (unnamed);
  update uvian.files f
    set check_at = coalesce(f.check_at, now()), removing_at = now(), removing_by = by_call
    where f.path = any (unnamed);
  return jsonb_build_object('files', to_jsonb(unnamed), 'more', true);
end $$;

-- Forgets files that were removed.
-- {files: [path]} → {}: they were removed. Who registered one meanwhile learns it and registers it again.
create or replace function uvian.forget_files(request jsonb) returns jsonb
language sql security definer
set search_path = '' set lock_timeout = '1s'
as $$
  delete from uvian.files f
    where f.path in (select jsonb_array_elements_text(request -> 'files')) and f.removing_at is not null;
  select '{}'::jsonb
$$;

-- Which of these files a user may see.
-- {user_id, paths: [path]} → {paths}: those that are this user's to see. What no result names and no open
-- job has stored is not, also before it has been removed.
create or replace function uvian.served_files(request jsonb) returns jsonb
language sql stable security definer
set search_path = '' set lock_timeout = '1s'
as $$
  select jsonb_build_object('paths', coalesce(jsonb_agg(p.path), '[]'))
  from jsonb_array_elements_text(request -> 'paths') p (path)
  where split_part(p.path, '/', 1) = request ->> 'user_id' and uvian._is_named(p.path)
$$;

-- Lets the next sweep look at files whose row is gone or names another file.
create or replace function uvian._check_files() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  update uvian.files f set check_at = now() where f.path = old.image_path and f.check_at is null;
  return null;
end $$;

revoke all on function
  uvian.store_concept(jsonb), uvian._put_concept(uuid, bigint, uuid, jsonb), uvian._lock_files(uuid[]),
  uvian._register_files(uuid, jsonb), uvian._is_named(text), uvian.choose_unnamed_files(jsonb),
  uvian.forget_files(jsonb), uvian.served_files(jsonb), uvian._check_files()
  from public, anon, authenticated, service_role;
grant execute on function
  uvian.store_concept(jsonb), uvian.choose_unnamed_files(jsonb), uvian.forget_files(jsonb),
  uvian.served_files(jsonb)
  to service_role;

select uvian._close();
notify pgrst, 'reload schema';
