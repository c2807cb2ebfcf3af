-- min_code: 0.1.0
-- What a hand does to uvian.jobs in the SQL editor is normalised, not refused: set a row to queued,
-- or insert (user_id, type, input), and it runs. The lifecycle functions mark themselves and pass through.

create function uvian._before_hand() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  if new.status = 'processing' and (tg_op = 'INSERT' or old.status <> 'processing') then
    raise exception using errcode = 'PT409', message = 'claimed_by_workers_only',
      detail = 'A job becomes processing when a worker claims it; set it to queued.';
  end if;
  if tg_op = 'INSERT' and new.status = 'queued' then
    if not exists (select from uvian.job_types t where t.type = new.type and t.enabled) then
      raise exception using errcode = 'PT422', message = 'unknown_type',
        detail = format('There is no enabled job type %L in uvian.job_types.', new.type);
    end if;
    new.run := 1;
    new.attempt := 0;
  elsif tg_op = 'UPDATE' then
    if (new.id, new.user_id) <> (old.id, old.user_id) then
      raise exception using errcode = 'PT409', message = 'owner_is_fixed',
        detail = 'A job keeps its id and its user; insert another one.';
    end if;
    new.run := old.run;  -- the fence is nobody's to set
    new.attempt := old.attempt;
    new.cost := old.cost;
    new.admitted := old.admitted;
  end if;
  return new;
end $$;

create function uvian._after_hand() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  perform uvian._writing(true);
  if new.status = 'queued' and (tg_op = 'INSERT' or old.status <> 'queued') then
    perform uvian._restart(new, tg_op = 'UPDATE' and old.status <> 'completed',
                           case when tg_op = 'INSERT' then greatest(new.run_at, now()) else now() end,
                           interval '0');
    perform pg_notify('uvian_jobs', '');
  elsif tg_op = 'UPDATE' and old.status in ('queued', 'processing')
        and new.status in ('completed', 'failed', 'cancelled') then
    perform uvian._lock_places(array[new.id]);
    perform uvian._lock_payers(array[new.id]);
    perform uvian._end(array[(
      new.id, new.run, 'by_hand', null, new.status, new.attempt, 0, (new.status = 'completed')::integer,
      jsonb_build_object('output', new.output, 'result_id', new.result_id, 'error', new.error,
                         'error_message', new.error_message))::uvian._verdict]);
    perform uvian._reconsider(new.user_id, new.type, interval '0');
  elsif tg_op = 'INSERT' then
    insert into uvian.job_state (job_id) values (new.id);
  end if;
  perform uvian._writing(false);
  return null;
end $$;

create function uvian._before_delete() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  perform uvian._release(old.id, old.user_id);
  perform uvian._reconsider(old.user_id, old.type, interval '0');
  return old;
end $$;

-- Whoever waits under a limit that has changed is looked at again; of each user the first will do.
create function uvian._limit_changed() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  update uvian.job_state s set redispatch_at = now()
    from (select distinct on (j.user_id) j.id from uvian.jobs j
          where j.type = new.type and j.status = 'queued' and not j.admitted and j.run_at <= now()
          order by j.user_id, j.score) w
    where s.job_id = w.id;
  return null;
end $$;

-- Jobs whose type is gone would wait for ever: nobody could say that no worker knows it.
create function uvian._keep_used_types() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  if exists (select from uvian.jobs j where j.type = old.type and j.status in ('queued', 'processing')) then
    raise exception using errcode = 'PT409', message = 'type_in_use',
      detail = format('There are open jobs of type %L: set enabled to false instead, or end them first.', old.type);
  end if;
  return old;
end $$;

create trigger by_hand before insert or update of id, user_id, status, run, attempt, cost, admitted on uvian.jobs
  for each row when (coalesce(current_setting('uvian.writer', true), '') <> 'function') execute function uvian._before_hand();
create trigger by_hand_after after insert or update of status on uvian.jobs
  for each row when (coalesce(current_setting('uvian.writer', true), '') <> 'function') execute function uvian._after_hand();
create trigger deleted before delete on uvian.jobs
  for each row when (old.status in ('queued', 'processing')) execute function uvian._before_delete();
create trigger limit_changed after update of max_running_per_user on uvian.job_types
  for each row when (old.max_running_per_user is distinct from new.max_running_per_user)
  execute function uvian._limit_changed();
create trigger deleted before delete on uvian.job_types
  for each row execute function uvian._keep_used_types();

revoke all on function
  uvian._before_hand(), uvian._after_hand(), uvian._before_delete(), uvian._limit_changed(),
  uvian._keep_used_types()
  from public, anon, authenticated, service_role;

notify pgrst, 'reload schema';
