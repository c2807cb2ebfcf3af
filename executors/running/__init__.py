"""From a claim to its settlement: the runner, the leases, and how a run ends."""
