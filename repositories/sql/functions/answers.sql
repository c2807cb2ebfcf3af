-- What the functions answer: a job as the service sees it, what dispatch needs, what an announcement needs.
--
-- The functions that move state each take and answer one jsonb, work on up to 500 jobs, may be
-- repeated after a lost reply, and ignore keys they do not know. What they write is marked by a
-- setting (`_writing`): everything else is a manual edit in the SQL editor, and normalised by the triggers
-- of manual_edits.sql. Only the outermost function sets and clears it; an error rolls it back with all else.
--
-- Lock order, everywhere: jobs by id, conversations by id, slots by (user, type), accounts by user, then
-- what is remembered of jobs (job_state), and leases. Whoever locks jobs in another order skips those that
-- are locked; a slot that is met out of order is tried, not waited for.
--
-- Plans are cached (plan_cache_mode; PL/pgSQL, since PostgreSQL 17 and older plan a function in SQL
-- anew for every call), and outlive the growth of their tables until the next analyze: what was cheap
-- on an empty queue (a scan of all that is queued, a hash join) would be a disaster on a full one. So
-- jobs are found by their ids alone, in `lateral (… offset 0)` where a list is joined, and looked at
-- afterwards; and the settings of the functions leave the planner no other way
-- (docs/decisions/0012-no-compiler-for-short-plans.md).

-- Marks what this transaction writes as a function's, until it is cleared.
create or replace function uvian._writing(by_function boolean) returns void
language plpgsql
set search_path = ''
as $$
begin
  perform set_config('uvian.writer', case when by_function then 'function' else '' end, true);
end $$;

-- Jobs by their ids alone, wherever what they are is looked at afterwards.
create or replace function uvian._jobs(of_ids uuid[]) returns setof uvian.jobs
language plpgsql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return query select * from uvian.jobs j where j.id = any (of_ids);
end $$;

-- How the service sees a job; without its input, which may be large.
create or replace function uvian._job(j uvian.jobs) returns jsonb
language plpgsql stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', j.id, 'user_id', j.user_id, 'type', j.type, 'status', j.status, 'run', j.run,
    'attempt', j.attempt, 'priority', j.priority, 'run_at', j.run_at, 'cost', j.cost::text,
    'created_at', j.created_at, 'idempotency_key', j.idempotency_key, 'parent_id', j.parent_id,
    'conversation_id', j.conversation_id);
end $$;

-- What dispatch needs.
create or replace function uvian._dispatch(j uvian.jobs) returns jsonb
language plpgsql stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', j.id, 'user_id', j.user_id, 'type', j.type, 'run', j.run, 'attempt', j.attempt,
    'priority', j.priority, 'run_at', j.run_at, 'delayed', j.run_at > now(), 'reason', uvian._reason(j));
end $$;

-- Why a job waits for another run: how its last one ended. null for the first, and after a claim was refused.
create or replace function uvian._reason(j uvian.jobs) returns jsonb
language plpgsql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  if j.run = 1 then
    return null;
  end if;
  return (select jsonb_build_object('outcome', case when r.retried_at is null then r.outcome else 'retried' end,
                                    'attempt', r.attempt, 'error', r.error)
          from uvian.job_runs r where r.job_id = j.id and r.run < j.run order by r.run desc limit 1);
end $$;

-- What a job that ends without a word of its worker says of itself.
create or replace function uvian._error(code text, message text, attempt integer, retryable boolean) returns jsonb
language sql immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'error', jsonb_build_object('code', code, 'stage', null, 'message', message,
                                'retryable', retryable, 'attempt', attempt),
    'error_message', message)
$$;

-- The terminal event of a job: what its announcement needs.
create or replace function uvian._terminal_event(j uvian.jobs) returns jsonb
language plpgsql stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', j.id, 'user_id', j.user_id, 'type', j.type, 'run', j.run, 'attempt', j.attempt,
    'status', j.status, 'output', j.output, 'result_id', j.result_id, 'error', j.error,
    'error_message', j.error_message, 'stages', j.stages, 'cost', j.cost::text,
    'conversation_id', j.conversation_id,
    'message', case when j.conversation_id is not null then uvian._answer(j.id, true) end);
end $$;

-- The stored answer of a chat as it is published; null when there is none.
create or replace function uvian._answer(of_job uuid, with_text boolean) returns jsonb
language plpgsql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return (
    select jsonb_build_object(
        'id', m.id, 'conversation_id', m.conversation_id, 'role', m.role, 'status', m.status,
        'reply_to', m.reply_to, 'length', m.length_bytes,
        'sha256', encode(sha256(convert_to(m.content, 'UTF8')), 'hex'))
      || case when with_text then jsonb_build_object(
           'text', case when m.length_bytes <= 65536 then m.content end) else '{}' end
    from uvian.messages m where m.id = uvian._answer_id(of_job));
end $$;

-- The id of the message that a chat stores, so that no run and no caller can make a second one. A UUID
-- of version 8 (RFC 9562): SHA-256 of the job's id and 'answer'. (Version 5 would need SHA-1, which
-- PostgreSQL has only in an extension.) repositories/messages.py computes the same.
create or replace function uvian._answer_id(of_job uuid) returns uuid
language plpgsql immutable
set search_path = ''
as $$
declare
  digest bytea := substr(sha256(uuid_send(of_job) || 'answer'::bytea), 1, 16);
begin
  digest := set_byte(digest, 6, get_byte(digest, 6) & 15 | 128);
  digest := set_byte(digest, 8, get_byte(digest, 8) & 63 | 128);
  return encode(digest, 'hex')::uuid;
end $$;

-- What was announced of jobs that have ended.
-- {jobs: [id]} → {terminal_events: [{…, finished_at}]}: of those that have ended, what was announced of it. For whoever
-- follows a job whose events are gone.
create or replace function uvian.terminal_events_of(request jsonb) returns jsonb
language plpgsql stable security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  wanted uuid[] := array(select t.id::uuid from jsonb_array_elements_text(request -> 'jobs') t(id) limit 500);
begin
  return jsonb_build_object('terminal_events', coalesce((
    select jsonb_agg(uvian._terminal_event(j) || jsonb_build_object('finished_at', j.finished_at))
    from uvian._jobs(wanted) j where j.status in ('completed', 'failed', 'cancelled')), '[]'));
end $$;

revoke all on function
  uvian._writing(boolean), uvian._jobs(uuid[]), uvian._job(uvian.jobs), uvian._dispatch(uvian.jobs),
  uvian._reason(uvian.jobs), uvian._error(text, text, integer, boolean), uvian._terminal_event(uvian.jobs), uvian._answer(uuid, boolean),
  uvian._answer_id(uuid), uvian.terminal_events_of(jsonb)
  from public, anon, authenticated, service_role;
grant execute on function
  uvian.terminal_events_of(jsonb)
  to service_role;

select uvian._close();
notify pgrst, 'reload schema';
