-- A user sees their own entries; nobody changes one.

revoke all on uvian.credit_entries from public, anon, authenticated, service_role;
grant select on uvian.credit_entries to authenticated, service_role;

set local client_min_messages = warning;  -- that a policy is not there yet is no news

drop policy if exists credit_entries_owner on uvian.credit_entries;
create policy credit_entries_owner on uvian.credit_entries for select to authenticated
  using (user_id = (select auth.uid()));

create or replace trigger append_only before update or delete on uvian.credit_entries
  for each row execute function uvian._credit_ledger_is_append_only();

notify pgrst, 'reload schema';
