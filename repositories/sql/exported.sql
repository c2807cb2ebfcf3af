-- uvian-migration: {{label}} sha256:{{checksum}} release:{{release}}
--
-- Written by `uvian migrate --export`, for the Supabase CLI. It leaves what `uvian migrate` leaves: the
-- schema, and a row in uvian.schema_migrations; where that row is there already, nothing happens.
-- The file may get another timestamp. Its text is never edited: the checksum is compared.
do ${{outer}}$
declare
  body constant text := pg_catalog.replace(${{inner}}${{sql}}${{inner}}$, E'\r\n', E'\n');
  label constant text := '{{label}}';
  version constant bigint := {{version}};  -- null: it is applied again when its text has changed
  checksum constant text := '{{checksum}}';
  search_path constant text := pg_catalog.current_setting('search_path');
  lock_timeout constant text := pg_catalog.current_setting('lock_timeout');
  client_min_messages constant text := pg_catalog.current_setting('client_min_messages');
  owner name;
  applied record;
  applied_before text;
begin
  perform pg_catalog.set_config('search_path', '', true);
  perform set_config('client_min_messages', 'notice', true), set_config('lock_timeout', '0', true);
  perform pg_advisory_xact_lock({{lock}});
  perform set_config('lock_timeout', '{{lock_timeout}}', true);

  select pg_get_userbyid(n.nspowner) into owner from pg_namespace n where n.nspname = 'uvian';
  select null::text as checksum, null::integer[] as release into applied;
  if to_regclass('uvian.schema_migrations') is not null then
    select m.checksum, string_to_array(substring(m.release from '^\d+(?:\.\d+)*'), '.')::integer[] as release
      into applied from uvian.schema_migrations m where m.name = label;
    select m.checksum into applied_before from uvian.schema_migrations m where m.name = '{{label_before}}';
  end if;

  if encode(sha256(convert_to(body, 'UTF8')), 'hex') <> checksum then
    raise exception '% was edited after its export. Restore the file, and put the change into a migration of your own.', label;
  elsif applied.checksum = checksum then
    raise notice '% is applied already.', label;
  elsif version is not null and applied.checksum is not null then
    raise exception '% was applied to this database with another text. Export it again with the release that applied it.', label;
  elsif applied.release > '{{{release_numbers}}}'::integer[] then
    raise notice '% is there already, as a newer release has it.', label;
  elsif applied_before is distinct from {{checksum_before}} then
    raise exception '% comes after {{label_before}}, which this database does not have as this release knows it. Restore its file, or run `uvian migrate`.', label;
  elsif owner <> current_user then
    raise exception 'The schema uvian belongs to %, and this connection is %: connect as %.', owner, current_user, owner;
  else
    execute body;
    insert into uvian.schema_migrations as h (name, version, checksum, min_code, release)
      values (label, version, checksum, {{min_code}}, '{{release}}')
      on conflict (name) do update set checksum = excluded.checksum, release = excluded.release, applied_at = now();
  end if;

  -- Whatever else is in this transaction is not ours.
  perform set_config('client_min_messages', client_min_messages, true), set_config('lock_timeout', lock_timeout, true),
          set_config('search_path', search_path, true);
end ${{outer}}$;
