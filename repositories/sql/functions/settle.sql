-- How a run ends: outcome, result, answer and credits in one transaction, the same answer for ever.

-- Settles runs: outcome, result and credits; the same call twice is the same answer.
-- {worker, jobs: [{id, run, outcome, output?, result_id?, error?, error_message?, stages?,
--   message? {content, usage?, reply_to?}, delay? (seconds), burn? (an attempt; default true),
--   charge? (fraction of the reservation; of a stopped chat by default what was delivered of it),
--   concept?, variations? (cancelled: as in store_concept, what is kept and charged for)}]}
-- → {jobs: [{id, run, settled, status, attempt, cost, next_run,
--    next (queued: what dispatch needs of the next run), message? (a chat's, as stored)}],
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
  perform uvian._lock_slots(ids);
  paying := uvian._lock_payers(ids);
  perform uvian._carry_out(array(select v from uvian._verdicts(items, by_worker) v));

  select jsonb_agg(
           case when r.job_id is null then jsonb_build_object('id', a.id, 'run', a.run, 'settled', false)
                else jsonb_build_object(
                  'id', a.id, 'run', a.run, 'settled', true, 'status', r.status, 'attempt', r.attempt,
                  'cost', r.cost::text, 'next_run', a.run + (r.status = 'queued')::integer,
                  'next', case when r.status = 'queued' and j.run = r.run + 1 then uvian._dispatch(j) end)
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
      on r.worker = by_worker and r.reported
    left join lateral (select o.* from uvian.jobs o where o.id = r.job_id offset 0) j on true;

  dispatch := coalesce(dispatch, '[]') || uvian._next(ids);
  perform uvian._writing(false);
  return jsonb_build_object('jobs', coalesce(answers, '[]'), 'dispatch', dispatch,
                            'accounts', uvian._accounts(paying));
end $$;

-- Decides what each reported outcome makes of its job. Only the run that holds the lease counts, and only its
-- first outcome. A cancelled chat is charged for the part of its answer that is stored; for no answer, nothing.
create or replace function uvian._verdicts(items jsonb, by_worker text) returns setof uvian._verdict
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return query
  with reported as (
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
    from reported t
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

-- Carries out verdicts: ends jobs, or queues them again.
create or replace function uvian._carry_out(verdicts uvian._verdict[]) returns void
language plpgsql
set search_path = ''
as $$
declare
  endings uvian._verdict[] := array(select v from unnest(verdicts) v where v.status <> 'queued');
  again uvian._verdict[] := array(select v from unnest(verdicts) v where v.status = 'queued');
begin
  if cardinality(endings) > 0 then
    perform uvian._end(endings);
  end if;
  if cardinality(again) > 0 then
    perform uvian._requeue(again);
  end if;
end $$;

-- Ends jobs: the row, its turn, its answer, its reservation, its lease, its announcement, and the run's row in the
-- history.
create or replace function uvian._end(verdicts uvian._verdict[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  answered uuid[] := uvian._store_answers(verdicts);
begin
  with v as (
    select e.*, s.reserved as held, s.reservation, was.queued_at, was.run_at, was.started_at,
           coalesce(e.worker, l.worker) as run_by,
           coalesce(nullif(e.result -> 'stages', 'null'), was.stages, '[]') as all_stages,
           coalesce(greatest(round((s.reserved + p.amount) * least(greatest(
             case when e.status = 'cancelled' and e.result ? 'concept' then uvian._share_of_pictures(e)
                  else e.charge end, 0), 1), 6) - p.amount, 0), 0) as charged
    from unnest(verdicts) e left join uvian.job_state s on s.job_id = e.job_id
    left join lateral (select o.* from uvian.jobs o where o.id = e.job_id offset 0) was on true
    left join lateral (select o.worker from uvian.job_leases o where o.job_id = e.job_id offset 0) l on true
    left join lateral (select uvian._paid_before(e.job_id, s.reservation) as amount) p on true
  ), ended as (
    update uvian.jobs j
      set status = v.status, cost = v.charged, attempt = v.attempt, finished_at = now(),
          updated_at = now(), progress = case when v.status = 'completed' then 1 else j.progress end,
          stage = null, progress_message = null, its_turn = j.conversation_id is null,
          output = nullif(v.result -> 'output', 'null'),
          result_id = case when j.conversation_id is null or v.outcome = 'manual_edit'
                             then (v.result ->> 'result_id')::uuid
                           when j.id = any (answered) then uvian._answer_id(j.id) end,
          error = nullif(v.result -> 'error', 'null'), error_message = v.result ->> 'error_message',
          stages = v.all_stages
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
  insert into uvian.job_runs (job_id, run, queued_at, run_at, claimed_at, worker, reported, outcome, status,
                              attempt, cost, error, stages)
    select v.job_id, v.run, v.queued_at, v.run_at, v.started_at, v.run_by, v.worker is not null, v.outcome, v.status,
           v.attempt, v.charged, nullif(v.result -> 'error', 'null'), v.all_stages from v
    on conflict do nothing;
  perform uvian._keep_results(verdicts);
end $$;

-- Back to the queue as a new run. A job that will not be due at once gives its slot to the next;
-- one that the worker could not run keeps it, and its age: no_executor counts from there.
create or replace function uvian._requeue(verdicts uvian._verdict[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  with v as (
    select e.*, e.outcome = 'not_mine' as not_mine, e.outcome = 'worker_lost' as lost, t.max_attempts,
           j.queued_at, j.run_at, j.started_at, j.cost, coalesce(e.worker, l.worker) as run_by,
           coalesce(nullif(e.result -> 'stages', 'null'), j.stages) as all_stages,
           make_interval(secs => e.delay) as pause,
           e.delay <= 1 or e.outcome = 'not_mine' or t.max_running_per_user is null as keeps
    from unnest(verdicts) e join uvian.jobs j on j.id = e.job_id
    left join lateral (select o.worker from uvian.job_leases o where o.job_id = e.job_id offset 0) l on true
    left join uvian.job_types t on t.type = j.type
  ), moved as (
    update uvian.jobs j
      set status = 'queued', run = j.run + 1, attempt = v.attempt, admitted = v.keeps,
          run_at = case when v.not_mine then j.run_at else now() + v.pause end, stage = null,
          progress = 0, progress_message = null, started_at = null, queued_at = now(), updated_at = now()
      from v where j.id = v.job_id
  ), remembered as (
    update uvian.job_state s
      set dispatches = 0, dispatched_at = null,
          -- Whoever settled or swept dispatches; what was not mine, the sweep when its pause is over.
          redispatch_at = now() + case when v.not_mine or not v.keeps then v.pause
                                       else interval '5 s' end,
          refusals = case when v.not_mine then least(s.refusals + 1, 6) else 0 end,
          crashes = s.crashes + v.lost::integer,
          isolated = s.isolated or (v.lost and s.crashes + 1 >= greatest(v.max_attempts, 2))
      from v where s.job_id = v.job_id
  ), let_go as (
    delete from uvian.job_leases l using v where l.job_id = v.job_id
  )
  insert into uvian.job_runs (job_id, run, queued_at, run_at, claimed_at, worker, reported, outcome, status,
                              attempt, cost, error, stages)
    select v.job_id, v.run, v.queued_at, v.run_at, v.started_at, v.run_by, v.worker is not null, v.outcome, 'queued',
           v.attempt, v.cost, nullif(v.result -> 'error', 'null'), v.all_stages
    from v
    on conflict do nothing;
end $$;

-- Stores the answers of chats that have ended, in place of an earlier run's; returns the jobs whose answers were
-- stored. The caller holds the conversations.
create or replace function uvian._store_answers(verdicts uvian._verdict[]) returns uuid[]
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
  with reported as (
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
      from reported t where m.id = t.id
      returning m.id
  ), inserted as (
    insert into uvian.messages (id, conversation_id, role, status, content, job_id, reply_to, usage)
      select t.id, t.conversation_id, 'assistant', t.status, t.message ->> 'content', t.job_id, t.reply_to,
             nullif(t.message -> 'usage', 'null')
      from reported t
      where not exists (select from uvian.messages m where m.id = t.id)
      order by t.conversation_id
  )
  select coalesce(array_agg(t.job_id), '{}') into stored from reported t;
  return stored;
end $$;

-- Whether a run left an answer to store: its result has a text, and its job a conversation.
create or replace function uvian._is_kept(result jsonb, in_conversation uuid) returns boolean
language plpgsql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return coalesce(result -> 'message' ->> 'content', '') <> ''
    and exists (select from uvian.conversations c where c.id = in_conversation);
end $$;

-- Keeps the concepts that jobs were charged for, and removes the others that their runs stored: all in this
-- transaction, so that nobody sees what nobody was charged for.
create or replace function uvian._keep_results(verdicts uvian._verdict[]) returns void
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
  -- A job that failed may be requested again: its picture from the model waits for that, unseen.
  update uvian.files f
    set check_at = now() + case when v.status = 'failed' then interval '1 hour' else interval '0' end
    from unnest(verdicts) v where f.job_id = v.job_id;
end $$;

revoke all on function
  uvian.settle_jobs(jsonb), uvian._verdicts(jsonb, text), uvian._carry_out(uvian._verdict[]),
  uvian._end(uvian._verdict[]), uvian._requeue(uvian._verdict[]), uvian._store_answers(uvian._verdict[]),
  uvian._is_kept(jsonb, uuid), uvian._keep_results(uvian._verdict[])
  from public, anon, authenticated, service_role;
grant execute on function
  uvian.settle_jobs(jsonb)
  to service_role;

select uvian._close();
notify pgrst, 'reload schema';
