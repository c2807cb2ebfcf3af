-- min_code: 0.1.0
-- A message and the chat that answers it, in one transaction.

create function uvian._check_post(content text, on_busy text, options jsonb) returns void
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
create function uvian._posted_before(by_user uuid, key text, input jsonb, content text) returns jsonb
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
                            'dispatch', '[]'::jsonb, 'cancel', '[]'::jsonb, 'endings', '[]'::jsonb,
                            'accounts', '[]'::jsonb);
end $$;

-- A member's message and the chat that answers it. `on_busy` says what becomes of chats of this
-- conversation that are open: enqueue (it waits behind them), reject, or interrupt (they are cancelled,
-- it is next). Posts at the same moment are one after the other: the conversation's row is their lock.
-- → {message, job, created, dispatch, cancel: [{id, run}], endings, accounts}, for a user {message, job,
--    created, accounts (their own)}: the sweep does the rest.
create function uvian.post_message(conversation_id uuid, content text, on_busy text default 'enqueue',
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
  perform uvian._require_member(post_message.conversation_id, caller, false);  -- still

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

-- The chat, then the message that it answers: what keeps the one out keeps both out.
create function uvian._post(by_user uuid, input jsonb, content text, key text, max_cost numeric, door text,
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

revoke all on function
  uvian._check_post(text, text, jsonb), uvian._posted_before(uuid, text, jsonb, text),
  uvian.post_message(uuid, text, text, jsonb, text, numeric, uuid, text),
  uvian._post(uuid, jsonb, text, text, numeric, text, interval)
  from public, anon, authenticated, service_role;
grant execute on function uvian.post_message(uuid, text, text, jsonb, text, numeric, uuid, text)
  to authenticated, service_role;

select uvian._close();
notify pgrst, 'reload schema';
