-- min_code: 0.1.0
-- The files of variations, as those of concepts (0030): a migration changes one table in use.

create trigger files_deleted after delete on uvian.concept_variations
  for each row execute function uvian._check_files();

notify pgrst, 'reload schema';
