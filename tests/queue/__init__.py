"""The queue contract, and arq on top of it."""
