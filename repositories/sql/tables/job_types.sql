-- The operator's: the service writes them. Limits that change are followed; a type with open jobs stays.

revoke all on uvian.job_types, uvian.job_prices from public, anon, authenticated, service_role;
grant select, insert, update, delete on uvian.job_types, uvian.job_prices to service_role;

create or replace trigger limit_changed after update of max_running_per_user on uvian.job_types
  for each row when (old.max_running_per_user is distinct from new.max_running_per_user)
  execute function uvian._limit_changed();

create or replace trigger deleted before delete on uvian.job_types
  for each row execute function uvian._keep_used_types();

notify pgrst, 'reload schema';
