"""arq's view of the worker."""
