"""The work: executors, stages, imaging, providers."""
