-- min_code: 0.1.0
-- Stop may name the answer that is meant: asked twice (a lost reply, a second press), or a moment too
-- late, it must not stop the next one.

drop function uvian.stop_answer(uuid, uuid);

-- By whoever takes part. What it has written so far is kept, as with every cancelled chat. With `job_id`
-- only that chat is stopped, and one that was stopped before is answered as stopped: the call may be
-- repeated. Without it, whichever has the turn now.
-- → {stopped: [job id], cancel: [{id, run}], endings, dispatch, accounts}, for a user {stopped}: the
--   renewal of its lease tells the worker, the sweep does the rest.
create function uvian.stop_answer(conversation_id uuid, user_id uuid default null, job_id uuid default null)
returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  caller uuid := uvian._caller(stop_answer.user_id);
  chats uuid[];
  before uuid[];
  payers uuid[];
  answer jsonb;
begin
  perform uvian._require_member(stop_answer.conversation_id, caller, false);
  chats := uvian._hold_open_chats(stop_answer.conversation_id);
  payers := uvian._hold_chats(stop_answer.conversation_id, chats, null);
  perform uvian._require_member(stop_answer.conversation_id, caller, false);  -- still
  chats := array(select j.id from uvian._jobs(chats) j
                 where j.its_turn and (stop_answer.job_id is null or j.id = stop_answer.job_id));
  before := array(select j.id from uvian._jobs(array[stop_answer.job_id]) j
                  where j.conversation_id = stop_answer.conversation_id and j.status = 'cancelled');
  perform uvian._writing(true);
  answer := uvian._cancel_chats(chats) || jsonb_build_object('stopped', to_jsonb(chats || before));
  answer := answer || jsonb_build_object('dispatch', uvian._next(chats), 'accounts', uvian._accounts(payers));
  perform uvian._writing(false);
  return case when uvian._is_service() then answer else jsonb_build_object('stopped', answer -> 'stopped') end;
end $$;

revoke all on function uvian.stop_answer(uuid, uuid, uuid) from public, anon, authenticated, service_role;
grant execute on function uvian.stop_answer(uuid, uuid, uuid) to authenticated, service_role;

select uvian._close();
notify pgrst, 'reload schema';
