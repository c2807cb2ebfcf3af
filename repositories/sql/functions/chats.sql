-- Chats: their turns, the messages that they answer, and how an answer is stopped.
--
-- One chat of a conversation at a time: the others wait for their turn, in the order in which they came.
-- A chat has its turn (`its_turn`) from when it may be dispatched to its end, also while it is queued
-- again; a unique index keeps a second from having it. Whoever waits has neither turn nor slot. The
-- turn comes first, the slot under max_running_per_user after it. The conversation's row is the lock of
-- its turns: who holds it may add a chat and give the turn.

-- A member's message and the chat that answers it. `on_busy` says what becomes of chats of this
-- conversation that are open: enqueue (it waits behind them), reject, or interrupt (they are cancelled,
-- it is next). Posts at the same moment are one after the other: the conversation's row is their lock.
-- → {message, job, created, dispatch, cancel: [{id, run}], terminal_events, accounts}, for a user {message, job,
--    created, accounts (their own)}: the sweep does the rest.
create or replace function uvian.post_message(conversation_id uuid, content text, on_busy text default 'enqueue',
                                   options jsonb default '{}', idempotency_key text default null,
                                   max_cost numeric default null, user_id uuid default null,
                                   door text default null) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  is_service boolean := uvian._is_service();
  caller uuid := uvian._caller(post_message.user_id);
  input jsonb;
  chats uuid[] := '{}';
  payers uuid[];
  answer jsonb;
begin
  if caller is null then
    raise exception using errcode = 'PT404', message = 'unknown_user', detail = 'Say whose message it is.';
  end if;
  perform uvian._check_post(post_message.content, post_message.on_busy, post_message.options);
  perform uvian._require_member(post_message.conversation_id, caller, false);
  if post_message.on_busy = 'interrupt' then
    chats := uvian._hold_open_chats(post_message.conversation_id);
  end if;
  payers := uvian._hold_chats(post_message.conversation_id, chats, caller);
  perform uvian._require_member(post_message.conversation_id, caller, false);  -- again: it may have changed before the locks

  input := post_message.options || jsonb_build_object('conversation_id', post_message.conversation_id);
  answer := uvian._posted_before(caller, post_message.idempotency_key, input, post_message.content);
  if answer is null then
    if post_message.on_busy = 'reject' and uvian._last_turn(post_message.conversation_id) > 0 then
      raise exception using errcode = 'PT409', message = 'conversation_busy',
        detail = 'A message of this conversation is being answered.';
    end if;
    perform uvian._writing(true);
    answer := uvian._cancel_chats(chats)
      || uvian._post(caller, input, post_message.content, post_message.idempotency_key, post_message.max_cost,
                     uvian._door(post_message.door),
                     case when is_service then interval '5 s' else interval '0' end);
    answer := answer || jsonb_build_object(
      'dispatch', (answer -> 'dispatch') || uvian._next(chats),
      'accounts', uvian._accounts(payers || case when (answer -> 'job' ->> 'cost')::numeric > 0 then caller end));
    perform uvian._writing(false);
  end if;
  if is_service then
    return answer;
  end if;
  perform pg_notify('uvian_jobs', '');
  return jsonb_build_object(
    'message', answer -> 'message', 'job', answer -> 'job', 'created', answer -> 'created',
    'accounts', uvian._accounts(array[caller]));
end $$;

-- Refuses a message that is too long, empty, or has an option that does not exist.
create or replace function uvian._check_post(content text, on_busy text, options jsonb) returns void
language plpgsql immutable
set search_path = ''
as $$
begin
  if octet_length(content) > 65536 then
    raise exception using errcode = 'PT413', message = 'message_too_large',
      detail = 'A message has at most 64 kB.';
  end if;
  if coalesce(content, '') !~ '\S' or jsonb_typeof(options) is distinct from 'object'
     or on_busy is null or on_busy not in ('enqueue', 'reject', 'interrupt') then
    raise exception using errcode = 'PT422', message = 'invalid_message',
      detail = 'A message has a text; options are an object; on_busy is enqueue, reject or interrupt.';
  end if;
end $$;

-- What this user's key has made, when it is the same post; another request is refused. Null: nothing yet.
create or replace function uvian._posted_before(by_user uuid, key text, input jsonb, content text) returns jsonb
language plpgsql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  j uvian.jobs;
  m uvian.messages;
begin
  select * into j from uvian.jobs x where x.user_id = by_user and x.idempotency_key = key;
  if j.id is null then
    return null;
  end if;
  select * into m from uvian.messages x where x.id = uvian._uuid(j.input ->> 'message_id');
  if j.type <> 'chat' or j.input - 'message_id' <> input or m.content is distinct from content then
    raise exception using errcode = 'PT409', message = 'idempotency_conflict',
      detail = 'The key was used for another request, or its message has been changed since.';
  end if;
  return jsonb_build_object('message', to_jsonb(m), 'job', uvian._job(j), 'created', false,
                            'dispatch', '[]'::jsonb, 'cancel', '[]'::jsonb, 'terminal_events', '[]'::jsonb,
                            'accounts', '[]'::jsonb);
end $$;

-- The chat, then the message that it answers: what keeps the one out keeps both out.
create or replace function uvian._post(by_user uuid, input jsonb, content text, key text, max_cost numeric, door text,
                            redispatch_in interval) returns jsonb
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  question uuid := gen_random_uuid();
  created jsonb := uvian._created(uvian._create_jobs(jsonb_build_array(jsonb_build_object(
    'user_id', by_user, 'type', 'chat', 'input', input || jsonb_build_object('message_id', question),
    'idempotency_key', key, 'max_cost', max_cost, 'door', door)), redispatch_in));
  m uvian.messages;
begin
  insert into uvian.messages (id, conversation_id, user_id, role, content, job_id)
    values (question, (input ->> 'conversation_id')::uuid, by_user, 'user', content,
            (created -> 'job' ->> 'id')::uuid)
    returning * into m;
  return jsonb_build_object(
    'message', to_jsonb(m), 'job', created -> 'job', 'created', true,
    'dispatch', (select coalesce(jsonb_agg(uvian._dispatch(j)), '[]')
                 from uvian._jobs(array[m.job_id]) j where j.admitted));
end $$;

-- Stop: the answer that is being written, or about to be, in a conversation. Who waits behind it is next. By
-- whoever takes part. What it has written so far is kept, as with every cancelled chat. With `job_id`
-- only that chat is stopped, and one that was stopped before is answered as stopped: requested twice (a lost
-- reply, a second press), or a moment too late, it must not stop the next one. Without it, whichever has
-- the turn now.
-- → {stopped: [job id], cancel: [{id, run}], terminal_events, dispatch, accounts}, for a user {stopped}: the
--   renewal of its lease cancels the run, the sweep does the rest.
create or replace function uvian.stop_answer(conversation_id uuid, user_id uuid default null, job_id uuid default null)
returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  caller uuid := uvian._caller(stop_answer.user_id);
  chats uuid[];
  before uuid[];
  payers uuid[];
  answer jsonb;
begin
  perform uvian._require_member(stop_answer.conversation_id, caller, false);
  chats := uvian._hold_open_chats(stop_answer.conversation_id);
  payers := uvian._hold_chats(stop_answer.conversation_id, chats, null);
  perform uvian._require_member(stop_answer.conversation_id, caller, false);  -- again: it may have changed before the locks
  chats := array(select j.id from uvian._jobs(chats) j
                 where j.its_turn and (stop_answer.job_id is null or j.id = stop_answer.job_id));
  before := array(select j.id from uvian._jobs(array[stop_answer.job_id]) j
                  where j.conversation_id = stop_answer.conversation_id and j.status = 'cancelled');
  perform uvian._writing(true);
  answer := uvian._cancel_chats(chats) || jsonb_build_object('stopped', to_jsonb(chats || before));
  answer := answer || jsonb_build_object('dispatch', uvian._next(chats), 'accounts', uvian._accounts(payers));
  perform uvian._writing(false);
  return case when uvian._is_service() then answer else jsonb_build_object('stopped', answer -> 'stopped') end;
end $$;

-- Cancels chats that wait, and requests the workers of those that run to stop. The caller holds the rows of the
-- jobs, their conversation, slots and accounts.
-- → {cancel: [{id, run}], terminal_events: […]}: whose workers receive it, and what is to be announced.
create or replace function uvian._cancel_chats(chats uuid[]) returns jsonb
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  waiting uuid[] := array(select j.id from uvian._jobs(chats) j where j.status = 'queued');
begin
  if cardinality(waiting) > 0 then
    perform uvian._end(array(
      select (j.id, j.run, 'cancelled', null, 'cancelled', j.attempt, 0, 0, '{}')::uvian._verdict
      from uvian._jobs(waiting) j));
  end if;
  update uvian.job_leases l set cancel_requested = true where l.job_id = any (chats);
  return jsonb_build_object(
    'cancel', coalesce((select jsonb_agg(jsonb_build_object('id', j.id, 'run', j.run))
                        from uvian._jobs(chats) j where j.status = 'processing'), '[]'),
    'terminal_events', coalesce((select jsonb_agg(uvian._terminal_event(j)) from uvian._jobs(waiting) j), '[]'));
end $$;

-- Locks everything that cancelling chats, and adding one for a user, needs: slots and accounts of all of them at
-- once. Returns the users whose accounts may change.
create or replace function uvian._hold_chats(in_conversation uuid, chats uuid[], newcomer uuid) returns uuid[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  users uuid[] := array(select j.user_id from uvian._jobs(chats) j) || newcomer;
  types text[] := array(select j.type from uvian._jobs(chats) j) || 'chat'::text;
  payers uuid[] := array(
    select distinct j.user_id from uvian._jobs(chats) j
    cross join lateral (select o.reserved from uvian.job_state o where o.job_id = j.id offset 0) s
    where s.reserved > 0);
begin
  perform uvian._hold_slots(array[in_conversation], users, types);
  perform uvian._lock_accounts(payers || newcomer);
  return payers;
end $$;

-- Holds the open chats of a conversation (of one user's, if one is named), then the conversation: none
-- is added any more, none was missed. Who posts at the same moment is waited for, and counted.
create or replace function uvian._hold_open_chats(of_conversation uuid, of_user uuid default null) returns uuid[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  chats uuid[];
begin
  loop
    begin
      chats := array(
        select j.id from uvian.jobs j
        where j.conversation_id = of_conversation and j.status in ('queued', 'processing')
          and (of_user is null or j.user_id = of_user)
        order by j.id for no key update);
      perform 1 from uvian.conversations c where c.id = of_conversation for no key update;
      if not exists (
          select from uvian.jobs j
          where j.conversation_id = of_conversation and j.status in ('queued', 'processing')
            and (of_user is null or j.user_id = of_user) and j.id <> all (chats)) then
        return chats;
      end if;
      raise exception using errcode = 'UV002', message = 'a chat came in between';
    exception when sqlstate 'UV002' then
      null;  -- everything is let go again; the next look sees that chat
    end;
  end loop;
end $$;

-- The conversation that a job of this type and input speaks in; null for what is no chat.
create or replace function uvian._conversation_of(type text, input jsonb) returns uuid
language plpgsql immutable
set search_path = ''
as $$
begin
  return case when type = 'chat' then uvian._uuid(input ->> 'conversation_id') end;
end $$;

-- A chat speaks in a conversation that its user takes part in; other jobs speak in none.
create or replace function uvian._may_speak(type text, in_conversation uuid, of_user uuid) returns boolean
language plpgsql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return type <> 'chat' or exists (
    select from uvian.conversation_members m
    where m.conversation_id = in_conversation and m.user_id = of_user);
end $$;

-- The last turn that is taken in a conversation. The caller holds it.
create or replace function uvian._last_turn(in_conversation uuid) returns integer
language plpgsql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return coalesce((select j.turn from uvian.jobs j
                   where j.conversation_id = in_conversation and j.status in ('queued', 'processing')
                   order by j.turn desc limit 1), 0);
end $$;

-- Gives the turn of each conversation without one to its first chat that waits and is due; returns those chats.
-- The caller holds the conversations. A row that is locked elsewhere is left to the next sweep: nobody overtakes it.
create or replace function uvian._give_turns(of_conversations uuid[]) returns uuid[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  first uuid[] := array(
    select w.id from unnest(of_conversations) c (id)
    cross join lateral (
      select j.id from uvian.jobs j
      where j.conversation_id = c.id and j.status = 'queued' and not j.its_turn and j.run_at <= now()
      order by j.turn limit 1) w
    where not exists (select from uvian.jobs s
                      where s.conversation_id = c.id and s.its_turn and s.status in ('queued', 'processing')));
  given uuid[];
begin
  if cardinality(first) = 0 then
    return '{}';
  end if;
  given := array(select j.id from uvian.jobs j where j.id = any (first) and j.status = 'queued'
                 for no key update skip locked);
  update uvian.jobs j set its_turn = true, updated_at = now() where j.id = any (given);
  if cardinality(given) < cardinality(first) then
    update uvian.job_state s set redispatch_at = now() + interval '1 s'
      where s.job_id = any (first) and s.job_id <> all (given);
  end if;
  return given;
end $$;

-- Lets the next sweep look at the first chat in line. Does nothing if there is no such conversation.
create or replace function uvian._reconsider_turn(of_conversation uuid, after interval) returns void
language sql
set search_path = ''
as $$
  update uvian.job_state s set redispatch_at = now() + after
    from (select j.id from uvian.jobs j
          where j.conversation_id = of_conversation and j.status = 'queued' and not j.its_turn
            and j.run_at <= now()
          order by j.turn limit 1) w
    where s.job_id = w.id
$$;

-- The next position, from the conversation's own row: who writes a message holds it until the end,
-- so that positions become visible in their order. That is all a cursor needs.
create or replace function uvian._before_message() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  update uvian.conversations c
    set last_position = c.last_position + 1, last_message_at = greatest(c.last_message_at, new.created_at)
    where c.id = new.conversation_id returning c.last_position into new.position;
  new.position := coalesce(new.position, 0);  -- there is none: the foreign key says so
  return new;
end $$;

revoke all on function
  uvian.post_message(uuid, text, text, jsonb, text, numeric, uuid, text), uvian._check_post(text, text, jsonb),
  uvian._posted_before(uuid, text, jsonb, text), uvian._post(uuid, jsonb, text, text, numeric, text, interval),
  uvian.stop_answer(uuid, uuid, uuid), uvian._cancel_chats(uuid[]), uvian._hold_chats(uuid, uuid[], uuid),
  uvian._hold_open_chats(uuid, uuid), uvian._conversation_of(text, jsonb), uvian._may_speak(text, uuid, uuid),
  uvian._last_turn(uuid), uvian._give_turns(uuid[]), uvian._reconsider_turn(uuid, interval),
  uvian._before_message()
  from public, anon, authenticated, service_role;
grant execute on function
  uvian.post_message(uuid, text, text, jsonb, text, numeric, uuid, text), uvian.stop_answer(uuid, uuid, uuid)
  to authenticated, service_role;

select uvian._close();
notify pgrst, 'reload schema';
