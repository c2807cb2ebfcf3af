-- min_code: 0.1.0
-- What a sweep offers is offered again a little sooner, and not all at the same moment. Where every few
-- replies are lost, fixed five seconds could fall in step with the losses, and a job wait for minutes.

-- What is offered for dispatch is offered again after 2 to 5 s unless mark_jobs or a claim says otherwise.
create or replace function uvian._offer(due uuid[]) returns jsonb
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  update uvian.job_state s
    set redispatch_at = case when j.status <> 'queued' then null
                             when j.admitted then now() + interval '5 s' * (0.4 + 0.6 * random())
                             when j.run_at > now() then j.run_at end
    from uvian.jobs j where s.job_id = any (due) and j.id = s.job_id;
  return coalesce((select jsonb_agg(uvian._dispatch(j) order by j.score) from uvian._jobs(due) j
                   where j.status = 'queued' and j.admitted), '[]');
end $$;

select uvian._close();
notify pgrst, 'reload schema';
