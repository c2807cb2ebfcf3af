"""How a run ends, on the real database."""
