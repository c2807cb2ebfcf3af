-- What the platform owns and we use: the private bucket of the pictures, who reads in it with a
-- token of their own, and the publication of Realtime. What the platform refuses becomes a notice with the
-- dashboard's steps, and everything else works. The steps stand in the message, because nobody shows hints.
-- Each part stands alone: it may be there already, or be made in the dashboard at any time. `uvian migrate` calls
-- _set_up_platform() whenever it runs; platform_state() says what is missing.

-- The steps in the dashboard that make a part.
create or replace function uvian._platform_step(part text) returns text
language sql immutable
set search_path = ''
as $$
  select case part
    when 'bucket' then 'In the dashboard, unless it is there: Storage > New bucket: name uvian-images, not public, file size limit 32 MB, MIME types image/png, image/webp, image/jpeg.'
    when 'public' then 'In the dashboard: Storage > uvian-images > Edit bucket > Public bucket: off.'
    when 'exposed' then 'In the dashboard: Project Settings > Data API > Exposed schemas: add uvian.'
    when 'policy' then 'In the dashboard: Storage > Policies > storage.objects > New policy: name uvian_images_owner, SELECT, role authenticated, definition: bucket_id = ''uvian-images'' and (storage.foldername(name))[1] = (select auth.uid())::text'
    else format('In the dashboard: Database > Publications > supabase_realtime: tick uvian.%s.', part)
  end
$$;

-- Makes the bucket and its policy, or says in a notice what was refused.
create or replace function uvian._set_up_storage() returns void
language plpgsql
set search_path = ''
as $$
declare
  bucket constant jsonb := '{"id": "uvian-images", "name": "uvian-images", "public": false, "file_size_limit": 33554432,
                             "allowed_mime_types": ["image/png", "image/webp", "image/jpeg"]}';
  columns text;
  is_public boolean;
begin
  begin
    -- An older `storage` knows fewer columns; its buckets simply have no such limits.
    select string_agg(format('%I', a.attname), ', ' order by a.attnum) into columns from pg_attribute a
    where a.attrelid = to_regclass('storage.buckets') and a.attnum > 0 and not a.attisdropped and bucket ? a.attname;
    if columns is null then
      return;
    end if;
    execute format('insert into storage.buckets (%1$s) select %1$s from jsonb_populate_record(null::storage.buckets, $1) n
                    where not exists (select from storage.buckets b where b.id = n.id)
                    on conflict do nothing', columns) using bucket;
    execute 'select (to_jsonb(b) ->> ''public'')::boolean from storage.buckets b where b.id = $1'
      into is_public using bucket ->> 'id';
    if is_public then
      raise warning 'The bucket uvian-images is public: whoever knows a path sees the picture. %', uvian._platform_step('public');
    end if;
  exception when insufficient_privilege or undefined_column or not_null_violation or check_violation then
    raise notice 'The bucket uvian-images was not made (%). %', sqlerrm, uvian._platform_step('bucket');
  end;
  begin
    if to_regclass('storage.objects') is null or exists (
      select from pg_policy p where p.polrelid = to_regclass('storage.objects') and p.polname = 'uvian_images_owner'
    ) then
      return;
    end if;
    create policy uvian_images_owner on storage.objects for select to authenticated
      using (bucket_id = 'uvian-images' and (storage.foldername(name))[1] = (select auth.uid())::text);
  exception when insufficient_privilege or undefined_column or undefined_function or lock_not_available then
    raise notice 'The policy uvian_images_owner was not made (%). Workers do without; browsers that read files with the user''s token need it. %', sqlerrm, uvian._platform_step('policy');
  end;
end $$;

-- Supabase Realtime, where there is one that names its tables: those of ours that it lacks.
create or replace function uvian._unpublished() returns setof text
language sql stable
set search_path = ''
as $$
  select t.name
  from pg_publication p, unnest(array['jobs', 'messages']) with ordinality t (name, place),
       to_regclass('uvian.' || t.name) as ours
  where p.pubname = 'supabase_realtime' and not p.puballtables and ours is not null
    and not exists (select from pg_publication_rel r where r.prpubid = p.oid and r.prrelid = ours)
    and not exists (select from pg_publication_namespace n where n.pnpubid = p.oid and n.pnnspid = to_regnamespace('uvian'))
  order by t.place
$$;

-- Adds our tables to the publication of Realtime, or says in a notice what was refused.
create or replace function uvian._publish(wanted text default null) returns void
language plpgsql
set search_path = ''
as $$
declare
  missing text;
begin
  for missing in select m from uvian._unpublished() m where m = coalesce(wanted, m) loop
    begin
      execute format('alter publication supabase_realtime add table uvian.%I', missing);
    exception when insufficient_privilege or lock_not_available then
      raise notice 'uvian.% was not added to the publication supabase_realtime: %. %', missing, sqlerrm, uvian._platform_step(missing);
    end;
  end loop;
end $$;

-- Makes whatever is missing beside the schema.
create or replace function uvian._set_up_platform() returns void
language plpgsql
set search_path = ''
as $$
begin
  perform uvian._set_up_storage();
  perform uvian._publish();
end $$;

-- What is missing of all that, as far as the caller sees it, with the dashboard's steps: {missing: [{part, message}]}.
create or replace function uvian.platform_state(request jsonb default '{}') returns jsonb
language plpgsql stable
set search_path = ''
as $$
declare
  found jsonb := '[]';
  is_public boolean;
  buckets bigint;
  exposed text;
  missing text;
begin
  if exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname = 'storage' and c.relname = 'buckets') then
    begin
      execute 'select bool_or((to_jsonb(b) ->> ''public'')::boolean), count(*) from storage.buckets b where b.id = $1'
        into is_public, buckets using 'uvian-images';
      if is_public then
        found := found || jsonb_build_object('part', 'public', 'message',
          'The bucket uvian-images is public: whoever knows a path sees the picture. ' || uvian._platform_step('public'));
      elsif buckets = 0 and row_security_active('storage.buckets'::regclass) then
        raise insufficient_privilege;
      elsif buckets = 0 then
        found := found || jsonb_build_object('part', 'bucket', 'message',
          'The bucket uvian-images is missing. ' || uvian._platform_step('bucket'));
      end if;
    exception when insufficient_privilege then
      found := found || jsonb_build_object('part', 'bucket', 'message',
        'This role does not see whether the bucket uvian-images is there. ' || uvian._platform_step('bucket'));
    end;
    if not exists (select from pg_policy p join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace
                   where n.nspname = 'storage' and c.relname = 'objects' and p.polname = 'uvian_images_owner') then
      found := found || jsonb_build_object('part', 'policy', 'message',
        'The policy uvian_images_owner is missing: browsers that read files with the user''s token need it. '
        || uvian._platform_step('policy'));
    end if;
  end if;
  for missing in select uvian._unpublished() loop
    found := found || jsonb_build_object('part', missing, 'message',
      format('uvian.%s is not in the publication supabase_realtime: nothing of it is received over Supabase Realtime. ', missing)
      || uvian._platform_step(missing));
  end loop;
  -- Where PostgREST reads its settings from the database; elsewhere nobody sees them from here.
  select substr(setting, length('pgrst.db_schemas=') + 1) into exposed
  from pg_db_role_setting s join pg_roles r on r.oid = s.setrole, unnest(s.setconfig) setting
  where r.rolname = 'authenticator' and setting like 'pgrst.db\_schemas=%'
    and s.setdatabase in (0, (select d.oid from pg_database d where d.datname = current_database()))
  order by s.setdatabase desc limit 1;
  if 'uvian' <> all (regexp_split_to_array(replace(exposed, '"', ''), '\s*,\s*')) then
    found := found || jsonb_build_object('part', 'exposed', 'message',
      'The API does not serve the schema uvian. ' || uvian._platform_step('exposed'));
  end if;
  return jsonb_build_object('missing', found);
end $$;

revoke all on function
  uvian._platform_step(text), uvian._set_up_storage(), uvian._unpublished(), uvian._publish(text),
  uvian._set_up_platform(), uvian.platform_state(jsonb)
  from public, anon, authenticated, service_role;
grant execute on function
  uvian._platform_step(text), uvian._unpublished(), uvian.platform_state(jsonb)
  to service_role;

select uvian._close();
notify pgrst, 'reload schema';
