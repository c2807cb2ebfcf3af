"""Exit codes, for scripts and orchestrators; ``docs/cli.md`` has the same list."""

from __future__ import annotations

__all__ = ["ExitCode"]

from enum import IntEnum


class ExitCode(IntEnum):
    """What an exit code means."""

    OK = 0
    JOB_FAILED = 1  #: the job was watched and has failed or was cancelled
    USAGE = 2  #: a wrong argument, setting or schema: nothing was done
    UNREACHABLE = 3  #: Redis or Postgres does not answer
    REFUSED = 4  #: the database said no: credits, limits, unknown type, job or user
    NOT_STARTED = 5  #: a server or worker of `demo` or `dev` did not start, or died
    UNEXPECTED = 70  #: a bug of ours
    INTERRUPTED = 130  #: Ctrl-C
