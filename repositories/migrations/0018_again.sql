-- min_code: 0.1.0
-- Chats queued again, submitted from a browser, and made or changed by hand: all get in line.

-- A chat that had ended gets in line behind those who wait; one that had its turn keeps it.
create or replace function uvian._restart(j uvian.jobs, keeps_checkpoints boolean, starts timestamptz,
                                          redispatch_in interval) returns uvian.jobs
language plpgsql
set search_path = ''
as $$
declare
  price numeric := uvian.calculate_cost(j.type, j.input);
  limited boolean := exists (select from uvian.job_types t
                             where t.type = j.type and t.max_running_per_user is not null);
  held numeric;
  is_new boolean;
begin
  perform uvian._lock_places(array[j.id]);
  perform uvian._lock_accounts(array[j.user_id]);
  insert into uvian.job_state (job_id) values (j.id) on conflict do nothing;
  is_new := found;  -- inserted by hand
  select s.reserved into held from uvian.job_state s where s.job_id = j.id;
  update uvian.jobs w
    set status = 'queued', run = w.run + (not is_new)::integer, attempt = 0,
        admitted = not limited and w.its_turn,
        turn = case when w.its_turn then w.turn else uvian._last_turn(w.conversation_id) + 1 end,
        run_at = starts,
        output = null, result_id = null, error = null, error_message = null, stage = null,
        stages = '[]', progress = 0, progress_message = null, started_at = null, finished_at = null,
        cost = case when held > 0 then held else price end, updated_at = now()
    where w.id = j.id returning * into j;
  update uvian.job_state s
    set redispatch_at = case when j.admitted then now() + redispatch_in
                             when starts > now() then starts end,
        dispatches = 0, dispatched_at = null, announce_at = null, crashes = 0, isolated = false,
        refusals = 0, checkpoints = case when keeps_checkpoints then s.checkpoints else '{}' end
    where s.job_id = j.id;
  delete from uvian.job_leases l where l.job_id = j.id;
  if held = 0 and not uvian._reserve(j.id, j.user_id, price) then
    raise exception using errcode = 'PT402', message = 'insufficient_credits',
      detail = format('The job costs %s credits; the balance is %s.', price,
                      uvian._account(j.user_id) ->> 'balance');
  end if;
  if not j.admitted then
    perform uvian._let_in(array[j.id], redispatch_in);
    select * into j from uvian.jobs w where w.id = j.id;
  end if;
  return j;
end $$;

-- By which door the caller comes: see _against. The service comes by none, and may say by which its own
-- caller has come; a user cannot choose.
create function uvian._door(said text) returns text
language plpgsql stable
set search_path = ''
as $$
begin
  if uvian._is_service() then
    return said;
  end if;
  return case when coalesce((auth.jwt() ->> 'is_anonymous')::boolean, false) then 'anonymous' else 'browser' end;
end $$;

-- Raises a refusal, if it is one: {code, …}, as create_jobs answers it; what is more than a sentence as JSON.
create function uvian._raise(refusal jsonb) returns void
language plpgsql immutable
set search_path = ''
as $$
declare
  code text := refusal ->> 'code';
begin
  if code is not null then
    raise exception using
      errcode = case code when 'insufficient_credits' then 'PT402' when 'type_not_open' then 'PT403'
                          when 'not_found' then 'PT404' when 'idempotency_conflict' then 'PT409'
                          when 'input_too_large' then 'PT413' when 'too_many_queued' then 'PT429' else 'PT422' end,
      message = code, detail = case when refusal - 'code' - 'message' = '{}' and refusal ? 'message'
                                    then refusal ->> 'message' else refusal::text end;
  end if;
end $$;

-- Raises what is against such a job, if anything is.
create function uvian._require_allowed(of_type text, input jsonb, door text) returns void
language plpgsql stable
set search_path = ''
as $$
declare
  refusal jsonb := uvian._against(of_type, input, door);
begin
  perform uvian._raise(case refusal ->> 'code'
    when 'unknown_type' then jsonb_build_object('message', format('There is no job type %L in uvian.job_types.', of_type))
    when 'type_disabled' then jsonb_build_object('message', format('Jobs of type %L are switched off.', of_type))
    else '{}' end || refusal);
end $$;

-- What would keep a user from creating this job keeps it from being retried.
create function uvian._require_retryable(j uvian.jobs, expected_run bigint, door text) returns void
language plpgsql
set search_path = ''
as $$
declare
  most integer := (select t.max_queued_per_user from uvian.job_types t where t.type = j.type);
begin
  if j.run <> expected_run or j.status not in ('failed', 'cancelled') then
    raise exception using errcode = 'PT409', message = 'not_retryable',
      detail = format('The job is %s (run %s); only failed and cancelled jobs are retried.', j.status, j.run);
  end if;
  perform uvian._require_allowed(j.type, j.input, door);
  perform uvian._lock_places(array[j.id]);
  if j.conversation_id is not null and not uvian._may_speak(j.type, j.conversation_id, j.user_id) then
    raise exception using errcode = 'PT404', message = 'not_found', detail = 'There is no such conversation.';
  end if;
  if most is null then
    return;
  end if;
  if most <= (select count(*) from uvian.jobs q
              where q.user_id = j.user_id and q.type = j.type and q.status = 'queued') then
    raise exception using errcode = 'PT429', message = 'too_many_queued',
      detail = format('At most %s jobs of type %L wait at a time.', most, j.type);
  end if;
end $$;

-- ─── from the browser ────────────────────────────────────────────────────────────────────────

-- What create_jobs answered for one item; a refusal is raised.
create function uvian._created(answer jsonb) returns jsonb
language plpgsql immutable
set search_path = ''
as $$
begin
  perform uvian._raise(answer -> 'jobs' -> 0);
  return answer -> 'jobs' -> 0;
end $$;

create or replace function uvian.submit_job(type text, input jsonb, idempotency_key text default null,
                                            max_cost numeric default null) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  caller uuid := auth.uid();
  answer jsonb;
  created jsonb;
begin
  if caller is null then
    raise exception using errcode = 'PT401', message = 'unauthorized', detail = 'Sign in first.';
  end if;
  perform uvian._writing(true);
  answer := uvian._create_jobs(jsonb_build_array(jsonb_build_object(
    'user_id', caller, 'type', submit_job.type, 'input', submit_job.input,
    'idempotency_key', submit_job.idempotency_key, 'max_cost', submit_job.max_cost,
    'door', uvian._door(null))), interval '0');
  perform uvian._writing(false);
  created := uvian._created(answer);
  perform pg_notify('uvian_jobs', '');
  return created - 'dispatch' - 'delayed' || jsonb_build_object('accounts', answer -> 'accounts');
end $$;

-- ─── by hand ─────────────────────────────────────────────────────────────────────────────────

create or replace function uvian._before_hand() returns trigger
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

create or replace function uvian._after_hand() returns trigger
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
    perform uvian._reconsider_turn(new.conversation_id, interval '0');
  elsif tg_op = 'INSERT' then
    insert into uvian.job_state (job_id) values (new.id);
  end if;
  perform uvian._writing(false);
  return null;
end $$;

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

drop trigger by_hand on uvian.jobs;
create trigger by_hand
  before insert or update of id, user_id, type, input, status, run, attempt, cost, admitted,
                             conversation_id, turn, its_turn on uvian.jobs
  for each row when (coalesce(current_setting('uvian.writer', true), '') <> 'function') execute function uvian._before_hand();

revoke all on function
  uvian._door(text), uvian._raise(jsonb), uvian._require_allowed(text, jsonb, text),
  uvian._require_retryable(uvian.jobs, bigint, text), uvian._created(jsonb)
  from public, anon, authenticated, service_role;

select uvian._close();
notify pgrst, 'reload schema';
