"""What every process has: health, loop, adapters, a check of the project."""
