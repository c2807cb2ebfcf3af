-- A user sees their own concepts; files that nothing names any more are looked at.

revoke all on uvian.concepts from public, anon, authenticated, service_role;
grant select, insert, update, delete on uvian.concepts to service_role;
grant select on uvian.concepts to authenticated;

set local client_min_messages = warning;  -- that a policy is not there yet is no news

drop policy if exists concepts_owner on uvian.concepts;
create policy concepts_owner on uvian.concepts for select to authenticated
  using (user_id = (select auth.uid()));

create or replace trigger files_deleted after delete on uvian.concepts
  for each row execute function uvian._check_files();

create or replace trigger files_replaced after update of image_path on uvian.concepts
  for each row when (old.image_path <> new.image_path) execute function uvian._check_files();

notify pgrst, 'reload schema';
