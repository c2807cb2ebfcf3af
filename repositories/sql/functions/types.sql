-- What the types are (the newest release says it), what the operator says of them, and which workers there are.

-- Makes a worker and its types known; the newest release says what a type is.
-- {worker, release, types: [{type, input_schema?, timeout_seconds?, max_attempts?}]} → {}
-- The newest release says what a type is; what the operator says of it stays.
create or replace function uvian.register_worker(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
begin
  insert into uvian.job_types as t (type, input_schema, timeout_seconds, max_attempts, release)
    select e ->> 'type', coalesce(e -> 'input_schema', '{}'),
           coalesce((e ->> 'timeout_seconds')::double precision, 300),
           coalesce((e ->> 'max_attempts')::integer, 3), coalesce(request ->> 'release', '0')
    from jsonb_array_elements(request -> 'types') e order by 1
    on conflict (type) do update
      set input_schema = excluded.input_schema, timeout_seconds = excluded.timeout_seconds,
          max_attempts = excluded.max_attempts, release = excluded.release
      where uvian._release_number(excluded.release) >= uvian._release_number(t.release)
        and (t.input_schema, t.timeout_seconds, t.max_attempts, t.release) is distinct from
            (excluded.input_schema, excluded.timeout_seconds, excluded.max_attempts, excluded.release);
  insert into uvian.workers as w (name, types, release)
    values (request ->> 'worker',
            array(select e ->> 'type' from jsonb_array_elements(request -> 'types') e),
            coalesce(request ->> 'release', '0'))
    on conflict (name) do update set types = excluded.types, release = excluded.release, last_seen = now();
  delete from uvian.workers w where w.last_seen < now() - interval '7 days';
  return '{}';
end $$;

-- Forgets a worker that stops in good order.
-- {worker} → {}: it stops in good order and will not be waited for.
create or replace function uvian.retire_worker(request jsonb) returns jsonb
language sql security definer
set search_path = ''
as $$
  delete from uvian.workers w where w.name = request ->> 'worker';
  select '{}'::jsonb
$$;

-- A release as numbers that compare.
create or replace function uvian._release_number(of_release text) returns integer[]
language sql immutable
set search_path = ''
as $$
  select coalesce(string_to_array((regexp_match(of_release, '\d{1,9}(?:\.\d{1,9})*'))[1], '.')::integer[], '{0}')
$$;

-- Sets what the operator says of types; all or nothing.
-- {types: [{type, enabled?, browser?, anonymous?, max_input_bytes?, max_queued_per_user?, max_running_per_user?,
--           models?, max_tokens?, system_prompt?, price?}]} → {types: [the same, whole]}
-- What the operator says of types: what is named is set, null lifts a limit or takes a price away, everything
-- else stays. All or nothing.
create or replace function uvian.configure_types(request jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set lock_timeout = '1s' set plan_cache_mode = force_generic_plan
as $$
declare
  unknown text := (select e ->> 'type' from jsonb_array_elements(request -> 'types') e
                   where not exists (select from uvian.job_types t where t.type = e ->> 'type') limit 1);
begin
  if unknown is not null then
    raise exception using errcode = 'PT422', message = 'unknown_type',
      detail = format('There is no job type %L: a worker that has it makes it known when it starts.', unknown);
  end if;
  update uvian.job_types t
    set enabled = coalesce((e ->> 'enabled')::boolean, t.enabled),
        browser = coalesce((e ->> 'browser')::boolean, t.browser),
        anonymous = coalesce((e ->> 'anonymous')::boolean, t.anonymous),
        max_input_bytes = coalesce((e ->> 'max_input_bytes')::integer, t.max_input_bytes),
        max_queued_per_user = case when e ? 'max_queued_per_user' then (e ->> 'max_queued_per_user')::integer
                                   else t.max_queued_per_user end,
        max_running_per_user = case when e ? 'max_running_per_user' then (e ->> 'max_running_per_user')::integer
                                    else t.max_running_per_user end,
        models = case jsonb_typeof(e -> 'models') when 'array' then array(select jsonb_array_elements_text(e -> 'models'))
                                                  when 'null' then null else t.models end,
        max_tokens = case when e ? 'max_tokens' then (e ->> 'max_tokens')::integer else t.max_tokens end,
        system_prompt = case when e ? 'system_prompt' then e ->> 'system_prompt' else t.system_prompt end
    from jsonb_array_elements(request -> 'types') e where t.type = e ->> 'type';
  insert into uvian.job_prices as p (type, amount)
    select e ->> 'type', (e ->> 'price')::numeric from jsonb_array_elements(request -> 'types') e
    where e ->> 'price' is not null
    on conflict (type) do update set amount = excluded.amount;
  delete from uvian.job_prices p using jsonb_array_elements(request -> 'types') e
    where p.type = e ->> 'type' and jsonb_typeof(e -> 'price') = 'null';
  return jsonb_build_object('types', (
    select coalesce(jsonb_agg(uvian._type(t) order by t.type), '[]') from uvian.job_types t
    where t.type in (select e ->> 'type' from jsonb_array_elements(request -> 'types') e)));
end $$;

-- What the operator says of every type.
-- {} → {types: [as configure_types answers]}: all of them.
create or replace function uvian.list_types(request jsonb) returns jsonb
language plpgsql stable security definer
set search_path = '' set lock_timeout = '1s'
as $$
begin
  return jsonb_build_object('types', (
    select coalesce(jsonb_agg(uvian._type(t) order by t.type), '[]') from uvian.job_types t));
end $$;

-- What the operator says of a type, its price included.
create or replace function uvian._type(t uvian.job_types) returns jsonb
language plpgsql stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'type', t.type, 'enabled', t.enabled, 'browser', t.browser, 'anonymous', t.anonymous,
    'max_input_bytes', t.max_input_bytes, 'max_queued_per_user', t.max_queued_per_user,
    'max_running_per_user', t.max_running_per_user, 'models', t.models, 'max_tokens', t.max_tokens,
    'system_prompt', t.system_prompt,
    'price', (select p.amount::text from uvian.job_prices p where p.type = t.type));
end $$;

-- Jobs whose type is gone would wait for ever: nobody could say that no worker knows it.
create or replace function uvian._keep_used_types() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  if exists (select from uvian.jobs j where j.type = old.type and j.status in ('queued', 'processing')) then
    raise exception using errcode = 'PT409', message = 'type_in_use',
      detail = format('There are open jobs of type %L: set enabled to false instead, or end them first.', old.type);
  end if;
  return old;
end $$;

revoke all on function
  uvian.register_worker(jsonb), uvian.retire_worker(jsonb), uvian._release_number(text),
  uvian.configure_types(jsonb), uvian.list_types(jsonb), uvian._type(uvian.job_types), uvian._keep_used_types()
  from public, anon, authenticated, service_role;
grant execute on function
  uvian.register_worker(jsonb), uvian.retire_worker(jsonb), uvian.configure_types(jsonb),
  uvian.list_types(jsonb)
  to service_role;

select uvian._close();
notify pgrst, 'reload schema';
