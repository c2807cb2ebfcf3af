"""From a claim to its settlement: how a job runs, and how its run ends.

runner.py           the path of each run, and the end of the process
claim.py            where a run is claimed
context.py          what its executor gets: input, services, checkpoints
allowances.py       what the operator allows of the type, checked once more
execution.py        the executor runs under its deadline; what it raises becomes an outcome
retry.py            which outcome an error is, and when the job runs again
outcomes.py         how a run can end
settlement.py       where a run is settled, and its terminal events are published
terminal_events.py  its terminal events
active_runs.py      the runs of this process, and how each is stopped
leases.py           their renewal: where a lost lease is noticed
"""
