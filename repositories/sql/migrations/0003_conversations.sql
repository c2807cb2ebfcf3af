-- min_code: 0.1.0
-- Conversations: who takes part in them, who is invited, and their messages in order.

-- A conversation, its owner, and how far its messages go.
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

-- Who takes part in a conversation. The owner is a member too.
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

-- What was said in a conversation, in one strict order.
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

-- Who was invited to take part and has not answered. The user's id has no foreign key, and nothing else looks
-- whether there is such a user: an invitation is no way to find out.
create table uvian.conversation_invitations (
  conversation_id uuid not null references uvian.conversations (id) on delete cascade,
  user_id uuid not null,
  invited_by uuid,  -- null: the operator
  title text,       -- as it was then: until they accept they see nothing else of the conversation
  created_at timestamptz not null default now(),
  primary key (conversation_id, user_id)
);
create index conversation_invitations_by_user on uvian.conversation_invitations (user_id, created_at desc, conversation_id);

alter table uvian.conversations enable row level security;
alter table uvian.conversation_members enable row level security;
alter table uvian.messages enable row level security;
alter table uvian.conversation_invitations enable row level security;
revoke all on uvian.conversations, uvian.conversation_members, uvian.messages, uvian.conversation_invitations
  from public, anon, authenticated, service_role;

notify pgrst, 'reload schema';
