"""The event log, its readers and the control channel."""
