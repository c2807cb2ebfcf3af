"""Live topics: queues, feeds, sessions, sockets."""
