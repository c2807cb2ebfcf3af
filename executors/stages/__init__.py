"""Steps that several executors share."""
