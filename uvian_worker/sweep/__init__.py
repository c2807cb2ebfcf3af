"""The loop that heals, and what an answer of the database asks of Redis."""
