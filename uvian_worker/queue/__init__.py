"""The queue between an API and the workers, and the one file that knows how arq works."""
