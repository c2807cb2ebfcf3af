-- min_code: 0.1.0
-- New jobs: checked, counted, paid for and inserted in one transaction, once per id and key.

-- One job. The caller holds the places and accounts it needs.
create function uvian._create_job(item jsonb, redispatch_in interval) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  owner uuid := (item ->> 'user_id')::uuid;
  key text := item ->> 'idempotency_key';
  t uvian.job_types;
  j uvian.jobs;
  price numeric;
  starts timestamptz := coalesce((item ->> 'run_at')::timestamptz, now());
  admits boolean := true;
begin
  select * into t from uvian.job_types x where x.type = item ->> 'type';
  if t.type is null then
    return jsonb_build_object('code', 'unknown_type');
  end if;

  -- The same request again, by its id or by its key, is answered with what it made.
  select * into j from uvian.jobs x
    where x.id = (item ->> 'id')::uuid or (key is not null and x.user_id = owner and x.idempotency_key = key)
    limit 1;
  if j.id is not null then
    if j.user_id <> owner or j.type <> t.type or j.input <> item -> 'input' then
      return jsonb_build_object('code', 'idempotency_conflict');
    end if;
    return jsonb_build_object('job', uvian._job(j), 'created', false, 'dispatch', false);
  end if;

  price := uvian.calculate_cost(t.type, item -> 'input');
  if not t.enabled then
    return jsonb_build_object('code', 'type_disabled');
  elsif jsonb_typeof(item -> 'input') is distinct from 'object' then
    return jsonb_build_object('code', 'invalid_input');
  elsif octet_length((item -> 'input')::text) > t.max_input_bytes then
    return jsonb_build_object('code', 'input_too_large', 'limit', t.max_input_bytes);
  elsif not exists (select from auth.users u where u.id = owner) then
    return jsonb_build_object('code', 'unknown_user');
  elsif t.max_queued_per_user is not null and t.max_queued_per_user <= (
      select count(*) from uvian.jobs x
      where x.user_id = owner and x.type = t.type and x.status = 'queued') then
    return jsonb_build_object('code', 'too_many_queued', 'limit', t.max_queued_per_user);
  elsif price > (item ->> 'max_cost')::numeric then
    return jsonb_build_object('code', 'cost_exceeds_max', 'cost', price::text);
  elsif price > 0 and price > coalesce(
      (select a.balance from uvian.credit_accounts a where a.user_id = owner), 0) then
    return jsonb_build_object('code', 'insufficient_credits', 'cost', price::text,
                              'balance', uvian._account(owner) ->> 'balance');
  end if;

  if t.max_running_per_user is not null then
    admits := starts <= now() and uvian._places_free(owner, t.type) > 0;
  end if;
  insert into uvian.jobs (id, user_id, type, input, priority, run_at, idempotency_key, parent_id,
                          cost, admitted)
    values (coalesce((item ->> 'id')::uuid, gen_random_uuid()), owner, t.type, item -> 'input',
            coalesce((item ->> 'priority')::integer, 0), starts, key,
            (item ->> 'parent_id')::uuid, price, admits)
    on conflict do nothing
    returning * into j;
  if j.id is null then
    -- Somebody committed the same key between our look and our insert: look again.
    return uvian._create_job(item, redispatch_in);
  end if;
  insert into uvian.job_state (job_id, redispatch_at)
    values (j.id, case when admits then now() + redispatch_in
                       when starts > now() then starts end);
  perform uvian._reserve(j.id, owner, price);
  return jsonb_build_object('job', uvian._job(j), 'created', true,
                            'dispatch', admits, 'delayed', starts > now());
end $$;

create function uvian._create_jobs(items jsonb, redispatch_in interval) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  place bigint;
  answers jsonb[] := array_fill(null::jsonb, array[jsonb_array_length(items)]);
  item record;
begin
  for place in
    select distinct hashtextextended('uvian place ' || (e ->> 'user_id') || ' ' || t.type, 0) as key
    from jsonb_array_elements(items) e join uvian.job_types t on t.type = e ->> 'type'
    where t.max_running_per_user is not null or t.max_queued_per_user is not null
    order by key
  loop
    perform pg_advisory_xact_lock(place);
  end loop;
  perform uvian._lock_accounts(array(
    select distinct (e ->> 'user_id')::uuid
    from jsonb_array_elements(items) e join uvian.job_prices p on p.type = e ->> 'type'));
  -- One order for everybody: two batches with the same keys wait for each other, never both ways.
  for item in
    select e, n from jsonb_array_elements(items) with ordinality x (e, n)
    order by e ->> 'user_id', e ->> 'idempotency_key', e ->> 'id', n
  loop
    answers[item.n] := uvian._create_job(item.e, redispatch_in);
  end loop;
  return jsonb_build_object(
    'jobs', to_jsonb(answers),
    'accounts', uvian._accounts(array(
      select (a -> 'job' ->> 'user_id')::uuid from unnest(answers) a
      where (a ->> 'created')::boolean and (a -> 'job' ->> 'cost')::numeric > 0)));
end $$;

-- {jobs: [{id?, user_id, type, input, priority?, run_at?, idempotency_key?, parent_id?, max_cost?}]}
-- → {jobs: [{job, created, dispatch} | {code, …}], accounts}; the caller dispatches.
create function uvian.create_jobs(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s'
as $$
declare
  answer jsonb;
begin
  perform uvian._writing(true);
  answer := uvian._create_jobs(request -> 'jobs', interval '5 s');
  perform uvian._writing(false);
  return answer;
end $$;

revoke all on function
  uvian._create_job(jsonb, interval), uvian._create_jobs(jsonb, interval), uvian.create_jobs(jsonb)
  from public, anon, authenticated;
grant execute on function
  uvian.create_jobs(jsonb)
  to service_role;

notify pgrst, 'reload schema';
