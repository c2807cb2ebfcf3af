-- A user sees their own account.

revoke all on uvian.credit_accounts from public, anon, authenticated, service_role;
grant select on uvian.credit_accounts to authenticated, service_role;

set local client_min_messages = warning;  -- that a policy is not there yet is no news

drop policy if exists credit_accounts_owner on uvian.credit_accounts;
create policy credit_accounts_owner on uvian.credit_accounts for select to authenticated
  using (user_id = (select auth.uid()));

notify pgrst, 'reload schema';
