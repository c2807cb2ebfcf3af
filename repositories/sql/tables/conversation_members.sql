-- Who takes part sees who else does; who is removed receives no more of it.

revoke all on uvian.conversation_members from public, anon, authenticated, service_role;
grant select, insert, update, delete on uvian.conversation_members to service_role;
grant select on uvian.conversation_members to authenticated;

set local client_min_messages = warning;  -- that a policy is not there yet is no news

drop policy if exists conversation_members_members on uvian.conversation_members;
create policy conversation_members_members on uvian.conversation_members for select to authenticated
  using (conversation_id = any (array(select uvian.my_conversations())));

create or replace trigger members_gone after delete on uvian.conversation_members
  referencing old table as gone
  for each statement execute function uvian._after_members_gone();

notify pgrst, 'reload schema';
