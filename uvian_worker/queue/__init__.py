"""The queue between an API and the workers; ``arq_adapter`` is the one folder that knows how arq works."""
