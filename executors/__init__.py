"""The work: what each type of job does, with no arq, no Redis and no environment in sight."""
