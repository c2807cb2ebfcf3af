"""A Supabase project over its API: PostgREST and Storage."""
