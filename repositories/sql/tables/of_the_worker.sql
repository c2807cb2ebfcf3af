-- What nobody but the worker sees: the service reads it, functions write it.

revoke all on
  uvian.schema_migrations, uvian.job_leases, uvian.job_state, uvian.job_runs, uvian.workers, uvian.sweeps, uvian.files
  from public, anon, authenticated, service_role;
grant select on
  uvian.schema_migrations, uvian.job_leases, uvian.job_state, uvian.job_runs, uvian.workers, uvian.sweeps, uvian.files
  to service_role;

notify pgrst, 'reload schema';
