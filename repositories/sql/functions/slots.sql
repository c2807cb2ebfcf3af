-- Slots under max_running_per_user: who holds one, who waits, who is let in next.

-- The lock of the slots of a user and a type.
create or replace function uvian._slot(of_user uuid, of_type text) returns bigint
language plpgsql immutable
set search_path = ''
as $$
begin
  return hashtextextended('uvian slot ' || of_user || ' ' || of_type, 0);
end $$;

-- Who holds the locks may count, admit and give turns: the limits are exact.
create or replace function uvian._lock_slots(of_jobs uuid[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  conversations uuid[];
  users uuid[];
  types text[];
begin
  select array_agg(distinct j.conversation_id) filter (where j.conversation_id is not null),
         array_agg(j.user_id), array_agg(j.type)
    into conversations, users, types
    from uvian._jobs(of_jobs) j;
  perform uvian._hold_slots(conversations, users, types);
end $$;

-- Holds conversations, then slots, each in order.
create or replace function uvian._hold_slots(of_conversations uuid[], of_users uuid[], of_types text[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  slot bigint;
begin
  if cardinality(of_conversations) > 0 then
    perform 1 from uvian.conversations c where c.id = any (of_conversations) order by c.id for no key update;
  end if;
  if not exists (select from uvian.job_types t where t.max_running_per_user is not null
                 or t.max_queued_per_user is not null) then
    return;
  end if;
  for slot in
    select uvian._slot(p.user_id, p.type) as key
    from (select distinct u.user_id, t.type
          from unnest(of_users, of_types) u (user_id, type) join uvian.job_types t on t.type = u.type
          where t.max_running_per_user is not null or t.max_queued_per_user is not null) p
    order by key
  loop
    perform pg_advisory_xact_lock(slot);
  end loop;
end $$;

-- The free slots of a user and type; a very large number if the type has no limit.
create or replace function uvian._slots_free(of_user uuid, of_type text) returns integer
language sql stable
set search_path = ''
as $$
  select coalesce(
    (select t.max_running_per_user - (
       select count(*)::integer from uvian.jobs j
       where j.user_id = of_user and j.type = of_type and j.admitted
         and j.status in ('queued', 'processing'))
     from uvian.job_types t where t.type = of_type and t.max_running_per_user is not null),
    2147483647)
$$;

-- Dispatches the jobs that are admitted to slots which these jobs left, or wait for. The caller holds the slots.
create or replace function uvian._next(after_jobs uuid[]) returns jsonb
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  admitted_now uuid[] := '{}';
begin
  if cardinality(after_jobs) > 0 then
    admitted_now := uvian._let_in(after_jobs, interval '5 s');
  end if;
  return coalesce((select jsonb_agg(uvian._dispatch(j) order by j.score)
                   from uvian._jobs(admitted_now) j), '[]');
end $$;

-- Gives turns, then admits jobs, wherever these jobs are new, have left a turn or a slot, or wait for one. The
-- caller holds their conversations and slots. A turn may go to a chat of another user, whose slots are not held:
-- they are tried, and left to the next sweep if another transaction holds them.
create or replace function uvian._let_in(because_of uuid[], redispatch_in interval) returns uuid[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  conversations uuid[] := array(select distinct j.conversation_id from uvian._jobs(because_of) j
                                where j.conversation_id is not null);
  has_turn uuid[] := '{}';
  slot record;
  admitted uuid[];
  admitted_now uuid[] := '{}';
begin
  if cardinality(conversations) > 0 then
    has_turn := uvian._give_turns(conversations);
  end if;
  for slot in
    select distinct j.user_id, j.type from uvian.jobs j join uvian.job_types t on t.type = j.type
    where j.id = any (because_of || has_turn)
      and (t.max_running_per_user is not null
           or (j.status = 'queued' and not j.admitted and j.its_turn))
      and exists (select from uvian.jobs w  -- somebody waits for such a slot
                  where w.user_id = j.user_id and w.type = j.type and w.status = 'queued'
                    and not w.admitted and w.its_turn)
  loop
    admitted := uvian._admit(slot.user_id, slot.type, redispatch_in);
    if admitted is null then
      update uvian.job_state s set redispatch_at = now() + interval '1 s'
        from uvian.jobs j
        where s.job_id = any (has_turn) and j.id = s.job_id
          and j.user_id = slot.user_id and j.type = slot.type;
    end if;
    admitted_now := admitted_now || admitted;
  end loop;
  return admitted_now;
end $$;

-- Admits jobs that wait and are due, oldest first, as far as there are slots; returns them for dispatch. A row that
-- is locked elsewhere is left to the next sweep. Null: another transaction holds the slots.
create or replace function uvian._admit(of_user uuid, of_type text, redispatch_in interval) returns uuid[]
language plpgsql
set search_path = ''
as $$
declare
  free integer;
  admitted_now uuid[];
begin
  if exists (select from uvian.job_types t where t.type = of_type and t.max_running_per_user is not null)
     and not pg_try_advisory_xact_lock(uvian._slot(of_user, of_type)) then
    return null;
  end if;
  free := least(uvian._slots_free(of_user, of_type), 500);
  if free <= 0 then
    return '{}';
  end if;
  admitted_now := array(
    select w.id from uvian.jobs w
    where w.user_id = of_user and w.type = of_type and w.status = 'queued' and not w.admitted
      and w.its_turn and w.run_at <= now()
    order by w.score limit free
    for no key update skip locked);
  update uvian.jobs w set admitted = true, updated_at = now() where w.id = any (admitted_now);
  update uvian.job_state s set redispatch_at = now() + redispatch_in where s.job_id = any (admitted_now);
  if cardinality(admitted_now) < free then
    perform uvian._reconsider(of_user, of_type, interval '1 s');
  end if;
  return admitted_now;
end $$;

-- The next sweep admits who waits for a slot of this user and type: it is enough to wake the first.
-- Who is not due yet wakes on its own: its redispatch_at is its run_at.
create or replace function uvian._reconsider(of_user uuid, of_type text, after interval) returns void
language sql
set search_path = ''
as $$
  update uvian.job_state s set redispatch_at = now() + after
    from (select j.id from uvian.jobs j
          where j.user_id = of_user and j.type = of_type and j.status = 'queued' and not j.admitted
            and j.its_turn and j.run_at <= now()
          order by j.score limit 1) w
    where s.job_id = w.id
$$;

-- Clears `redispatch_at` of jobs that wait and are considered now; what is admitted, or must be considered again,
-- is written afterwards.
create or replace function uvian._consider(waiting uuid[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  update uvian.job_state s set redispatch_at = case when j.run_at > now() then j.run_at end
    from uvian.jobs j
    where s.job_id = any (waiting) and j.id = s.job_id and j.status = 'queued' and not j.admitted;
end $$;

-- After a limit has changed, the next sweep considers the first waiting job of each user again.
create or replace function uvian._limit_changed() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  update uvian.job_state s set redispatch_at = now()
    from (select distinct on (j.user_id) j.id from uvian.jobs j
          where j.type = new.type and j.status = 'queued' and not j.admitted and j.its_turn
            and j.run_at <= now()
          order by j.user_id, j.score) w
    where s.job_id = w.id;
  return null;
end $$;

revoke all on function
  uvian._slot(uuid, text), uvian._lock_slots(uuid[]), uvian._hold_slots(uuid[], uuid[], text[]),
  uvian._slots_free(uuid, text), uvian._next(uuid[]), uvian._let_in(uuid[], interval),
  uvian._admit(uuid, text, interval), uvian._reconsider(uuid, text, interval), uvian._consider(uuid[]),
  uvian._limit_changed()
  from public, anon, authenticated, service_role;

select uvian._close();
notify pgrst, 'reload schema';
