-- Who takes part sees the conversation; its owner is a member from the start.

revoke all on uvian.conversations from public, anon, authenticated, service_role;
grant select, insert, update, delete on uvian.conversations to service_role;
grant select on uvian.conversations to authenticated;

set local client_min_messages = warning;  -- that a policy is not there yet is no news

drop policy if exists conversations_members on uvian.conversations;
create policy conversations_members on uvian.conversations for select to authenticated
  using (id = any (array(select uvian.my_conversations())));

create or replace trigger owned after insert on uvian.conversations
  for each row execute function uvian._after_conversation();

create or replace trigger deleted before delete on uvian.conversations
  for each row when (coalesce(current_setting('uvian.writer', true), '') <> 'function')
  execute function uvian._before_conversation_delete();

notify pgrst, 'reload schema';
