-- A user sees their own jobs; a manual edit is normalised, a deletion gives back what the job holds.

revoke all on uvian.jobs from public, anon, authenticated, service_role;
grant select, insert, update, delete on uvian.jobs to service_role;
grant select on uvian.jobs to authenticated;

set local client_min_messages = warning;  -- that a policy is not there yet is no news

drop policy if exists jobs_owner on uvian.jobs;
create policy jobs_owner on uvian.jobs for select to authenticated
  using (user_id = (select auth.uid()));

create or replace trigger manual_edit
  before insert or update of id, user_id, type, input, status, run, attempt, cost, admitted,
                             conversation_id, turn, its_turn on uvian.jobs
  for each row when (coalesce(current_setting('uvian.writer', true), '') <> 'function') execute function uvian._before_manual_edit();

create or replace trigger manual_edit_after after insert or update of status on uvian.jobs
  for each row when (coalesce(current_setting('uvian.writer', true), '') <> 'function') execute function uvian._after_manual_edit();

create or replace trigger deleted before delete on uvian.jobs
  for each row when (old.status in ('queued', 'processing')) execute function uvian._before_delete();

notify pgrst, 'reload schema';
