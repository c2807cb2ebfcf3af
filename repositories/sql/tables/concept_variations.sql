-- A user sees their own variations; files that nothing names any more are looked at.

revoke all on uvian.concept_variations from public, anon, authenticated, service_role;
grant select, insert, update, delete on uvian.concept_variations to service_role;
grant select on uvian.concept_variations to authenticated;

set local client_min_messages = warning;  -- that a policy is not there yet is no news

drop policy if exists concept_variations_owner on uvian.concept_variations;
create policy concept_variations_owner on uvian.concept_variations for select to authenticated
  using (user_id = (select auth.uid()));

create or replace trigger files_deleted after delete on uvian.concept_variations
  for each row execute function uvian._check_files();

notify pgrst, 'reload schema';
