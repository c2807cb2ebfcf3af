"""What DESIGN promises of a job's life, on a real Postgres.

What the service and the users call is called over both adapters. Rules that the database alone
decides are tried over Postgres (``over_postgres_only``): credits, limits, turns,
answers, manual edits, storms.
"""
