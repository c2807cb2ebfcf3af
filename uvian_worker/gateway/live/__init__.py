"""Live topics for browsers: one subscription per topic and process, however many sockets."""
