-- min_code: 0.1.0
-- Who is removed from a conversation hears no more of it at once: gateways listen to `uvian_members`, and
-- look again at who takes part in the conversation that it names.

-- Once per conversation, however many rows a statement deletes: with its conversations, with users, by hand.
create function uvian._after_members_gone() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  perform pg_notify('uvian_members', g.conversation_id::text)
    from (select distinct m.conversation_id from gone m) g;
  return null;
end $$;
create trigger members_gone after delete on uvian.conversation_members
  referencing old table as gone
  for each statement execute function uvian._after_members_gone();

revoke all on function uvian._after_members_gone() from public, anon, authenticated, service_role;

select uvian._close();
notify pgrst, 'reload schema';
