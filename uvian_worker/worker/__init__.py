"""The worker process: its settings for arq, its services, the one task, shutdown, health."""
