-- What is done with conversations: made, changed, shared, deleted. By a user from the browser, and by the
-- service (in the name of the user it names, else as the operator).

-- The caller's conversations, for policies: a policy of the members' table on itself would recurse.
-- An array of them is a condition of an index; a function of each row would be called for every row.
create or replace function uvian.my_conversations() returns setof uuid
language sql stable security definer
set search_path = ''
as $$
  select m.conversation_id from uvian.conversation_members m where m.user_id = (select auth.uid())
$$;

-- The same id again, of the same owner, is answered with what it made. `door` is the service's to say: see
-- _door. → the row
create or replace function uvian.create_conversation(title text default null, metadata jsonb default '{}',
                                          conversation_id uuid default null, user_id uuid default null,
                                          door text default null)
returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  caller uuid := uvian._caller(create_conversation.user_id);
  by_door text := uvian._door(create_conversation.door);
  made uvian.conversations;
begin
  select * into made from uvian.conversations c
    where c.id = create_conversation.conversation_id and c.user_id = caller;
  if made.id is not null then
    return to_jsonb(made);
  end if;
  if not exists (select from auth.users u where u.id = caller) then
    raise exception using errcode = 'PT404', message = 'unknown_user', detail = 'There is no such user.';
  end if;
  perform uvian._check_conversation(create_conversation.title, create_conversation.metadata);
  if by_door is not null then
    perform uvian._require_room(caller, by_door);
  end if;
  insert into uvian.conversations (id, user_id, title, metadata)
    values (coalesce(create_conversation.conversation_id, gen_random_uuid()), caller,
            create_conversation.title, coalesce(nullif(create_conversation.metadata, 'null'), '{}'))
    on conflict (id) do nothing returning * into made;
  if made.id is null then
    select * into made from uvian.conversations c
      where c.id = create_conversation.conversation_id and c.user_id = caller;
    if made.id is null then
      raise exception using errcode = 'PT409', message = 'conflict', detail = 'The id belongs to another conversation.';
    end if;
  end if;
  return to_jsonb(made);
end $$;

-- By the owner; null leaves what there is. → the row
create or replace function uvian.update_conversation(conversation_id uuid, title text default null, metadata jsonb default null,
                                          user_id uuid default null) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  changed uvian.conversations;
begin
  perform uvian._require_member(update_conversation.conversation_id, uvian._caller(update_conversation.user_id), true);
  perform uvian._check_conversation(update_conversation.title, update_conversation.metadata);
  update uvian.conversations c
    set title = coalesce(update_conversation.title, c.title),
        metadata = coalesce(nullif(update_conversation.metadata, 'null'), c.metadata), updated_at = now()
    where c.id = update_conversation.conversation_id returning * into changed;
  return to_jsonb(changed);
end $$;

-- By the owner. Its open chats are cancelled; its messages go with it.
-- → {deleted, terminal_events, cancel, dispatch, accounts}, for a user {deleted}
create or replace function uvian.delete_conversation(conversation_id uuid, user_id uuid default null) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  caller uuid := uvian._caller(delete_conversation.user_id);
  chats uuid[];
  payers uuid[];
  answer jsonb;
begin
  perform uvian._require_member(delete_conversation.conversation_id, caller, true);
  chats := uvian._hold_open_chats(delete_conversation.conversation_id);
  payers := uvian._hold_chats(delete_conversation.conversation_id, chats, null);
  perform uvian._require_member(delete_conversation.conversation_id, caller, true);
  perform uvian._writing(true);
  answer := uvian._cancel_chats(chats) || jsonb_build_object('deleted', true);
  delete from uvian.conversations c where c.id = delete_conversation.conversation_id;
  answer := answer || jsonb_build_object('dispatch', uvian._next(chats), 'accounts', uvian._accounts(payers));
  perform uvian._writing(false);
  return case when uvian._is_service() then answer else jsonb_build_object('deleted', true) end;
end $$;

-- The conversations that a user takes part in, the latest message first.
-- {user_id, limit?, before?: {last_message_at, id}} → {conversations: [row]}: those this user takes part
-- in, the latest message first.
create or replace function uvian.list_conversations(request jsonb) returns jsonb
language plpgsql stable security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off
as $$
declare
  before_at timestamptz := (request -> 'before' ->> 'last_message_at')::timestamptz;
  before_id uuid := (request -> 'before' ->> 'id')::uuid;
begin
  return jsonb_build_object('conversations', (
    select coalesce(jsonb_agg(to_jsonb(c) order by c.last_message_at desc, c.id desc), '[]')
    from (
      select o.* from uvian.conversation_members m
      cross join lateral (select x.* from uvian.conversations x where x.id = m.conversation_id offset 0) o
      where m.user_id = (request ->> 'user_id')::uuid
        and (before_at is null or (o.last_message_at, o.id) < (before_at, before_id))
      order by o.last_message_at desc, o.id desc
      limit least(coalesce((request ->> 'limit')::integer, 20), 500)) c));
end $$;

-- Who takes part in a conversation.
create or replace function uvian._members(of_conversation uuid) returns jsonb
language plpgsql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return (select coalesce(jsonb_agg(to_jsonb(m) order by m.added_at, m.user_id), '[]')
          from uvian.conversation_members m where m.conversation_id = of_conversation);
end $$;

-- Who is invited to a conversation and has not answered.
create or replace function uvian._invitations(of_conversation uuid) returns jsonb
language plpgsql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  return (select coalesce(jsonb_agg(to_jsonb(i) order by i.created_at, i.user_id), '[]')
          from uvian.conversation_invitations i where i.conversation_id = of_conversation);
end $$;

-- The operator's: nobody has to accept. `members` is a list of user ids. → {members: [all, as rows]}
create or replace function uvian.add_members(conversation_id uuid, members jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  added uuid[] := array(select distinct m::uuid from jsonb_array_elements_text(add_members.members) m);
begin
  perform 1 from uvian.conversations c where c.id = add_members.conversation_id for no key update;
  perform uvian._require_member(add_members.conversation_id, null, true);
  if exists (select from unnest(added) a where not exists (select from auth.users u where u.id = a)) then
    raise exception using errcode = 'PT404', message = 'unknown_user', detail = 'There is no such user.';
  end if;
  insert into uvian.conversation_members (conversation_id, user_id)
    select add_members.conversation_id, a from unnest(added) a order by a
    on conflict do nothing;
  delete from uvian.conversation_invitations i
    where i.conversation_id = add_members.conversation_id and i.user_id = any (added);
  perform uvian._require_seats(add_members.conversation_id);
  return jsonb_build_object('members', uvian._members(add_members.conversation_id));
end $$;

-- By the owner: `members` is a list of user ids, who then see an invitation and take part when they accept.
-- Whether there are such users is not looked at; who takes part, or was invited before, is fine.
-- → {invitations: [all that are open, as rows]}
create or replace function uvian.invite_members(conversation_id uuid, members jsonb, user_id uuid default null,
                                     door text default null) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  caller uuid := uvian._caller(invite_members.user_id);
  by_door text := uvian._door(invite_members.door);
  invited uuid[] := array(select distinct m::uuid from jsonb_array_elements_text(invite_members.members) m);
begin
  perform 1 from uvian.conversations c where c.id = invite_members.conversation_id for no key update;
  perform uvian._require_member(invite_members.conversation_id, caller, true);
  if by_door is not null then
    perform uvian._require_allowed('chat', '{}', by_door);
  end if;
  insert into uvian.conversation_invitations (conversation_id, user_id, invited_by, title)
    select c.id, u.id, caller, c.title
    from unnest(invited) u (id) cross join uvian.conversations c
    where c.id = invite_members.conversation_id
      and not exists (select from uvian.conversation_members m where m.conversation_id = c.id and m.user_id = u.id)
    order by u.id
    on conflict do nothing;
  perform uvian._require_seats(invite_members.conversation_id);
  return jsonb_build_object('invitations', uvian._invitations(invite_members.conversation_id));
end $$;

-- By who was invited. Accepting twice is fine. → {accepted}
create or replace function uvian.answer_invitation(conversation_id uuid, accept boolean, user_id uuid default null) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  caller uuid := uvian._caller(answer_invitation.user_id);
  invited boolean;
begin
  if not exists (select from auth.users u where u.id = caller) then
    raise exception using errcode = 'PT404', message = 'unknown_user', detail = 'There is no such user.';
  end if;
  if answer_invitation.accept then  -- the conversation before the invitation, as everywhere
    perform 1 from uvian.conversations c where c.id = answer_invitation.conversation_id for no key update;
  end if;
  delete from uvian.conversation_invitations i
    where i.conversation_id = answer_invitation.conversation_id and i.user_id = caller;
  invited := found;
  if answer_invitation.accept and invited then
    insert into uvian.conversation_members (conversation_id, user_id)
      values (answer_invitation.conversation_id, caller) on conflict do nothing;
  elsif answer_invitation.accept then
    perform uvian._require_member(answer_invitation.conversation_id, caller, false);
  elsif not invited then
    raise exception using errcode = 'PT404', message = 'not_found', detail = 'There is no such invitation.';
  end if;
  return jsonb_build_object('accepted', coalesce(answer_invitation.accept, false));
end $$;

-- The invitations that a user has not answered, the latest first.
-- {user_id, limit?} → {invitations: [row]}: those that this user has not answered, the latest first.
create or replace function uvian.list_invitations(request jsonb) returns jsonb
language plpgsql stable security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off
as $$
begin
  return jsonb_build_object('invitations', (
    select coalesce(jsonb_agg(to_jsonb(i) order by i.created_at desc, i.conversation_id), '[]')
    from (select o.* from uvian.conversation_invitations o
          where o.user_id = (request ->> 'user_id')::uuid
          order by o.created_at desc, o.conversation_id
          limit least(coalesce((request ->> 'limit')::integer, 100), 500)) i));
end $$;

-- By the owner, and by members themselves; their open chats are cancelled. An invitation is withdrawn.
-- → {removed, terminal_events, cancel, dispatch, accounts}, for a user {removed}
create or replace function uvian.remove_member(conversation_id uuid, member uuid, user_id uuid default null) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  caller uuid := uvian._caller(remove_member.user_id);
  by_themself boolean := coalesce(caller = remove_member.member, false);
  chats uuid[];
  payers uuid[];
  its_role text;
  answer jsonb;
begin
  perform uvian._require_member(remove_member.conversation_id, caller, not by_themself);
  chats := uvian._hold_open_chats(remove_member.conversation_id, remove_member.member);
  payers := uvian._hold_chats(remove_member.conversation_id, chats, null);
  perform uvian._require_member(remove_member.conversation_id, caller, not by_themself);
  select m.role into its_role from uvian.conversation_members m
    where m.conversation_id = remove_member.conversation_id and m.user_id = remove_member.member;
  if its_role = 'owner' then
    raise exception using errcode = 'PT409', message = 'owner_stays',
      detail = 'The owner cannot leave: delete the conversation instead.';
  end if;
  perform uvian._writing(true);
  delete from uvian.conversation_members m
    where m.conversation_id = remove_member.conversation_id and m.user_id = remove_member.member;
  delete from uvian.conversation_invitations i
    where i.conversation_id = remove_member.conversation_id and i.user_id = remove_member.member;
  answer := uvian._cancel_chats(chats) || jsonb_build_object('removed', its_role is not null or found);
  answer := answer || jsonb_build_object('dispatch', uvian._next(chats), 'accounts', uvian._accounts(payers));
  perform uvian._writing(false);
  return case when uvian._is_service() then answer else jsonb_build_object('removed', answer -> 'removed') end;
end $$;

-- Refuses a user who is no member of the conversation, or not its owner where only the owner may.
create or replace function uvian._require_member(in_conversation uuid, caller uuid, as_owner boolean) returns void
language plpgsql stable
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  its_role text := (select m.role from uvian.conversation_members m
                    where m.conversation_id = in_conversation and m.user_id = caller);
begin
  if its_role is null and (caller is not null or not exists (
       select from uvian.conversations c where c.id = in_conversation)) then
    raise exception using errcode = 'PT404', message = 'not_found', detail = 'There is no such conversation.';
  end if;
  if as_owner and its_role = 'member' then
    raise exception using errcode = 'PT403', message = 'owner_only',
      detail = 'Only the owner of the conversation may do this.';
  end if;
end $$;

-- Those who take part and those who are invited. The caller holds the conversation.
create or replace function uvian._require_seats(in_conversation uuid) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  if 500 < (select count(*) from uvian.conversation_members m where m.conversation_id = in_conversation)
         + (select count(*) from uvian.conversation_invitations i where i.conversation_id = in_conversation) then
    raise exception using errcode = 'PT422', message = 'too_many_members',
      detail = 'A conversation has at most 500 members, those who are invited included.';
  end if;
end $$;

-- A user who comes by a door needs `chat` to be open there, and may have only a few conversations without a message:
-- those with messages cost a chat each. One call at a time, so that the limit is exact.
create or replace function uvian._require_room(caller uuid, door text) returns void
language plpgsql
set search_path = ''
as $$
declare
  most constant integer := case when door = 'browser' then 100 else 10 end;
begin
  perform uvian._require_allowed('chat', '{}', door);
  perform pg_advisory_xact_lock(hashtextextended('uvian conversations of ' || caller::text, 0));
  if most <= (select count(*) from uvian.conversations c where c.user_id = caller and c.last_position = 0) then
    raise exception using errcode = 'PT429', message = 'too_many_conversations',
      detail = format('You have %s conversations without a message: use or delete one.', most);
  end if;
end $$;

-- Refuses a title or metadata that is too long.
create or replace function uvian._check_conversation(title text, metadata jsonb) returns void
language plpgsql immutable
set search_path = ''
as $$
begin
  if char_length(title) > 200 or jsonb_typeof(metadata) not in ('object', 'null') or octet_length(metadata::text) > 16384 then
    raise exception using errcode = 'PT422', message = 'invalid_conversation',
      detail = 'A title has at most 200 characters; metadata is an object of at most 16 kB.';
  end if;
end $$;

-- Makes the owner of a new conversation its first member.
create or replace function uvian._after_conversation() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  insert into uvian.conversation_members (conversation_id, user_id, role)
    values (new.id, new.user_id, 'owner');
  return null;
end $$;

-- Deleted by a manual edit, or with its owner: what is open in it and not held by another is cancelled as well.
-- (What is held runs, and finds no conversation.)
create or replace function uvian._before_conversation_delete() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  chats uuid[] := uvian._hold(array(
    select j.id from uvian.jobs j
    where j.conversation_id = old.id and j.status in ('queued', 'processing')));
begin
  if cardinality(chats) > 0 then
    perform uvian._writing(true);
    perform uvian._hold_chats(old.id, chats, null);
    perform uvian._cancel_chats(chats);
    perform uvian._writing(false);
  end if;
  return old;
end $$;

-- Who is removed from a conversation receives no more of it at once: gateways listen to `uvian_members`, and
-- look again at who takes part in the conversation that it names.
-- Once per conversation, however many rows a statement deletes: with its conversations, with users, by manual edits.
create or replace function uvian._after_members_gone() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  perform pg_notify('uvian_members', g.conversation_id::text)
    from (select distinct m.conversation_id from gone m) g;
  return null;
end $$;

revoke all on function
  uvian.my_conversations(), uvian.create_conversation(text, jsonb, uuid, uuid, text),
  uvian.update_conversation(uuid, text, jsonb, uuid), uvian.delete_conversation(uuid, uuid),
  uvian.list_conversations(jsonb), uvian._members(uuid), uvian._invitations(uuid),
  uvian.add_members(uuid, jsonb), uvian.invite_members(uuid, jsonb, uuid, text),
  uvian.answer_invitation(uuid, boolean, uuid), uvian.list_invitations(jsonb),
  uvian.remove_member(uuid, uuid, uuid), uvian._require_member(uuid, uuid, boolean), uvian._require_seats(uuid),
  uvian._require_room(uuid, text), uvian._check_conversation(text, jsonb), uvian._after_conversation(),
  uvian._before_conversation_delete(), uvian._after_members_gone()
  from public, anon, authenticated, service_role;
grant execute on function
  uvian.create_conversation(text, jsonb, uuid, uuid, text), uvian.update_conversation(uuid, text, jsonb, uuid),
  uvian.delete_conversation(uuid, uuid), uvian.invite_members(uuid, jsonb, uuid, text),
  uvian.answer_invitation(uuid, boolean, uuid), uvian.remove_member(uuid, uuid, uuid)
  to authenticated, service_role;
grant execute on function
  uvian.my_conversations()
  to authenticated;
grant execute on function
  uvian.list_conversations(jsonb), uvian.add_members(uuid, jsonb), uvian.list_invitations(jsonb)
  to service_role;

select uvian._close();
notify pgrst, 'reload schema';
