"""The ``local`` provider: it draws and talks without a network, a key or a model."""
