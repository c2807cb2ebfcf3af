"""What all packages share: backoff, reading of a database's errors, secrets that stay secret."""
