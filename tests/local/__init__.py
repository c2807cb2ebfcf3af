"""Servers from wheels, and what `uvian dev` writes down."""
