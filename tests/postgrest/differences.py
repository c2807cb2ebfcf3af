"""Where PostgREST 12, which npm has, differs from PostgREST 14, which the double imitates."""

from __future__ import annotations

__all__ = ["DIFFERENCES", "HANGS"]

from typing import Final

#: By test: why it fails on PostgREST 12. One that passes is a failure, so that a newer one is noticed.
DIFFERENCES: Final = {
    "test_rows_are_filtered_like_a_table": "columns of `returns table` are found from 13 on",
    "test_the_status_follows_the_class[53400-500]": "53400 was 503",
    "test_the_status_follows_the_class[21000-500]": "21000 was 400",
    "test_a_new_function_is_found": "what is not in the cache is looked for again from 13 on",
    "test_columns_are_chosen_cast_and_renamed": "a path's last key, not its index, named the column",
    "test_values_are_never_syntax[ ]": "postgrest-py does not quote a blank (our adapter does)",
    "test_names_are_never_syntax": "an odd name was PGRST100",
    "test_more_rows_than_may_be_affected_are_400_pgrst124": "was an unknown preference, PGRST122",
    "test_update_and_delete_need_a_where": "a setting of Supabase's roles, not of PostgREST",
    "test_an_unknown_table_is_404_pgrst205": "was 404 with 42P01, Postgres's own",
    "test_a_question_that_makes_no_sense[?or=id.eq.1-400-PGRST100]": "was 42703",
    "test_a_question_that_makes_no_sense[?limit=many-400-PGRST100]": "was ignored",
    "test_a_question_that_makes_no_sense[?select=id::text;drop-400-PGRST100]": "was answered",
    "test_a_question_that_makes_no_sense[?select=id,notes(id)-400-PGRST200]": "was answered",
    "test_a_question_that_makes_no_sense[/1-404-PGRST125]": "was 404 without a code",
    "test_what_there_is_no_verb_for_is_405": "was PGRST105",
    "test_the_root_is_closed": "described the schema to everybody; closed by Supabase",
    "test_a_row_may_consist_of_defaults": "an empty object among others meant nulls",
    "test_a_schema_that_is_not_exposed_is_406_pgrst106": "the sentence named what is exposed",
    "test_the_schema_is_chosen_by_the_profile": "an unknown table was 42P01",
}
#: It asks Postgres again, for ever. Only serializable transactions end so, and nobody here begins one.
HANGS: Final = "test_the_status_follows_the_class[40001-500]"
