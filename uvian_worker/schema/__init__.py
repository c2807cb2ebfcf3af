"""The schema ``uvian``: applied, exported, compared with what a release needs."""
