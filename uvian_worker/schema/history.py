"""What the files of a release are, and what a ledger says of them: no connection, no SQL is run.

A file is named ``NNNN_name.sql`` and begins with ``-- min_code: X.Y.Z``: the oldest release that
still works on the schema after it. The first file creates the ledger ``uvian.schema_migrations``.
"""

from __future__ import annotations

__all__ = [
    "LOCK",
    "LOCK_TIMEOUT",
    "Applied",
    "Finding",
    "Migration",
    "SchemaStatus",
    "Setup",
    "compare",
    "findings",
    "load",
]

import hashlib
import importlib.metadata
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import repositories
from repositories.errors import Misconfigured, SchemaMissing

#: Any number, as long as it is always this one: who migrates this database excludes the others.
LOCK: Final = 8_234_650_917_312_001

#: Never for longer than this behind a running query: everybody else's would queue up behind us.
LOCK_TIMEOUT: Final = "5s"

_FOLDER = Path(repositories.__file__).parent / "sql"
_FIRST_ORDERED: Final = 101
_STEP: Final = " In the dashboard"  #: begins the second half of what a finding or a notice says
_FILE_NAME = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
_MIN_CODE = re.compile(r"-- min_code: (\d+\.\d+\.\d+)\r?\n")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of this release."""

    version: int
    name: str  #: without number and extension
    checksum: str  #: sha256 of the text with unix line endings
    min_code: str
    sql: str

    @property
    def label(self) -> str:
        """The file's name without its extension."""
        return f"{self.version:04d}_{self.name}"


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of the ledger."""

    version: int
    name: str
    checksum: str
    min_code: str
    applied_at: datetime

    @property
    def label(self) -> str:
        """The file's name without its extension."""
        return f"{self.version:04d}_{self.name}"


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """The ledger compared with the files of a release."""

    release: str
    applied: tuple[Applied, ...]
    pending: tuple[Migration, ...]
    changed: tuple[str, ...]  #: labels whose file differs from what was applied
    unknown: tuple[Applied, ...]  #: applied by a newer release

    @property
    def needs_release(self) -> str | None:
        """The release that this database asks for at least; None when this one will do."""
        needed = max((row.min_code for row in self.unknown), key=_numbers, default=self.release)
        return needed if _numbers(needed) > _numbers(self.release) else None

    def require_mergeable(self) -> None:
        """Raise ``Misconfigured`` unless pending files may be applied on top."""
        if self.needs_release is not None:
            raise Misconfigured(
                f"The database was migrated by a newer release and needs uvian-worker "
                f"{self.needs_release} or newer; this is {self.release}. Upgrade this installation."
            )
        if self.changed:
            differ = "differs" if len(self.changed) == 1 else "differ"
            raise Misconfigured(
                f"{', '.join(self.changed)} {differ} from what was applied to this database. An "
                "applied migration is never edited: restore the file (reinstall uvian-worker) and "
                "put the change into a new one."
            )

    def require_usable(self) -> None:
        """Raise unless this release can work on the database; what is changed but there will do.

        ``SchemaMissing`` when migrations are missing, ``Misconfigured`` when it is too new.
        """
        if self.pending:
            labels = ", ".join(migration.label for migration in self.pending)
            what = "is too old for this release" if self.applied else "does not exist"
            raise SchemaMissing(f"The schema uvian {what}: run `uvian migrate` ({labels}).")
        if self.needs_release is not None:
            self.require_mergeable()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a project lacks beside the schema, as ``uvian.platform_state()`` says it."""

    part: str  #: bucket, public, policy, exposed, or a table that is not published
    message: str  #: what is missing, then the dashboard's steps

    @property
    def problem(self) -> str:
        """What is missing."""
        return self.message.partition(_STEP)[0]

    @property
    def step(self) -> str:
        """Where to click."""
        _, found, rest = self.message.partition(_STEP)
        return f"{found}{rest}".strip()


@dataclass(frozen=True, slots=True)
class Setup:
    """A project as it is: its schema, and what it lacks beside that."""

    schema: SchemaStatus
    missing: tuple[Finding, ...]


def findings(answer: Mapping[str, Any]) -> tuple[Finding, ...]:
    """What ``uvian.platform_state()`` has answered."""
    return tuple(Finding(each["part"], each["message"]) for each in answer["missing"])


def load(directory: Path | None = None) -> tuple[Migration, ...]:
    """The migrations of a folder (by default this release's), ordered by version.

    Raises ``ValueError`` for a misnamed file, a number used twice or a header without ``min_code``.
    """
    source = directory or _FOLDER
    in_order = source / "order.txt"
    files = sorted((source / "migrations" if in_order.exists() else source).glob("*.sql"))
    migrations = tuple(_read(path) for path in files)
    if in_order.exists():
        migrations += tuple(_ordered(source))
    for one, other in itertools.pairwise(migrations):
        if one.version == other.version:
            raise ValueError(f"{one.label} and {other.label} have the same number.")
    return migrations


def compare(
    ledger: Sequence[Applied], migrations: Sequence[Migration], *, release: str | None = None
) -> SchemaStatus:
    """Judge a ledger (read over any transport) against the files of a release."""
    rows = {row.version: row for row in ledger}
    known = {migration.version for migration in migrations}
    return SchemaStatus(
        release=release or importlib.metadata.version("uvian-worker"),
        applied=tuple(sorted(ledger, key=lambda row: row.version)),
        pending=tuple(migration for migration in migrations if migration.version not in rows),
        changed=tuple(
            migration.label
            for migration in migrations
            if migration.version in rows and rows[migration.version].checksum != migration.checksum
        ),
        unknown=tuple(row for row in ledger if row.version not in known),
    )


def _ordered(source: Path) -> Iterator[Migration]:
    """What follows the numbered files, as ``order.txt`` says: functions, tables, the platform's part."""
    lines = (source / "order.txt").read_text(encoding="utf-8").splitlines()
    names = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    for number, name in enumerate(names, _FIRST_ORDERED):
        text = (source / f"{name}.sql").read_text(encoding="utf-8").replace("\r\n", "\n")
        sql = f"-- min_code: 0.1.0\n{text}"
        checksum = hashlib.sha256(sql.encode()).hexdigest()
        yield Migration(number, name.replace("/", "_"), checksum, "0.1.0", sql)


def _read(path: Path) -> Migration:
    named = _FILE_NAME.fullmatch(path.name)
    if named is None:
        raise ValueError(f"{path.name}: a migration is named NNNN_name.sql, in lower case.")
    sql = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    header = _MIN_CODE.match(sql)
    if header is None:
        raise ValueError(f"{path.name}: the first line must read `-- min_code: X.Y.Z`.")
    checksum = hashlib.sha256(sql.encode()).hexdigest()
    return Migration(int(named["version"]), named["name"], checksum, header[1], sql)


def _numbers(release: str) -> tuple[int, ...]:
    """``1.10.0rc1`` → (1, 10, 0): enough to order the releases a ledger names."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:3])
