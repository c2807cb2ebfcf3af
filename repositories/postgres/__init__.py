"""Postgres over connections of asyncpg."""

__all__ = ["Listener", "PostgresDatabase"]

from repositories.postgres.database import PostgresDatabase
from repositories.postgres.notifications import Listener
