-- min_code: 0.1.0
-- The private bucket of the pictures, and who reads in it with a token of their own. The platform owns
-- `storage`: what it refuses becomes a notice with the dashboard's steps, and everything else works.
-- The steps stand in the message, because the Supabase CLI shows no hints. Bucket and policy stand
-- alone: each may be there already, or be made by hand at any time. (0012 never left development.)

do $$
declare
  bucket constant jsonb := '{"id": "uvian-images", "name": "uvian-images", "public": false, "file_size_limit": 33554432,
                             "allowed_mime_types": ["image/png", "image/webp", "image/jpeg"]}';
  columns text;
  is_public boolean;
begin
  -- An older `storage` knows fewer columns; its buckets simply have no such limits.
  select string_agg(format('%I', a.attname), ', ' order by a.attnum) into columns from pg_attribute a
  where a.attrelid = to_regclass('storage.buckets') and a.attnum > 0 and not a.attisdropped and bucket ? a.attname;
  if columns is null then
    raise notice 'There is no Supabase Storage in this database: no bucket was made. Pictures need one, or a folder (UVIAN_IMAGES_DIR).';
    return;
  end if;
  execute format('insert into storage.buckets (%1$s) select %1$s from jsonb_populate_record(null::storage.buckets, $1)
                  on conflict do nothing', columns) using bucket;
  execute 'select (to_jsonb(b) ->> ''public'')::boolean from storage.buckets b where b.id = $1'
    into is_public using bucket ->> 'id';
  if is_public then
    raise warning 'The bucket uvian-images is public: whoever knows a path sees the picture. In the dashboard: Storage > uvian-images > Edit bucket > Public bucket: off.';
  end if;
exception when insufficient_privilege or undefined_column or not_null_violation or check_violation then
  raise notice 'The bucket uvian-images was not made (%). In the dashboard, unless it is there: Storage > New bucket: name uvian-images, not public, file size limit 32 MB, MIME types image/png, image/webp, image/jpeg.', sqlerrm;
end $$;

do $$
begin
  if to_regclass('storage.objects') is null or exists (
    select from pg_policy p where p.polrelid = to_regclass('storage.objects') and p.polname = 'uvian_images_owner'
  ) then
    return;
  end if;
  create policy uvian_images_owner on storage.objects for select to authenticated
    using (bucket_id = 'uvian-images' and (storage.foldername(name))[1] = (select auth.uid())::text);
exception when insufficient_privilege or undefined_column or undefined_function then
  raise notice 'The policy uvian_images_owner was not made (%). Workers do without; browsers that read files with the user''s token need it. In the dashboard: Storage > Policies > storage.objects > New policy: name uvian_images_owner, SELECT, role authenticated, definition: bucket_id = ''uvian-images'' and (storage.foldername(name))[1] = (select auth.uid())::text', sqlerrm;
end $$;

notify pgrst, 'reload schema';
