-- min_code: 0.1.0
-- The private bucket of the pictures. The platform owns `storage`: where it refuses these statements
-- they become a notice with the dashboard's steps, and everything else works.

do $$
begin
  insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
    values ('uvian-images', 'uvian-images', false, 33554432,
            array['image/png', 'image/webp', 'image/jpeg'])
    on conflict (id) do nothing;
  if not exists (select from pg_catalog.pg_policies p
                 where p.schemaname = 'storage' and p.tablename = 'objects'
                   and p.policyname = 'uvian_images_owner') then
    create policy uvian_images_owner on storage.objects for select to authenticated
      using (bucket_id = 'uvian-images'
             and (storage.foldername(name))[1] = (select auth.uid())::text);
  end if;
exception
  when insufficient_privilege or undefined_table or undefined_column or invalid_schema_name then
    raise notice using message = 'The bucket uvian-images was not set up: ' || sqlerrm,
      hint = 'In the dashboard: Storage > New bucket "uvian-images" (private, 32 MB, image/png, image/webp, image/jpeg); '
             'then Policies > objects > SELECT for authenticated: '
             'bucket_id = ''uvian-images'' and (storage.foldername(name))[1] = auth.uid()::text.';
end $$;

notify pgrst, 'reload schema';
