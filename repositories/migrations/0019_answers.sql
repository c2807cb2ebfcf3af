-- min_code: 0.1.0
-- The answer of a chat: stored by the settlement itself, once, whatever runs there were.

-- The id of the message that a chat stores, so that no run and no caller can make a second one. A UUID
-- of version 8 (RFC 9562): SHA-256 of the job's id and 'answer'. (Version 5 would need SHA-1, which
-- PostgreSQL has only in an extension.) repositories/messages.py computes the same.
create function uvian._answer_id(of_job uuid) returns uuid
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

-- The stored answer of a chat as it is told of; null when there is none.
create function uvian._answer(of_job uuid, with_text boolean) returns jsonb
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

create or replace function uvian._ending(j uvian.jobs) returns jsonb
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

-- {jobs: [id]} → {endings: [{…, finished_at}]}: of those that have ended, what was announced of it. For whoever
-- follows a job whose events are gone.
create function uvian.endings_of(request jsonb) returns jsonb
language plpgsql stable security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  asked uuid[] := array(select t.id::uuid from jsonb_array_elements_text(request -> 'jobs') t(id) limit 500);
begin
  return jsonb_build_object('endings', coalesce((
    select jsonb_agg(uvian._ending(j) || jsonb_build_object('finished_at', j.finished_at))
    from uvian._jobs(asked) j where j.status in ('completed', 'failed', 'cancelled')), '[]'));
end $$;

-- Whether there is something to keep of a run that ended so: its result has a text, its job a conversation.
create function uvian._is_kept(result jsonb, in_conversation uuid) returns boolean
language plpgsql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return coalesce(result -> 'message' ->> 'content', '') <> ''
    and exists (select from uvian.conversations c where c.id = in_conversation);
end $$;

-- Stores what chats that have ended say, in place of what an earlier run said; answers whose is stored.
-- The caller holds the conversations.
create function uvian._store_answers(verdicts uvian._verdict[]) returns uuid[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  speaking uuid[] := array(select v.job_id from unnest(verdicts) v where v.result ? 'message');
  stored uuid[];
begin
  if cardinality(speaking) = 0 then
    return '{}';
  end if;
  with told as (
    select j.id as job_id, j.conversation_id, v.status, v.result -> 'message' as message,
           uvian._answer_id(j.id) as id, q.id as reply_to
    from unnest(verdicts) v
    cross join lateral (select o.* from uvian.jobs o where o.id = v.job_id offset 0) j
    left join lateral (
      select o.id from uvian.messages o
      where o.id = uvian._uuid(coalesce(v.result -> 'message' ->> 'reply_to', j.input ->> 'message_id'))
        and o.conversation_id = j.conversation_id offset 0) q on true
    where v.job_id = any (speaking) and v.status in ('completed', 'cancelled')
      and uvian._is_kept(v.result, j.conversation_id)
  ), replaced as (
    update uvian.messages m
      set content = t.message ->> 'content', status = t.status, usage = nullif(t.message -> 'usage', 'null'),
          reply_to = t.reply_to
      from told t where m.id = t.id
      returning m.id
  ), inserted as (
    insert into uvian.messages (id, conversation_id, role, status, content, job_id, reply_to, usage)
      select t.id, t.conversation_id, 'assistant', t.status, t.message ->> 'content', t.job_id, t.reply_to,
             nullif(t.message -> 'usage', 'null')
      from told t
      where not exists (select from uvian.messages m where m.id = t.id)
      order by t.conversation_id
  )
  select coalesce(array_agg(t.job_id), '{}') into stored from told t;
  return stored;
end $$;

-- The end: the row, its turn, its answer, its reservation, its lease, its announcement, and what this
-- run is answered.
create or replace function uvian._end(verdicts uvian._verdict[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  answered uuid[] := uvian._store_answers(verdicts);
begin
  with v as (
    select e.*, s.reserved as held, s.reservation,
           coalesce(greatest(round((s.reserved + p.amount) * least(greatest(
             case when e.status = 'cancelled' and e.result ? 'concept' then uvian._share_of_pictures(e)
                  else e.charge end, 0), 1), 6) - p.amount, 0), 0) as charged
    from unnest(verdicts) e left join uvian.job_state s on s.job_id = e.job_id
    left join lateral (select uvian._paid_before(e.job_id, s.reservation) as amount) p on true
  ), ended as (
    update uvian.jobs j
      set status = v.status, cost = v.charged, attempt = v.attempt, finished_at = now(),
          updated_at = now(), progress = case when v.status = 'completed' then 1 else j.progress end,
          stage = null, progress_message = null, its_turn = j.conversation_id is null,
          output = nullif(v.result -> 'output', 'null'),
          result_id = case when j.conversation_id is null or v.outcome = 'by_hand'
                             then (v.result ->> 'result_id')::uuid
                           when j.id = any (answered) then uvian._answer_id(j.id) end,
          error = nullif(v.result -> 'error', 'null'), error_message = v.result ->> 'error_message',
          stages = coalesce(nullif(v.result -> 'stages', 'null'), j.stages)
      from v where j.id = v.job_id
      returning j.id, j.user_id, v.held, v.charged, v.reservation
  ), remembered as (
    update uvian.job_state s
      set redispatch_at = null, announce_at = now() + interval '5 s', reserved = 0,
          checkpoints = case when v.status = 'completed' then '{}' else s.checkpoints end
      from v where s.job_id = v.job_id
  ), let_go as (
    delete from uvian.job_leases l using v where l.job_id = v.job_id
  ), booked as (
    insert into uvian.credit_entries (user_id, job_id, reservation, kind, amount)
      select e.user_id, e.id, e.reservation, b.kind, b.amount
      from ended e
      cross join lateral (values ('charge', e.charged), ('release', e.held - e.charged)) b (kind, amount)
      where b.amount > 0
  ), paid as (
    update uvian.credit_accounts a
      set balance = a.balance + p.released, reserved = a.reserved - p.held,
          version = a.version + 1, updated_at = now()
      from (select e.user_id, sum(e.held - e.charged) as released, sum(e.held) as held
            from ended e where e.held > 0 group by e.user_id) p
      where a.user_id = p.user_id
  )
  insert into uvian.job_runs (job_id, run, worker, outcome, status, attempt, cost)
    select v.job_id, v.run, v.worker, v.outcome, v.status, v.attempt, v.charged from v
    on conflict do nothing;
  perform uvian._keep_results(verdicts);
end $$;

-- What was charged before for what is still there. A job that was cancelled keeps its pictures; run again
-- it makes the same ones, and the rest: what they have cost is not paid twice, nor held (_restart). Of a chat
-- nothing is kept of the earlier answer, and a whole new one is written.
create function uvian._paid_before(of_job uuid, in_reservation integer) returns numeric
language plpgsql stable
set search_path = ''
as $$
begin
  if in_reservation < 2 or not exists (select from uvian.concepts c where c.job_id = of_job and c.kept) then
    return 0;
  end if;
  return (select coalesce(sum(e.amount), 0) from uvian.credit_entries e
          where e.job_id = of_job and e.kind = 'charge');
end $$;

-- What a cancelled run and those before it have delivered together: an earlier picture that it did not come
-- to again stays (_put_concept).
create function uvian._share_of_pictures(v uvian._verdict) returns numeric
language plpgsql stable
set search_path = ''
as $$
declare
  made jsonb := coalesce(nullif(v.result -> 'variations', 'null'), '[]');
  earlier bigint := (
    select count(*) from uvian.concepts c join uvian.concept_variations o on o.concept_id = c.id
    where c.job_id = v.job_id and o.kept and c.image_path = v.result -> 'concept' ->> 'image_path'
      and not exists (select from jsonb_array_elements(made) m where (m ->> 'position')::integer = o.position));
begin
  return v.charge * (1 + jsonb_array_length(made) + earlier) / (1 + jsonb_array_length(made));
end $$;

-- What stays of jobs that have ended, and what goes: what is charged for is kept, in this transaction;
-- of what a run has stored otherwise nobody shall see anything.
create function uvian._keep_results(verdicts uvian._verdict[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  partial record;
  theirs uuid[];
begin
  for partial in
    select v.job_id, v.run, j.user_id, v.result from unnest(verdicts) v
    cross join lateral (select o.user_id from uvian.jobs o where o.id = v.job_id offset 0) j
    where v.status = 'cancelled' and v.result ? 'concept'
  loop
    perform uvian._put_concept(partial.job_id, partial.run, partial.user_id, case
      when exists (select from uvian.concepts c where c.user_id = partial.user_id
                   and c.id = (partial.result -> 'concept' ->> 'parent_id')::uuid) then partial.result
      else jsonb_set(partial.result, '{concept,parent_id}', 'null') end);
  end loop;
  theirs := array(select c.id from unnest(verdicts) v
                  cross join lateral (select o.id from uvian.concepts o where o.job_id = v.job_id offset 0) c);
  if cardinality(theirs) > 0 then
    with charged as (
      update uvian.concepts c set kept = true
        from unnest(verdicts) v
        where c.id = any (theirs) and c.job_id = v.job_id and c.run = v.run
          and (v.status = 'completed' or (v.status = 'cancelled' and v.result ? 'concept'))
        returning c.id
    )
    update uvian.concept_variations o set kept = true from charged c where o.concept_id = c.id and not o.kept;
    delete from uvian.concept_variations o where o.concept_id = any (theirs) and not o.kept;
    delete from uvian.concepts c where c.id = any (theirs) and not c.kept;
  end if;
  -- A job that failed may be asked for again: its picture from the model waits for that, unseen.
  update uvian.files f
    set check_at = now() + case when v.status = 'failed' then interval '1 hour' else interval '0' end
    from unnest(verdicts) v where f.job_id = v.job_id;
end $$;

-- What a stopped answer costs, as a share of the price: what was delivered of it, against a whole one. Four
-- bytes are a token, 500 tokens a whole answer; a smaller limit of the user's or the operator's makes whole
-- answers smaller, a larger one changes nothing. A tenth at least: the question was read. One place, so
-- that every worker's answers cost alike; docs/decisions has the reasons.
create function uvian._share_of_answer(content text, user_limit jsonb, operator_limit integer) returns numeric
language sql immutable
set search_path = ''
as $$
  select round(greatest(0.1, least(1, ceil(octet_length(content) / 4.0) / greatest(1, least(
    500, case when jsonb_typeof(user_limit) = 'number' then user_limit::numeric else 500 end,
    coalesce(operator_limit, 500))))), 6)
$$;

-- A chat that was cancelled pays for what is kept of its answer, and nothing when that is nothing.
create or replace function uvian._verdicts(items jsonb, by_worker text) returns setof uvian._verdict
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return query
  with told as (
    select distinct on (j.id)
           j.id as job_id, j.run, j.conversation_id, e as item, e ->> 'outcome' as outcome, l.cancel_requested,
           j.attempt, t.max_attempts, t.max_tokens, j.input -> 'max_tokens' as user_limit, s.refusals,
           (e ->> 'outcome' in ('failed', 'retry') and coalesce((e ->> 'burn')::boolean, true))::integer as burns
    from jsonb_array_elements(items) with ordinality x (e, n)
    cross join lateral (select o.* from uvian.jobs o where o.id = (e ->> 'id')::uuid offset 0) j
    cross join lateral (select o.* from uvian.job_leases o where o.job_id = j.id offset 0) l
    cross join lateral (select o.refusals from uvian.job_state o where o.job_id = j.id offset 0) s
    left join uvian.job_types t on t.type = j.type
    where j.status = 'processing' and j.run = (e ->> 'run')::bigint
      and l.run = j.run and l.worker = by_worker
    order by j.id, n
  ), decided as (
    select t.*, case
        when t.outcome in ('completed', 'failed', 'cancelled') then t.outcome
        when t.cancel_requested then 'cancelled'
        when t.burns = 1 and t.attempt + 1 >= coalesce(t.max_attempts, 1) then 'failed'
        else 'queued' end as status
    from told t
  )
  select d.job_id, d.run, d.outcome, by_worker, d.status,
         d.attempt + case when d.status = 'cancelled' then 0 else d.burns end,
         case d.outcome
           when 'retry' then least(greatest(coalesce((d.item ->> 'delay')::double precision, 1), 0), 604800)
           when 'not_mine' then least(30, power(2, d.refusals))
           else 0 end,
         case when d.outcome = 'retry' then 0
              when d.status = 'cancelled' and d.conversation_id is not null then
                case when not uvian._is_kept(d.item, d.conversation_id) then 0
                     else coalesce((d.item ->> 'charge')::numeric, uvian._share_of_answer(
                       d.item -> 'message' ->> 'content', d.user_limit, d.max_tokens)) end
              else coalesce((d.item ->> 'charge')::numeric, (d.outcome = 'completed')::integer) end,
         case when d.status = 'cancelled' then d.item - 'error' - 'error_message' else d.item end
  from decided d;
end $$;

-- {worker, jobs: [{id, run, outcome, output?, result_id?, error?, error_message?, stages?,
--   message? {content, usage?, reply_to?}, delay? (seconds), burn? (an attempt; default true),
--   charge? (fraction of the reservation; of a stopped chat by default what was delivered of it),
--   concept?, variations? (cancelled: as in store_concept, what is kept and charged for)}]}
-- → {jobs: [{id, run, settled, status, attempt, cost, next_run, message? (a chat's, as stored)}],
--    dispatch: […], accounts: […]}
create or replace function uvian.settle_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off
as $$
declare
  by_worker text := request ->> 'worker';
  items jsonb := request -> 'jobs';
  ids uuid[] := array(select (e ->> 'id')::uuid from jsonb_array_elements(items) e);
  paying uuid[];
  answers jsonb;
  dispatch jsonb;
begin
  if exists (select from jsonb_array_elements(items) e where coalesce(e ->> 'outcome', '') not in
             ('completed', 'failed', 'cancelled', 'retry', 'interrupted', 'not_mine')) then
    raise exception using errcode = 'PT422', message = 'unknown_outcome',
      detail = 'completed, failed, cancelled, retry, interrupted or not_mine';
  end if;
  perform uvian._writing(true);
  perform 1 from uvian.jobs j where j.id = any (ids) order by j.id for no key update;
  perform uvian._lock_places(ids);
  paying := uvian._lock_payers(ids);
  perform uvian._carry_out(array(select v from uvian._verdicts(items, by_worker) v));

  select jsonb_agg(
           case when r.job_id is null then jsonb_build_object('id', a.id, 'run', a.run, 'settled', false)
                else jsonb_build_object(
                  'id', a.id, 'run', a.run, 'settled', true, 'status', r.status, 'attempt', r.attempt,
                  'cost', r.cost::text, 'next_run', a.run + (r.status = 'queued')::integer)
                || case when r.status <> 'queued' and j.conversation_id is not null
                        then jsonb_build_object('message', uvian._answer(j.id, false)) else '{}' end end
           order by a.n),
         -- What was not mine goes through the sweep, when its pause is over.
         jsonb_agg(uvian._dispatch(j)) filter (
           where r.status = 'queued' and r.outcome <> 'not_mine'
             and j.run = r.run + 1 and j.status = 'queued' and j.admitted)
    into answers, dispatch
    from (select n, (e ->> 'id')::uuid as id, (e ->> 'run')::bigint as run
          from jsonb_array_elements(items) with ordinality x (e, n)) a
    left join lateral (select o.* from uvian.job_runs o where o.job_id = a.id and o.run = a.run offset 0) r
      on r.worker = by_worker
    left join lateral (select o.* from uvian.jobs o where o.id = r.job_id offset 0) j on true;

  dispatch := coalesce(dispatch, '[]') || uvian._next(ids);
  perform uvian._writing(false);
  return jsonb_build_object('jobs', coalesce(answers, '[]'), 'dispatch', dispatch,
                            'accounts', uvian._accounts(paying));
end $$;

revoke all on function
  uvian._answer_id(uuid), uvian._answer(uuid, boolean), uvian._is_kept(jsonb, uuid),
  uvian._store_answers(uvian._verdict[]), uvian.endings_of(jsonb), uvian._paid_before(uuid, integer),
  uvian._share_of_pictures(uvian._verdict), uvian._keep_results(uvian._verdict[]), uvian._share_of_answer(text, jsonb, integer)
  from public, anon, authenticated, service_role;
grant execute on function uvian.endings_of(jsonb) to service_role;

select uvian._close();
notify pgrst, 'reload schema';
