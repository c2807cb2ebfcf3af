"""Connections: permissions, TLS, clocks, and every way in which a Redis is away."""
