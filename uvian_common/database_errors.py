"""What a database's answer means: the one table of SQLSTATEs, PostgREST's codes and HTTP statuses.

The adapters, the Python client and the TypeScript client read it; the last one's copy is generated
(``scripts/generate_typescript.py``). Each of them has its own errors for a ``Fault``, and none
classifies an answer by itself.
"""

from __future__ import annotations

__all__ = ["CODES", "PASSING_STATUSES", "Fault", "fault_of", "fault_of_answer", "status_passes"]

import re
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """What went wrong, and whether the same call may succeed a moment later."""

    AWAY = "away"  #: no connection, stopping, full, read-only, reply lost: repeat it
    LOCKED = "locked"  #: a lock was not free in time: repeat it
    SLOW = "slow"  #: the server's statement timeout; the same statement would meet it again
    SCHEMA = "schema"  #: migrations are missing, or older or newer than the caller
    NOT_EXPOSED = "not_exposed"  #: the API does not serve the schema
    NOT_GRANTED = "not_granted"  #: role or password; a privilege that is missing
    KEY = "key"  #: the API refuses the key
    ADDRESS = "address"  #: what answers is not the database, project or API that was meant
    REFUSED = "refused"  #: a function of the schema said no
    CONFLICT = "conflict"  #: a row with this key exists
    DATA = "data"  #: a value that the database does not take
    NOT_FOUND = "not_found"  #: no such row
    UNKNOWN = "unknown"  #: a mistake of ours, or a server that is broken


#: By code, or by how codes begin; the longest entry decides.
CODES: Final[dict[str, Fault]] = {
    "08": Fault.AWAY,  # connections
    "22": Fault.DATA,
    "23": Fault.DATA,
    "23505": Fault.CONFLICT,
    "25006": Fault.AWAY,  # a standby about to be promoted; a project that is read-only for its disk
    "25P02": Fault.AWAY,  # a transaction that another client of the pooler left behind
    "25P03": Fault.AWAY,  # … and what the server does about it
    "25P04": Fault.SLOW,  # transaction_timeout, of PostgreSQL 17
    "26000": Fault.AWAY,  # a pooler that changed servers in the middle of a statement
    "42P05": Fault.AWAY,
    "28": Fault.NOT_GRANTED,  # roles and passwords
    "3D000": Fault.ADDRESS,
    "3F000": Fault.SCHEMA,
    "40": Fault.AWAY,  # serialisation, deadlock, a commit whose outcome is unknown
    "40002": Fault.DATA,
    "42501": Fault.NOT_GRANTED,
    "42703": Fault.SCHEMA,
    "42804": Fault.AWAY,  # a migration that widens a table while a function returns its rows
    "42883": Fault.SCHEMA,
    "42P01": Fault.SCHEMA,
    "53": Fault.AWAY,  # connections, memory, disk
    "54": Fault.DATA,  # too deep, too large
    "55006": Fault.AWAY,  # in use
    "55P03": Fault.LOCKED,
    "57": Fault.AWAY,  # starting, stopping, crashed, idle for too long
    "57014": Fault.SLOW,
    "57P04": Fault.ADDRESS,  # the database was dropped
    "58": Fault.AWAY,  # the machine: I/O errors
    "72": Fault.AWAY,  # a snapshot that is too old
    "P0001": Fault.REFUSED,
    "PT": Fault.REFUSED,
    "PGRST00": Fault.AWAY,  # PostgREST has no connection, or is reading the schema
    "PGRST100": Fault.DATA,
    "PGRST102": Fault.DATA,
    "PGRST106": Fault.NOT_EXPOSED,
    "PGRST116": Fault.NOT_FOUND,
    "PGRST125": Fault.ADDRESS,
    "PGRST202": Fault.SCHEMA,
    "PGRST203": Fault.SCHEMA,
    "PGRST204": Fault.SCHEMA,
    "PGRST205": Fault.SCHEMA,
    "PGRST30": Fault.KEY,
}

#: Codes under which poolers and Postgres put several things: the sentence decides.
WORDED: Final = r"^(08|XX000$|0A000$)"
#: … what no repetition helps against: Supavisor's and PgBouncer's words for a wrong connection string,
MISTAKEN: Final = (
    r"tenant.*(not found|banned)|no tenant|user.* not found|no such (user|database)"
    r"|database .*does not exist|auth(entication)? failed|(ssl|tls).*required|allow_?list|not allowed"
    r"|unsupported startup parameter|invalid format|not supported|no auth_query|config error"
)
#: … and what passes: a pooler without a connection to give, or with one that broke; a catalogue that
#: changed under a statement.
PASSING: Final = (
    r"^\(E[A-Z]+\)|max.*(clients|connections)|too many|dbhandler|check(ing)? out|\bpool|terminat"
    r"|timeout|timed out|shut ?down|connect|sending query|control plane"
    r"|tuple concurrently|cache lookup failed|cached plan|could not open relation"
)

#: Statuses that are no fault of the request; whatever is 500 or more is none either.
PASSING_STATUSES: Final = (408, 423, 425, 429)


def status_passes(status: int) -> bool:
    """Whether the same request may succeed a moment later, going by the status alone."""
    return status >= 500 or status in PASSING_STATUSES


def fault_of(code: str, message: str = "", *, fatal: bool = False) -> Fault:
    """The meaning of an SQLSTATE or a code of PostgREST's, and the sentence that came with it.

    ``fatal``: the server ended the connection with it, as poolers do for troubles of their own.
    """
    if re.search(WORDED, code):
        if re.search(MISTAKEN, message, re.IGNORECASE):
            return Fault.ADDRESS
        if fatal or re.search(PASSING, message, re.IGNORECASE):
            return Fault.AWAY
    for length in range(len(code), 1, -1):
        if code[:length] in CODES:
            return CODES[code[:length]]
    return Fault.UNKNOWN


def fault_of_answer(  # noqa: PLR0911 - a table
    code: str, message: str = "", *, status: int | None = None, body: bool = True
) -> Fault:
    """The meaning of an answer over HTTP: PostgREST's own, a gateway's before it, or somebody else's.

    Where an answer has no code, a status may stand in its place; ``body``: it had one.
    """
    if code.isdecimal() and len(code) == 3:
        status, code = int(code), ""
    if code:
        return fault_of(code, message)
    if "API key" in message or message == "Unauthorized":
        return Fault.KEY
    if message.startswith("no Route matched"):
        return Fault.ADDRESS
    if status is None or status_passes(status):
        return Fault.AWAY
    if status in (401, 403):
        return Fault.KEY
    if status in (413, 414):
        return Fault.DATA
    # A pooled connection after a crash of Postgres: HTTP 400, and nothing in it.
    return Fault.AWAY if status == 400 and not body else Fault.ADDRESS
