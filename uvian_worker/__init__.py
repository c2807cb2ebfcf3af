"""Processes and wires: the only package that knows arq and the keys in Redis."""
