-- Who is invited sees the invitation, and so does who takes part.

revoke all on uvian.conversation_invitations from public, anon, authenticated, service_role;
grant select on uvian.conversation_invitations to authenticated, service_role;

set local client_min_messages = warning;  -- that a policy is not there yet is no news

drop policy if exists conversation_invitations_shared on uvian.conversation_invitations;
create policy conversation_invitations_shared on uvian.conversation_invitations for select to authenticated
  using (user_id = (select auth.uid()) or conversation_id = any (array(select uvian.my_conversations())));

notify pgrst, 'reload schema';
