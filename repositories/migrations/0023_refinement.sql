-- min_code: 0.1.0
-- Refinements, open to browsers as generations and chats are. A team that has such a type already keeps
-- its own row.
insert into uvian.job_types (type, browser) values ('refinement', true) on conflict (type) do nothing;

select uvian._close();
notify pgrst, 'reload schema';
