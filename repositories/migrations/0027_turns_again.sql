-- min_code: 0.1.0
-- Where one statement by hand queues several ended chats of a conversation, the first of them to get in
-- line could give the turn to the next, which still had the number of its former place: two had the same.

-- A chat that had ended gets in line behind those who wait; one that had its turn keeps it, and its number
-- unless that is another's by now.
create or replace function uvian._restart(j uvian.jobs, keeps_checkpoints boolean, starts timestamptz,
                                          redispatch_in interval) returns uvian.jobs
language plpgsql
set search_path = ''
as $$
declare
  price numeric := greatest(uvian.calculate_cost(j.type, j.input) - uvian._paid_before(j.id, 2), 0);  -- the rest
  limited boolean := exists (select from uvian.job_types t
                             where t.type = j.type and t.max_running_per_user is not null);
  held numeric;
  is_new boolean;
begin
  perform uvian._lock_places(array[j.id]);
  perform uvian._lock_accounts(array[j.user_id]);
  insert into uvian.job_state (job_id) values (j.id) on conflict do nothing;
  is_new := found;  -- inserted by hand
  select s.reserved into held from uvian.job_state s where s.job_id = j.id;
  update uvian.jobs w
    set status = 'queued', run = w.run + (not is_new)::integer, attempt = 0,
        admitted = not limited and w.its_turn,
        turn = case when w.its_turn and not exists (
                      select from uvian.jobs o
                      where o.conversation_id = w.conversation_id and o.turn = w.turn and o.id <> w.id
                        and o.status in ('queued', 'processing'))
                    then w.turn else uvian._last_turn(w.conversation_id) + 1 end,
        run_at = starts,
        output = null, result_id = null, error = null, error_message = null, stage = null,
        stages = '[]', progress = 0, progress_message = null, started_at = null, finished_at = null,
        cost = case when held > 0 then held else price end, updated_at = now()
    where w.id = j.id returning * into j;
  update uvian.job_state s
    set redispatch_at = case when j.admitted then now() + redispatch_in
                             when starts > now() then starts end,
        dispatches = 0, dispatched_at = null, announce_at = null, crashes = 0, isolated = false,
        refusals = 0, checkpoints = case when keeps_checkpoints then s.checkpoints else '{}' end
    where s.job_id = j.id;
  delete from uvian.job_leases l where l.job_id = j.id;
  if held = 0 and not uvian._reserve(j.id, j.user_id, price) then
    raise exception using errcode = 'PT402', message = 'insufficient_credits',
      detail = format('The job costs %s credits; the balance is %s.', price,
                      uvian._account(j.user_id) ->> 'balance');
  end if;
  if not j.admitted then
    perform uvian._let_in(array[j.id], redispatch_in);
    select * into j from uvian.jobs w where w.id = j.id;
  end if;
  return j;
end $$;

select uvian._close();
notify pgrst, 'reload schema';
