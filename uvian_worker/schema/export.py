"""Writes migrations into a team's ``supabase/migrations``, where the Supabase CLI applies them.

An exported file is one step: what ``uvian migrate`` applies in one transaction. Each of its texts is one
statement (``repositories/sql/exported.sql``): the same lock, the same row in the history, and nothing at
all where ``uvian migrate`` was first. What is exported already is read from the files themselves, so no
database is asked. A function that has changed is exported again, in a new file.
"""

from __future__ import annotations

__all__ = ["ExportReport", "export", "unexported"]

import contextlib
import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import repositories
from repositories.errors import Misconfigured
from uvian_worker.schema.history import (
    LOCK,
    LOCK_TIMEOUT,
    Applied,
    Migration,
    Release,
    Repeatable,
    Step,
    compare,
    load,
    numbers,
)

_TEMPLATE = Path(repositories.__file__).parent / "sql" / "exported.sql"
_HEADER = re.compile(
    r"^-- uvian-migration: (?P<label>[\w/]+) sha256:(?P<checksum>[0-9a-f]{64})"
    r" release:(?P<release>\S+)\s*$",
    re.MULTILINE,
)
_BODY = re.compile(r"(?P<tag>\$sql_*\$)(?P<sql>.*?)(?P=tag)", re.DOTALL)
_NUMBERED = re.compile(r"\d+_")
_MIGRATION = re.compile(r"(\d{4})_\w+")
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
    """A text as a file of the team's folder has it."""

    path: Path
    label: str
    checksum: str
    release: str
    intact: bool  #: its text still has this checksum

    @property
    def version(self) -> int | None:
        """Of a migration."""
        numbered = _MIGRATION.fullmatch(self.label)
        return int(numbered[1]) if numbered else None


def export(folder: Path, *, directory: Path | None = None) -> ExportReport:
    """Write what ``folder`` does not have yet, with timestamps after its newest file.

    The folder is made when only itself is missing. Raises ``Misconfigured``, and has then written
    nothing, when what is there was edited, is of another release or has gaps.
    """
    made_folder = not folder.exists()
    release = load(directory)
    steps = _steps(release, folder)
    texts = ["\n".join(_rendered(file, release) for file in step) for step in steps]
    names = [
        f"{stamp}_uvian_{_name(step)}.sql"
        for stamp, step in zip(_stamps(folder, len(steps)), steps, strict=True)
    ]
    try:
        folder.mkdir(exist_ok=True)
        for name, text in zip(names, texts, strict=True):
            _write(folder / name, text)
    except OSError as error:
        raise Misconfigured(f"{folder} cannot be written: {error.strerror or error}.") from error
    pending = {file.label for step in steps for file in step}
    return ExportReport(
        folder=folder,
        made_folder=made_folder,
        written=tuple(names),
        already=tuple(file.label for file in release.files if file.label not in pending),
    )


def unexported(folder: Path, *, directory: Path | None = None) -> Step:
    """What ``folder`` does not have of this release; raises like ``export``."""
    return tuple(itertools.chain.from_iterable(_steps(load(directory), folder)))


def _steps(release: Release, folder: Path) -> tuple[Step, ...]:
    """What is to be written, by file: the folder is read as a history, the last text of a label counts."""
    _require_folder(folder)
    there = list(_exported(folder))
    known = {migration.version: migration for migration in release.migrations}
    for exported in there:
        _require_unedited(exported)
        if exported.version in known:
            _require_same(exported, known[exported.version])
    pending = compare([_as_applied(exported) for exported in there], release).steps
    first = next((file for step in pending for file in step if isinstance(file, Migration)), None)
    newest = max((each.version for each in there if each.version is not None), default=0)
    if first is not None and first.version < newest:
        raise Misconfigured(
            f"{first.label} is missing in {folder}, and later ones are there. Restore its file "
            "from your version control: a new one would come after those that build on it."
        )
    return pending


def _as_applied(exported: _Exported) -> Applied:
    return Applied(
        name=exported.label,
        version=exported.version,
        checksum=exported.checksum,
        min_code=None,
        release=exported.release,
        applied_at=datetime.min.replace(tzinfo=UTC),
    )


def _name(step: Step) -> str:
    """Of a file: its migration's, or its only text's, or the room of its texts."""
    label = step[0].label
    return label.replace("/", "_") if len(step) == 1 else label.partition("/")[0]


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
            yield _Exported(path, header["label"], checksum, header["release"], checksum in bodies)


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


def _rendered(file: Migration | Repeatable, release: Release) -> str:
    """The statement that the CLI gets. What is repeatable comes after all migrations."""
    template = _TEMPLATE.read_text(encoding="utf-8")
    before = [
        each
        for each in release.migrations
        if not isinstance(file, Migration) or each.version < file.version
    ]
    values = {
        "label": file.label,
        "version": str(file.version) if isinstance(file, Migration) else "null",
        "checksum": file.checksum,
        "min_code": f"'{file.min_code}'" if isinstance(file, Migration) else "null",
        "release": release.version,
        "release_numbers": ",".join(str(number) for number in numbers(release.version)),
        "label_before": before[-1].label if before else "nothing",
        "checksum_before": f"'{before[-1].checksum}'" if before else "null",
        "lock": str(LOCK),
        "lock_timeout": LOCK_TIMEOUT,
        "outer": _tag("uvian", template + file.sql),
        "inner": _tag("sql", template + file.sql),
        "sql": file.sql,
    }
    return re.sub(r"{{(\w+)}}", lambda slot: values[slot[1]], template)


def _tag(word: str, text: str) -> str:
    """A word that no dollar quote in the text ends with."""
    while f"${word}$" in text:
        word += "_"
    return word
