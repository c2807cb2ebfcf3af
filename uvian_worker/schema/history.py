"""What the files of a release are, and what a migration history says of them: no connection, no SQL is run.

A release is a folder like ``repositories/sql``. ``migrations/NNNN_name.sql`` are applied once; each
begins with ``-- min_code: X.Y.Z``, the oldest release that still works on the schema after it. What
``order.txt`` names (functions, triggers, policies, grants) is the current truth, and is applied again
when its text has changed. The history is the table ``uvian.schema_migrations``, which the first
migration creates.
"""

from __future__ import annotations

__all__ = [
    "COLUMNS",
    "LOCK",
    "LOCK_TIMEOUT",
    "Applied",
    "Finding",
    "Migration",
    "Release",
    "Repeatable",
    "SchemaStatus",
    "Setup",
    "Step",
    "compare",
    "findings",
    "load",
    "numbers",
]

import hashlib
import importlib.metadata
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import repositories
from repositories.errors import Misconfigured, SchemaMissing

#: Any number, as long as it is always this one: who migrates this database excludes the others.
LOCK: Final = 8_234_650_917_312_001

#: Never for longer than this behind a running query: everybody else's would queue up behind us.
LOCK_TIMEOUT: Final = "5s"

#: Of a row of the history, over any transport.
COLUMNS: Final = ("name", "version", "checksum", "min_code", "release", "applied_at")

_FOLDER = Path(repositories.__file__).parent / "sql"
_STEP: Final = " In the dashboard"  #: begins the second half of what a finding or a notice says
_FILE_NAME = re.compile(r"(?P<version>\d{4})_[a-z0-9_]+\.sql")
_MIN_CODE = re.compile(r"-- min_code: (\d+\.\d+\.\d+)\r?\n")


@dataclass(frozen=True, slots=True)
class Migration:
    """A numbered file: applied once, never edited."""

    version: int
    label: str  #: the file's name without its extension, which begins with the number
    checksum: str  #: sha256 of the text with unix line endings
    min_code: str
    sql: str


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A file that ``order.txt`` names: applied again when its text has changed."""

    label: str  #: its path in the folder, without its extension
    checksum: str
    sql: str


#: What one transaction applies, in order.
Step: TypeAlias = "tuple[Migration | Repeatable, ...]"


@dataclass(frozen=True, slots=True)
class Release:
    """All files of a release."""

    version: str
    migrations: tuple[Migration, ...]
    #: By transaction: those of the first are applied in that of the last migration. See ``order.txt``.
    repeatable: tuple[tuple[Repeatable, ...], ...]

    @property
    def files(self) -> Step:
        """All of them, in the order in which a fresh database gets them."""
        return (*self.migrations, *itertools.chain.from_iterable(self.repeatable))

    @property
    def steps(self) -> tuple[Step, ...]:
        """What a fresh database gets, by transaction."""
        return compare((), self).steps


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of the history: a file, as it was applied last."""

    name: str  #: its label
    version: int | None  #: None: a repeatable file
    checksum: str
    min_code: str | None
    release: str  #: which applied it
    applied_at: datetime


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """The history compared with the files of a release."""

    release: str
    applied: tuple[Applied, ...]
    steps: tuple[Step, ...]  #: what is to be applied, by transaction
    outdated: tuple[str, ...]  #: labels of repeatable files that were applied with an older text
    changed: tuple[str, ...]  #: labels of migrations whose file differs from what was applied
    unknown: tuple[Applied, ...]  #: applied by a newer release

    @property
    def pending(self) -> Step:
        """All that is to be applied, in order."""
        return tuple(itertools.chain.from_iterable(self.steps))

    @property
    def needs_release(self) -> str | None:
        """The release that this database asks for at least; None when this one will do."""
        asked = (row.min_code for row in self.unknown if row.min_code is not None)
        needed = max(asked, key=numbers, default=self.release)
        return needed if numbers(needed) > numbers(self.release) else None

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

        ``SchemaMissing`` when something is to be applied, ``Misconfigured`` when it is too new.
        """
        if self.steps:
            labels = ", ".join(file.label for file in self.pending)
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


def load(directory: Path | None = None, *, release: str | None = None) -> Release:
    """The files of a folder, by default this release's.

    Raises ``ValueError`` for a misnamed file, a number used twice, a header without ``min_code``, and an
    ``order.txt`` that names a file twice or leaves one out.
    """
    folder = directory or _FOLDER
    migrations = tuple(_migration(path) for path in sorted(folder.glob("migrations/*.sql")))
    for one, other in itertools.pairwise(migrations):
        if one.version == other.version:
            raise ValueError(f"{one.label} and {other.label} have the same number.")
    version = release or importlib.metadata.version("uvian-worker")
    return Release(version, migrations, tuple(_repeatable(folder)))


def compare(history: Sequence[Applied], release: Release) -> SchemaStatus:
    """Judge a history (read over any transport) against the files of a release."""
    rows = {row.name: row for row in history}
    numbered = {row.version: row for row in history if row.version is not None}
    known = {file.version for file in release.migrations}
    pending = [file for file in release.migrations if file.version not in numbered]
    paragraphs = [
        tuple(file for file in paragraph if _is_due(file, rows.get(file.label), release.version))
        for paragraph in release.repeatable
    ]
    return SchemaStatus(
        release=release.version,
        applied=tuple(sorted(history, key=_in_order(release))),
        steps=tuple(_steps(pending, paragraphs)),
        outdated=tuple(
            file.label for paragraph in paragraphs for file in paragraph if file.label in rows
        ),
        changed=tuple(
            file.label
            for file in release.migrations
            if file.version in numbered and numbered[file.version].checksum != file.checksum
        ),
        unknown=tuple(
            row
            for row in history
            if (row.version not in known)
            and (row.version is not None or numbers(row.release) > numbers(release.version))
        ),
    )


def numbers(release: str) -> tuple[int, ...]:
    """``1.10.0rc1`` → (1, 10, 0): enough to order the releases that a history names."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:3])


def _is_due(file: Repeatable, row: Applied | None, release: str) -> bool:
    """Not where a newer release was: the older one next to it works with what that left."""
    return row is None or (
        row.checksum != file.checksum and numbers(row.release) <= numbers(release)
    )


def _steps(
    migrations: Sequence[Migration], paragraphs: Sequence[tuple[Repeatable, ...]]
) -> Iterator[Step]:
    """A migration each; what follows in the first paragraph comes with the last of them."""
    yield from ((file,) for file in migrations[:-1])
    first: Step = (*migrations[-1:], *(paragraphs[0] if paragraphs else ()))
    yield from (step for step in (first, *paragraphs[1:]) if step)


def _in_order(release: Release) -> Callable[[Applied], tuple[bool, int, str]]:
    """Migrations by number, then repeatable files as ``order.txt`` has them, then those it does not know."""
    repeatable = itertools.chain.from_iterable(release.repeatable)
    order = {file.label: number for number, file in enumerate(repeatable)}

    def place(row: Applied) -> tuple[bool, int, str]:
        number = order.get(row.name, len(order)) if row.version is None else row.version
        return (row.version is None, number, row.name)

    return place


def _migration(path: Path) -> Migration:
    named = _FILE_NAME.fullmatch(path.name)
    if named is None:
        raise ValueError(f"{path.name}: a migration is named NNNN_name.sql, in lower case.")
    sql, checksum = _text(path)
    header = _MIN_CODE.match(sql)
    if header is None:
        raise ValueError(f"{path.name}: the first line must read `-- min_code: X.Y.Z`.")
    return Migration(int(named["version"]), path.stem, checksum, header[1], sql)


def _repeatable(folder: Path) -> Iterator[tuple[Repeatable, ...]]:
    """What ``order.txt`` names, by paragraph; a folder without it has migrations alone."""
    if not (folder / "order.txt").exists():
        return
    lines = (folder / "order.txt").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).strip()
    paragraphs = [
        [line.split()[0] for line in paragraph.splitlines()]
        for paragraph in re.split(r"\n{2,}", text)
    ]
    named = list(itertools.chain.from_iterable(paragraphs))
    there = {
        path.relative_to(folder).with_suffix("").as_posix()
        for room in ("functions", "tables")
        for path in folder.glob(f"{room}/*.sql")
    }
    if twice := {label for label in named if named.count(label) > 1}:
        raise ValueError(f"order.txt names twice: {', '.join(sorted(twice))}.")
    if forgotten := there - set(named):
        raise ValueError(f"order.txt does not name: {', '.join(sorted(forgotten))}.")
    for paragraph in paragraphs:
        yield tuple(_file(folder, label) for label in paragraph)


def _file(folder: Path, label: str) -> Repeatable:
    path = folder / f"{label}.sql"
    if not path.exists():
        raise ValueError(f"order.txt names {label}, which is not there.")
    sql, checksum = _text(path)
    return Repeatable(label, checksum, sql)


def _text(path: Path) -> tuple[str, str]:
    """A file's text and its checksum, the same whatever line ends a checkout has."""
    sql = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    return sql, hashlib.sha256(sql.encode()).hexdigest()
