"""Migrations in the databases that teams have."""
