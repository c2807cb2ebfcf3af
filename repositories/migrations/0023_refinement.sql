-- min_code: 0.1.0
-- Refinements, closed as every type is until the operator opens it. A team that has such a type already
-- keeps its own row.
insert into uvian.job_types (type) values ('refinement') on conflict (type) do nothing;

select uvian._close();
notify pgrst, 'reload schema';
