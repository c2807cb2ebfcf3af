"""A Supabase project over its API: PostgREST and Storage."""

__all__ = ["Supabase", "SupabaseDatabase", "SupabaseImages", "connect_supabase"]

from repositories.supabase.client import Supabase, connect_supabase
from repositories.supabase.database import SupabaseDatabase
from repositories.supabase.images import SupabaseImages
