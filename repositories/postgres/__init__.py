"""Postgres over a connection of asyncpg."""
