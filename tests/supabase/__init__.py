"""A small Supabase: the real Postgres behind what supabase-py and storage3 expect to talk to."""
