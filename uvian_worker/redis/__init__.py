"""Redis: its keys, its connections, and what its errors mean."""
