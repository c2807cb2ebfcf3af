-- min_code: 0.1.0
-- What a hand does to uvian.jobs in the SQL editor is normalised, not refused: set a row to queued,
-- or insert (user_id, type, input), and it runs. The lifecycle functions mark themselves and pass through.

-- Those who wait for a place of this user and type are looked at again by the next sweep.
create function uvian._reconsider(of_user uuid, of_type text) returns void
language sql
set search_path = ''
as $$
  update uvian.job_state s set redispatch_at = greatest(now(), j.run_at)
    from uvian.jobs j
    where j.user_id = of_user and j.type = of_type and j.status = 'queued' and not j.admitted
      and s.job_id = j.id
$$;

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
    new.run := 0;  -- _restart makes it 1
  elsif tg_op = 'UPDATE' then
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
    perform uvian._restart(new, tg_op = 'UPDATE' and old.status <> 'completed', interval '0');
    perform pg_notify('uvian_jobs', '');
  elsif tg_op = 'UPDATE' and old.status in ('queued', 'processing')
        and new.status in ('completed', 'failed', 'cancelled') then
    perform uvian._lock_places(array[new.id]);
    perform uvian._lock_accounts(array[new.user_id]);
    perform uvian._end(new, new.status, case when new.status = 'completed' then 1 else 0 end,
      jsonb_build_object('output', new.output, 'result_id', new.result_id, 'error', new.error,
                         'error_message', new.error_message));
    perform uvian._reconsider(new.user_id, new.type);
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
  perform uvian._settle_credits(old.id, old.user_id, 0);
  perform uvian._reconsider(old.user_id, old.type);
  return old;
end $$;

create function uvian._limit_changed() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  update uvian.job_state s set redispatch_at = greatest(now(), j.run_at)
    from uvian.jobs j
    where j.type = new.type and j.status = 'queued' and not j.admitted and s.job_id = j.id;
  return null;
end $$;

create trigger by_hand before insert or update of status, run, attempt, cost, admitted on uvian.jobs
  for each row when (coalesce(current_setting('uvian.writer', true), '') <> 'function') execute function uvian._before_hand();
create trigger by_hand_after after insert or update of status on uvian.jobs
  for each row when (coalesce(current_setting('uvian.writer', true), '') <> 'function') execute function uvian._after_hand();
create trigger deleted before delete on uvian.jobs
  for each row when (old.status in ('queued', 'processing')) execute function uvian._before_delete();
create trigger limit_changed after update of max_running_per_user on uvian.job_types
  for each row when (old.max_running_per_user is distinct from new.max_running_per_user)
  execute function uvian._limit_changed();

revoke all on function
  uvian._reconsider(uuid, text), uvian._before_hand(), uvian._after_hand(),
  uvian._before_delete(), uvian._limit_changed()
  from public, anon, authenticated;

notify pgrst, 'reload schema';
