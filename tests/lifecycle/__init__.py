"""What DESIGN promises of a job's life, on a real Postgres."""
