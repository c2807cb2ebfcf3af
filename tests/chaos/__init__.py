"""Faults by chance while jobs run, by the hundred; then the books are checked (``make chaos``)."""
