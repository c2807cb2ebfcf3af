"""Redis: its keys, clients and connections, what its errors mean, what its user may do."""
