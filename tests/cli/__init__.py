"""The ``uvian`` command."""
