-- What somebody does to uvian.jobs in the SQL editor is normalised, not refused: set a row to queued, or
-- insert (user_id, type, input), and it runs; a chat gets in line. The lifecycle functions mark themselves
-- (`_writing`) and pass through.

-- Refuses what only workers do, and keeps what nobody may set by a manual edit.
create or replace function uvian._before_manual_edit() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  if new.status = 'processing' and (tg_op = 'INSERT' or old.status <> 'processing') then
    raise exception using errcode = 'PT409', message = 'claimed_by_workers_only',
      detail = 'A job becomes processing when a worker claims it; set it to queued.';
  end if;
  if tg_op = 'INSERT' then
    new.conversation_id := uvian._conversation_of(new.type, new.input);
    new.its_turn := new.conversation_id is null;  -- a chat gets in line
    if new.status = 'queued' then
      new.run := 1;
      new.attempt := 0;
      new.admitted := new.its_turn;
    end if;
  else
    if (new.id, new.user_id) <> (old.id, old.user_id)
       or uvian._conversation_of(new.type, new.input) is distinct from uvian._conversation_of(old.type, old.input) then
      raise exception using errcode = 'PT409', message = 'owner_is_fixed',
        detail = 'A job keeps its id, its user and its conversation; insert another one.';
    end if;
    new.run := old.run;  -- the fence is nobody's to set
    new.attempt := old.attempt;
    new.cost := old.cost;
    new.admitted := old.admitted;
    new.conversation_id := old.conversation_id;
    new.turn := old.turn;
    new.its_turn := old.its_turn;
  end if;
  if new.status = 'queued' and (tg_op = 'INSERT' or old.status in ('completed', 'failed', 'cancelled')) then
    perform uvian._require_allowed(new.type, new.input, null);
    if not uvian._may_speak(new.type, new.conversation_id, new.user_id) then
      raise exception using errcode = 'PT404', message = 'not_found',
        detail = 'There is no such conversation, or the user takes no part in it.';
    end if;
  end if;
  return new;
end $$;

-- Does what a manual edit means: queue the job, or end it.
create or replace function uvian._after_manual_edit() returns trigger
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
    perform uvian._lock_slots(array[new.id]);
    perform uvian._lock_payers(array[new.id]);
    perform uvian._end(array[(
      new.id, new.run, 'manual_edit', null, new.status, new.attempt, 0, (new.status = 'completed')::integer,
      jsonb_build_object('output', new.output, 'result_id', new.result_id, 'error', new.error,
                         'error_message', new.error_message))::uvian._verdict]);
    perform uvian._reconsider(new.user_id, new.type, interval '0');
    perform uvian._reconsider_turn(new.conversation_id, interval '0');
  elsif tg_op = 'INSERT' then
    insert into uvian.job_state (job_id) values (new.id);
  end if;
  perform uvian._writing(false);
  return null;
end $$;

-- Gives back what a deleted job holds, and lets in who waited for it.
create or replace function uvian._before_delete() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  perform uvian._release(old.id, old.user_id);
  update uvian.files f set check_at = now() where f.job_id = old.id;
  perform uvian._reconsider(old.user_id, old.type, interval '0');
  if old.its_turn then
    perform uvian._reconsider_turn(old.conversation_id, interval '0');
  end if;
  return old;
end $$;

revoke all on function
  uvian._before_manual_edit(), uvian._after_manual_edit(), uvian._before_delete()
  from public, anon, authenticated, service_role;

select uvian._close();
notify pgrst, 'reload schema';
