-- Who takes part sees the messages; each gets its position from the conversation.

revoke all on uvian.messages from public, anon, authenticated, service_role;
grant select, insert, update, delete on uvian.messages to service_role;
grant select on uvian.messages to authenticated;

set local client_min_messages = warning;  -- that a policy is not there yet is no news

drop policy if exists messages_members on uvian.messages;
create policy messages_members on uvian.messages for select to authenticated
  using (conversation_id = any (array(select uvian.my_conversations())));

create or replace trigger positioned before insert on uvian.messages
  for each row execute function uvian._before_message();

notify pgrst, 'reload schema';
