-- min_code: 0.1.0
-- Conversations: who takes part in them, and their messages in order.

create table uvian.conversations (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references auth.users (id) on delete cascade,  -- its owner
  title text check (char_length(title) <= 200),
  metadata jsonb not null default '{}'
    check (jsonb_typeof(metadata) = 'object' and octet_length(metadata::text) <= 16384),
  last_position bigint not null default 0,
  last_message_at timestamptz not null default now(),  -- before the first: when it was made
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
) with (fillfactor = 80);
create index conversations_by_user on uvian.conversations (user_id);

-- The owner is a member too.
create table uvian.conversation_members (
  conversation_id uuid not null references uvian.conversations (id) on delete cascade,
  user_id uuid not null references auth.users (id) on delete cascade,
  role text not null default 'member' check (role in ('owner', 'member')),
  added_at timestamptz not null default now(),
  primary key (conversation_id, user_id)
);
create index conversation_members_by_user on uvian.conversation_members (user_id, conversation_id);
create unique index conversation_members_owner on uvian.conversation_members (conversation_id)
  where role = 'owner';

create table uvian.messages (
  id uuid primary key default gen_random_uuid(),
  conversation_id uuid not null references uvian.conversations (id) on delete cascade,
  position bigint not null,  -- given by a trigger: only grows, in the order in which posts commit
  user_id uuid references auth.users (id) on delete set null,
  role text not null check (role in ('user', 'assistant', 'system')),
  status text not null default 'completed' check (status in ('completed', 'cancelled')),
  content text not null,
  length_bytes integer not null generated always as (octet_length(content)) stored,
  job_id uuid references uvian.jobs (id) on delete set null,  -- the chat that answers it, or made it
  reply_to uuid references uvian.messages (id) on delete set null,
  usage jsonb,
  created_at timestamptz not null default now(),
  unique (conversation_id, position),
  check (role = 'user' or user_id is null),
  constraint messages_length
    check (octet_length(content) <= case role when 'assistant' then 1048576 else 65536 end)
);
create index messages_by_user on uvian.messages (user_id) where user_id is not null;
create index messages_by_job on uvian.messages (job_id) where job_id is not null;
create index messages_by_reply on uvian.messages (reply_to) where reply_to is not null;

-- The next position, from the conversation's own row: who writes a message holds it until the end,
-- so that positions become visible in their order. That is all a cursor needs.
create function uvian._before_message() returns trigger
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
create trigger positioned before insert on uvian.messages
  for each row execute function uvian._before_message();

create function uvian._after_conversation() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  insert into uvian.conversation_members (conversation_id, user_id, role)
    values (new.id, new.user_id, 'owner');
  return null;
end $$;
create trigger owned after insert on uvian.conversations
  for each row execute function uvian._after_conversation();

-- The caller's conversations, for policies: a policy of the members' table on itself would recurse.
-- An array of them is a condition of an index; a function of each row would be called for every row.
create function uvian.my_conversations() returns setof uuid
language sql stable security definer
set search_path = ''
as $$
  select m.conversation_id from uvian.conversation_members m where m.user_id = (select auth.uid())
$$;

alter table uvian.conversations enable row level security;
alter table uvian.conversation_members enable row level security;
alter table uvian.messages enable row level security;
revoke all on uvian.conversations, uvian.conversation_members, uvian.messages
  from public, anon, authenticated, service_role;
grant select on uvian.conversations, uvian.conversation_members, uvian.messages to authenticated;
grant select, insert, update, delete on uvian.conversations, uvian.conversation_members, uvian.messages
  to service_role;
revoke all on function
  uvian._before_message(), uvian._after_conversation(), uvian.my_conversations()
  from public, anon, authenticated, service_role;
grant execute on function uvian.my_conversations() to authenticated;

create policy conversations_members on uvian.conversations for select to authenticated
  using (id = any (array(select uvian.my_conversations())));
create policy conversation_members_members on uvian.conversation_members for select to authenticated
  using (conversation_id = any (array(select uvian.my_conversations())));
create policy messages_members on uvian.messages for select to authenticated
  using (conversation_id = any (array(select uvian.my_conversations())));

-- Chats, closed as every type is until the operator opens it. A team that has such a type already keeps its own row.
insert into uvian.job_types (type) values ('chat') on conflict (type) do nothing;

-- Supabase Realtime, where there is one.
select uvian._publish('messages');

select uvian._close();
notify pgrst, 'reload schema';
