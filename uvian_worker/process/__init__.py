"""What every process has: logs, start and end, the parts of its health, the choice of stores."""
