"""The tests, by cost: `unit` without servers, `database` on real ones, `processes` with workers to kill."""
