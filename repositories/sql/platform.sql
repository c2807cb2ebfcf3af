-- What the platform owns (functions/platform.sql): made as far as it lets us, else a notice with the steps.

do $$
begin
  if to_regclass('storage.buckets') is null then
    raise notice 'There is no Supabase Storage in this database: no bucket was made. Pictures need one, or a folder (UVIAN_IMAGES_DIR).';
  end if;
exception when insufficient_privilege then
  null;  -- there is one, and that it is closed is said below
end $$;
select uvian._set_up_platform();

notify pgrst, 'reload schema';
