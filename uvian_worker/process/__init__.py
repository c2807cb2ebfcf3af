"""What every process of ours has: logs, its start and its shutdown, its health, its stores."""
