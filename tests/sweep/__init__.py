"""The loop that heals."""
