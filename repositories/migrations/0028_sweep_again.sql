-- min_code: 0.1.0
-- A sweep whose reply was lost is asked again with the same id, and answers the same: what it offered is
-- dispatched then, instead of 2 to 5 s later by another sweep (whose reply may be lost as well).

alter table uvian.sweeps
  add column asked uuid,  -- the last sweep that had an id
  add column answer jsonb;  -- what it was answered

alter function uvian.sweep_jobs(jsonb) rename to _sweep;
alter function uvian._sweep(jsonb) security invoker;

-- {id?, limit, lease_seconds, claiming: [{id, run}], redis_lost_at?} →
-- {swept: false} when another sweep is running, else {swept, expired, dispatch, announce, accounts,
--  forwarded, more, now}
--   id             made by the caller, the same where a call is repeated: the last one's answer is given again
--   claiming       ids a worker took from the queue some time ago and did not claim
--   redis_lost_at  what was dispatched before it is brought forward, a page a call (`forwarded`)
create function uvian.sweep_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  this uuid := (request ->> 'id')::uuid;
  known jsonb;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('uvian sweep', 0)) then
    return jsonb_build_object('swept', false);
  end if;
  select s.answer into known from uvian.sweeps s where s.asked = this;
  if known is null then
    known := uvian._sweep(request);
    update uvian.sweeps s set asked = this, answer = known where this is not null;
  end if;
  return known;
end $$;

revoke all on function uvian._sweep(jsonb), uvian.sweep_jobs(jsonb)
  from public, anon, authenticated, service_role;
grant execute on function uvian.sweep_jobs(jsonb) to service_role;

select uvian._close();
notify pgrst, 'reload schema';
