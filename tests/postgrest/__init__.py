"""What the double of a project passes, a real PostgREST passes too; and our adapter works on it."""
