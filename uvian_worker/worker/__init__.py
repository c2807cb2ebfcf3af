"""The worker process: its settings for arq, the object graph, the one task."""
