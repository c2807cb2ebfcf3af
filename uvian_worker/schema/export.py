"""Writes migrations into a team's ``supabase/migrations``, where the Supabase CLI applies them.

An exported file is one statement around the migration's text (``repositories/sql/exported.sql``): the
same lock, the same row in the ledger, and nothing at all where ``uvian migrate`` was first. What is
exported already is read from the files themselves, so no database is asked.
"""

from __future__ import annotations

__all__ = ["ExportReport", "export", "unexported"]

import contextlib
import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import repositories
from repositories.errors import Misconfigured
from uvian_worker.schema.history import LOCK, LOCK_TIMEOUT, Migration, load

_TEMPLATE = Path(repositories.__file__).parent / "sql" / "exported.sql"
_HEADER = re.compile(
    r"^-- uvian-migration: (?P<version>\d{4})_\w+ sha256:(?P<checksum>[0-9a-f]{64})\s*$",
    re.MULTILINE,
)
_BODY = re.compile(r"(?P<tag>\$\w+\$)(?P<sql>-- min_code: .*?)(?P=tag)", re.DOTALL)
_NUMBERED = re.compile(r"\d+_")
_STAMP = "%Y%m%d%H%M%S"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What one export did."""

    folder: Path
    made_folder: bool  #: it was not there before
    written: tuple[str, ...]  #: names, in the order the CLI will apply them
    already: tuple[str, ...]  #: labels


@dataclass(frozen=True, slots=True)
class _Exported:
    """A migration as a file of the team's folder has it."""

    path: Path
    version: int
    checksum: str
    intact: bool  #: its text still has this checksum


def export(folder: Path, *, directory: Path | None = None) -> ExportReport:
    """Write what ``folder`` does not have yet, with timestamps after its newest file.

    The folder is made when only itself is missing. Raises ``Misconfigured``, and has then written
    nothing, when what is there was edited, is of another release or has gaps.
    """
    made_folder = not folder.exists()
    migrations = load(directory)
    pending = _pending(migrations, folder)
    before = {after.version: one for one, after in itertools.pairwise(migrations)}
    texts = [_rendered(migration, before.get(migration.version)) for migration in pending]
    stamps = _stamps(folder, len(pending))
    names = [
        f"{stamp}_uvian_{migration.label}.sql"
        for stamp, migration in zip(stamps, pending, strict=True)
    ]
    try:
        folder.mkdir(exist_ok=True)
        for name, text in zip(names, texts, strict=True):
            _write(folder / name, text)
    except OSError as error:
        raise Misconfigured(f"{folder} cannot be written: {error.strerror or error}.") from error
    return ExportReport(
        folder=folder,
        made_folder=made_folder,
        written=tuple(names),
        already=tuple(each.label for each in migrations if each not in pending),
    )


def unexported(folder: Path, *, directory: Path | None = None) -> tuple[Migration, ...]:
    """The migrations of this release that ``folder`` does not have; raises like ``export``."""
    return _pending(load(directory), folder)


def _pending(migrations: Sequence[Migration], folder: Path) -> tuple[Migration, ...]:
    _require_folder(folder)
    known = {migration.version: migration for migration in migrations}
    there = list(_exported(folder))
    for exported in there:
        _require_unedited(exported)
        if exported.version in known:
            _require_same(exported, known[exported.version])
    versions = {exported.version for exported in there}
    pending = tuple(each for each in migrations if each.version not in versions)
    if pending and pending[0].version < max(versions, default=0):
        raise Misconfigured(
            f"{pending[0].label} is missing in {folder}, and later ones are there. Restore its file "
            "from your version control: a new one would come after those that build on it."
        )
    return pending


def _require_folder(folder: Path) -> None:
    if (folder / "config.toml").exists() and folder.name == "supabase":
        raise Misconfigured(f"The CLI reads {folder / 'migrations'}: export to that folder.")
    if folder.exists() and not folder.is_dir():
        raise Misconfigured(f"{folder} is a file: name your project's supabase/migrations.")
    if not folder.absolute().parent.is_dir():
        raise Misconfigured(
            f"There is no folder {folder.parent}: run this where your Supabase project is (`supabase "
            "init` makes one), or name its migrations folder."
        )


def _exported(folder: Path) -> Iterator[_Exported]:
    for path in sorted(path for path in folder.rglob("*.sql") if path.is_file()):
        text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
        bodies = {hashlib.sha256(m["sql"].encode()).hexdigest() for m in _BODY.finditer(text)}
        for header in _HEADER.finditer(text):
            checksum = header["checksum"]
            yield _Exported(path, int(header["version"]), checksum, checksum in bodies)


def _require_unedited(exported: _Exported) -> None:
    if not exported.intact:
        raise Misconfigured(
            f"{exported.path} was edited after its export. Restore it from your version control, and "
            "put the change into a migration of your own."
        )


def _require_same(exported: _Exported, migration: Migration) -> None:
    if exported.checksum != migration.checksum:
        raise Misconfigured(
            f"{exported.path} has another text of {migration.label} than this release. Use the "
            "release that exported it; or, if it was applied nowhere yet, delete it and export again."
        )


def _stamps(folder: Path, count: int) -> list[str]:
    """Timestamps after those that are there: the CLI applies files in the order of their names."""
    entries = folder.iterdir() if folder.exists() else ()
    newest = max((entry.name for entry in entries if _NUMBERED.match(entry.name)), default="")
    first = datetime.now(UTC)
    if newest > f"{first:{_STAMP}}":
        first = _after(newest) or _no_way_after(newest, folder)
    try:
        return [f"{first + timedelta(seconds=number):{_STAMP}}" for number in range(count)]
    except OverflowError:
        _no_way_after(newest, folder)


def _after(name: str) -> datetime | None:
    """A moment whose timestamp sorts after this name; None when there is none."""
    digits = name.partition("_")[0]
    # To the second or to the day: some teams count within a day, some name the day alone.
    for length, step in ((14, timedelta(seconds=1)), (8, timedelta(days=1))):
        with contextlib.suppress(ValueError, OverflowError):
            if len(digits) >= length:
                stamp = f"{digits[:length]:0<14}"
                return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC) + step
    return None


def _no_way_after(newest: str, folder: Path) -> NoReturn:
    raise Misconfigured(
        f"{newest} in {folder} sorts after every timestamp, so the CLI would apply ours before it. "
        "Export to an empty folder, and move the files here under numbers of your own."
    )


def _write(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    unfinished.replace(path)


def _rendered(migration: Migration, before: Migration | None) -> str:
    """The file that the CLI gets."""
    template = _TEMPLATE.read_text(encoding="utf-8")
    values = {
        "label": migration.label,
        "version": str(migration.version),
        "name": migration.name,
        "checksum": migration.checksum,
        "min_code": migration.min_code,
        "label_before": before.label if before else "nothing",
        "version_before": str(before.version) if before else "null",
        "checksum_before": f"'{before.checksum}'" if before else "null",
        "lock": str(LOCK),
        "lock_timeout": LOCK_TIMEOUT,
        "outer": _tag("uvian", template + migration.sql),
        "inner": _tag("sql", template + migration.sql),
        "sql": migration.sql,
    }
    return re.sub(r"{{(\w+)}}", lambda slot: values[slot[1]], template)


def _tag(word: str, text: str) -> str:
    """A word that no dollar quote in the text ends with."""
    while f"${word}$" in text:
        word += "_"
    return word
