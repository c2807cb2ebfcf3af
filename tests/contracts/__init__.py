"""Suites that every implementation of a port passes: one promise, one suite."""
