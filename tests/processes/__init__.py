"""Real workers under the ``arq`` command, on real servers, killed at the worst moment."""
