-- min_code: 0.1.0
-- One chat of a conversation at a time: the others wait for their turn, in the order in which they came.
--
-- A chat has its turn (`its_turn`) from when it may be dispatched to its end, also while it is queued
-- again; a unique index keeps a second from having it. Whoever waits has neither turn nor place. The
-- turn comes first, the place under max_running_per_user after it.
--
-- Lock order, everywhere: jobs by id, conversations by id, places, accounts by user, then what is
-- remembered of jobs, and leases. The conversation's row is the lock of its turns: who holds it may add
-- a chat and give the turn. A place that is met out of order is tried, not waited for.

alter table uvian.jobs
  add column conversation_id uuid,  -- of a chat; no foreign key: a fact, also when that is gone
  add column turn integer,          -- in which order; counts anew when nobody waits
  add column its_turn boolean not null default true;
create index jobs_turns on uvian.jobs (conversation_id, turn)
  where conversation_id is not null and status in ('queued', 'processing');
create unique index jobs_one_chat on uvian.jobs (conversation_id)
  where conversation_id is not null and its_turn and status in ('queued', 'processing');
create index jobs_waiting on uvian.jobs (user_id, type, score)
  where status = 'queued' and not admitted and its_turn;

create function uvian._uuid(of_text text) returns uuid
language plpgsql immutable
set search_path = ''
as $$
begin
  return case when of_text ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then of_text::uuid end;
end $$;

-- The conversation that a job of this type and input speaks in; null for what is no chat.
create function uvian._conversation_of(type text, input jsonb) returns uuid
language plpgsql immutable
set search_path = ''
as $$
begin
  return case when type = 'chat' then uvian._uuid(input ->> 'conversation_id') end;
end $$;

-- ─── locks ───────────────────────────────────────────────────────────────────────────────────

create function uvian._hold_places(of_conversations uuid[], of_users uuid[], of_types text[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  place bigint;
begin
  if cardinality(of_conversations) > 0 then
    perform 1 from uvian.conversations c where c.id = any (of_conversations) order by c.id for no key update;
  end if;
  if not exists (select from uvian.job_types t where t.max_running_per_user is not null
                 or t.max_queued_per_user is not null) then
    return;
  end if;
  for place in
    select uvian._place(p.user_id, p.type) as key
    from (select distinct u.user_id, t.type
          from unnest(of_users, of_types) u (user_id, type) join uvian.job_types t on t.type = u.type
          where t.max_running_per_user is not null or t.max_queued_per_user is not null) p
    order by key
  loop
    perform pg_advisory_xact_lock(place);
  end loop;
end $$;

-- Who holds the locks may count, admit and give turns: the limits are exact.
create or replace function uvian._lock_places(of_jobs uuid[]) returns void
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
  perform uvian._hold_places(conversations, users, types);
end $$;

-- Holds the open chats of a conversation (of one user's, if one is named), then the conversation: none
-- is added any more, none was missed. Who posts at the same moment is waited for, and counted.
create function uvian._hold_open_chats(of_conversation uuid, of_user uuid default null) returns uuid[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
  chats uuid[];
begin
  loop
    begin
      chats := array(
        select j.id from uvian.jobs j
        where j.conversation_id = of_conversation and j.status in ('queued', 'processing')
          and (of_user is null or j.user_id = of_user)
        order by j.id for no key update);
      perform 1 from uvian.conversations c where c.id = of_conversation for no key update;
      if not exists (
          select from uvian.jobs j
          where j.conversation_id = of_conversation and j.status in ('queued', 'processing')
            and (of_user is null or j.user_id = of_user) and j.id <> all (chats)) then
        return chats;
      end if;
      raise exception using errcode = 'UV002', message = 'a chat came in between';
    exception when sqlstate 'UV002' then
      null;  -- everything is let go again; the next look sees that chat
    end;
  end loop;
end $$;

-- ─── turns and places ────────────────────────────────────────────────────────────────────────

-- A limit that is not there is not counted for.
create or replace function uvian._places_free(of_user uuid, of_type text) returns integer
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

-- The next sweep looks at who is first in line. Nothing for what is no conversation.
create function uvian._reconsider_turn(of_conversation uuid, after interval) returns void
language sql
set search_path = ''
as $$
  update uvian.job_state s set redispatch_at = now() + after
    from (select j.id from uvian.jobs j
          where j.conversation_id = of_conversation and j.status = 'queued' and not j.its_turn
            and j.run_at <= now()
          order by j.turn limit 1) w
    where s.job_id = w.id
$$;

-- Where nobody has the turn, the first who waits and is due gets it; answers who did. The caller holds
-- the conversations. A row that somebody holds is left to the next sweep: nobody overtakes it.
create function uvian._give_turns(of_conversations uuid[]) returns uuid[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  first uuid[] := array(
    select w.id from unnest(of_conversations) c (id)
    cross join lateral (
      select j.id from uvian.jobs j
      where j.conversation_id = c.id and j.status = 'queued' and not j.its_turn and j.run_at <= now()
      order by j.turn limit 1) w
    where not exists (select from uvian.jobs s
                      where s.conversation_id = c.id and s.its_turn and s.status in ('queued', 'processing')));
  given uuid[];
begin
  if cardinality(first) = 0 then
    return '{}';
  end if;
  given := array(select j.id from uvian.jobs j where j.id = any (first) and j.status = 'queued'
                 for no key update skip locked);
  update uvian.jobs j set its_turn = true, updated_at = now() where j.id = any (given);
  if cardinality(given) < cardinality(first) then
    update uvian.job_state s set redispatch_at = now() + interval '1 s'
      where s.job_id = any (first) and s.job_id <> all (given);
  end if;
  return given;
end $$;

-- Admits those who wait and are due, oldest first, as far as there are places; answers them for
-- dispatch. A row that somebody holds is left to the next sweep. Null: another holds the place.
create or replace function uvian._admit(of_user uuid, of_type text, redispatch_in interval) returns uuid[]
language plpgsql
set search_path = ''
as $$
declare
  free integer;
  admitted_now uuid[];
begin
  if exists (select from uvian.job_types t where t.type = of_type and t.max_running_per_user is not null)
     and not pg_try_advisory_xact_lock(uvian._place(of_user, of_type)) then
    return null;
  end if;
  free := least(uvian._places_free(of_user, of_type), 500);
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

-- Who may go now that these jobs are there, have left a turn or a place, or wait for one. The caller
-- holds their conversations and places. The turn may go to a chat of another user, whose place is not
-- held: it is tried, and left to the next sweep where another has it.
create function uvian._let_in(because_of uuid[], redispatch_in interval) returns uuid[]
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  conversations uuid[] := array(select distinct j.conversation_id from uvian._jobs(because_of) j
                                where j.conversation_id is not null);
  has_turn uuid[] := '{}';
  place record;
  admitted uuid[];
  admitted_now uuid[] := '{}';
begin
  if cardinality(conversations) > 0 then
    has_turn := uvian._give_turns(conversations);
  end if;
  for place in
    select distinct j.user_id, j.type from uvian.jobs j join uvian.job_types t on t.type = j.type
    where j.id = any (because_of || has_turn)
      and (t.max_running_per_user is not null
           or (j.status = 'queued' and not j.admitted and j.its_turn))
      and exists (select from uvian.jobs w  -- somebody waits for such a place
                  where w.user_id = j.user_id and w.type = j.type and w.status = 'queued'
                    and not w.admitted and w.its_turn)
  loop
    admitted := uvian._admit(place.user_id, place.type, redispatch_in);
    if admitted is null then
      update uvian.job_state s set redispatch_at = now() + interval '1 s'
        from uvian.jobs j
        where s.job_id = any (has_turn) and j.id = s.job_id
          and j.user_id = place.user_id and j.type = place.type;
    end if;
    admitted_now := admitted_now || admitted;
  end loop;
  return admitted_now;
end $$;

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

-- ─── those who wait, where they are met ──────────────────────────────────────────────────────

-- A waiting job that is claimed all the same will be offered when its turn or place comes: when it is
-- to be looked at again stays as it is.
create or replace function uvian._refuse(these uuid[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  update uvian.jobs j set run = j.run + 1, updated_at = now() where j.id = any (these);
  update uvian.job_state s
    set refusals = least(s.refusals + 1, 6), dispatches = 0, dispatched_at = null,
        redispatch_at = case when j.admitted then now() + make_interval(secs => least(30, power(2, s.refusals)))
                             else s.redispatch_at end
    from uvian.jobs j where j.id = any (these) and s.job_id = j.id;
end $$;

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

-- What is due. Those who wait for a turn or place are not held: who gives turns and places writes down
-- when to look at them again, and would wait for the sweep that waits for him.
drop function uvian._choose_due(integer);
create function uvian._choose_due(most integer, out due uuid[], out waiting uuid[])
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off
as $$
begin
  select coalesce(array_agg(j.id) filter (where j.admitted or j.status <> 'queued'), '{}'),
         coalesce(array_agg(j.id) filter (where not j.admitted and j.status = 'queued'), '{}')
    into due, waiting
    from (select s.job_id from uvian.job_state s
          where s.redispatch_at <= now() order by s.redispatch_at limit most) found
    cross join lateral (select o.* from uvian.jobs o where o.id = found.job_id offset 0) j;
  due := uvian._hold(due);
end $$;

-- They are looked at now; who is let in, or must be looked at again, is written down afterwards.
create function uvian._consider(waiting uuid[]) returns void
language plpgsql
set search_path = '' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  update uvian.job_state s set redispatch_at = case when j.run_at > now() then j.run_at end
    from uvian.jobs j
    where s.job_id = any (waiting) and j.id = s.job_id and j.status = 'queued' and not j.admitted;
end $$;

create or replace function uvian.sweep_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  most integer := least(coalesce((request ->> 'limit')::integer, 500), 500);
  seconds double precision := coalesce((request ->> 'lease_seconds')::double precision, 15);
  beat uvian.sweeps;
  lost uuid[] := '{}';
  orphans uuid[];
  ended uuid[];
  payers uuid[];
  due uuid[];
  waiting uuid[];
  forwarded integer;
  announced uuid[];
  dispatch jsonb;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('uvian sweep', 0)) then
    return jsonb_build_object('swept', false);
  end if;
  perform uvian._writing(true);
  -- Nobody swept for 10 s: Postgres was away, and renewals with it. Give every lease its length.
  update uvian.sweeps s
    set last_at = clock_timestamp(),
        hold_until = case when s.last_at < clock_timestamp() - interval '10 s'
          then clock_timestamp() + make_interval(secs => seconds) else s.hold_until end
    returning * into beat;

  if beat.hold_until <= clock_timestamp() then
    lost := uvian._choose_lost(most);
  end if;
  orphans := uvian._choose_orphans(most);
  forwarded := uvian._bring_forward(request -> 'claiming', (request ->> 'redis_lost_at')::timestamptz, most);
  select c.due, c.waiting into due, waiting from uvian._choose_due(most) c;

  perform uvian._lock_places(lost || orphans || waiting);
  payers := uvian._lock_payers(lost || orphans);

  if cardinality(lost) > 0 then
    perform uvian._bury(lost);
  end if;
  if cardinality(orphans) > 0 then
    perform uvian._give_up(orphans);
  end if;
  ended := array(select j.id from uvian._jobs(lost || orphans) j where j.status in ('failed', 'cancelled'));
  if cardinality(waiting) > 0 then
    perform uvian._consider(waiting);
  end if;
  dispatch := uvian._offer(due || lost) || uvian._next(lost || orphans || waiting);

  announced := array(
    select s.job_id from uvian.job_state s
    where s.announce_at <= now() order by s.announce_at limit most for no key update skip locked);
  announced := announced || ended;
  update uvian.job_state s set announce_at = now() + interval '5 s' where s.job_id = any (announced);

  perform uvian._writing(false);
  return jsonb_build_object(
    'swept', true, 'now', clock_timestamp(), 'expired', cardinality(lost), 'forwarded', forwarded,
    'dispatch', dispatch,
    'announce', coalesce((select jsonb_agg(uvian._ending(j)) from uvian._jobs(announced) j
                          where j.status in ('completed', 'failed', 'cancelled')), '[]'),
    'accounts', uvian._accounts(array(
      select j.user_id from uvian._jobs(ended) j where j.user_id = any (payers))),
    'more', most <= greatest(cardinality(lost), cardinality(orphans), cardinality(due) + cardinality(waiting),
                             cardinality(announced), forwarded));
end $$;

revoke all on function
  uvian._uuid(text), uvian._conversation_of(text, jsonb), uvian._hold_places(uuid[], uuid[], text[]),
  uvian._hold_open_chats(uuid, uuid), uvian._reconsider_turn(uuid, interval),
  uvian._give_turns(uuid[]), uvian._let_in(uuid[], interval), uvian._choose_due(integer),
  uvian._consider(uuid[])
  from public, anon, authenticated, service_role;

select uvian._close();
notify pgrst, 'reload schema';
