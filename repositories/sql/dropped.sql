-- What a release before this one had, and this one has no more: functions that were taken out of their file, or
-- whose arguments or answer changed (`create or replace` would leave the old one beside the new one, or refuse),
-- and the row of a file that was renamed. First of all, so that whoever calls notices nothing: the new one is
-- there when the transaction ends. Always `if exists`: most databases never had it.
--
-- A function that the release before still calls, from SQL too, is dropped one release later: calls that are under
-- way have read the text of their own function, and would miss it. A trigger or a policy is dropped
-- in its table's file; a table, a column or a type by a numbered migration.
--
--   drop function if exists uvian._old(jsonb);
--   delete from uvian.schema_migrations where name = 'functions/old';

notify pgrst, 'reload schema';
