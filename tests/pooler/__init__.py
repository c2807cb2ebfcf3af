"""The transaction pooler: everything but LISTEN and migrations works through it."""
