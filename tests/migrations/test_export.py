"""The files that go to a team's ``supabase/migrations``: which, under which names, and when not."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from repositories.errors import Misconfigured
from tests.migrations.supabase_cli import split
from uvian_worker.cli import app
from uvian_worker.cli.errors import ExitCode
from uvian_worker.schema.export import export, unexported
from uvian_worker.schema.history import load

RELEASE = load()
LABELS = tuple(file.label for file in RELEASE.files)
NAMES = [step[0].label.replace("/", "_") for step in RELEASE.steps]


def names(folder: Path) -> list[str]:
    """What is in the folder, as the CLI sorts it."""
    return sorted(path.name for path in folder.iterdir())


def rewrite(path: Path, old: str, new: str) -> None:
    """Edit a file as somebody would who means well."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


class TestWhatIsWritten:
    """Once each, in order, after what the team has."""

    def test_every_step_is_one_file(self, folder: Path) -> None:
        """Sorted by name they are in the order of their versions, under the CLI's pattern."""
        report = export(folder)
        assert list(report.written) == names(folder)
        found = [re.fullmatch(r"(\d{14})_uvian_(.+)\.sql", name) for name in names(folder)]
        assert [match[2] for match in found if match] == NAMES
        assert len({match[1] for match in found if match}) == len(NAMES)

    def test_again_writes_nothing(self, folder: Path) -> None:
        """Every deploy may run it."""
        export(folder)
        before = names(folder)
        report = export(folder)
        assert (report.written, report.already) == ((), LABELS)
        assert names(folder) == before

    def test_a_later_release_adds_its_own(
        self, folder: Path, release: Callable[[int], Path]
    ) -> None:
        """What the team committed stays as it is."""
        first = export(folder, directory=release(len(NAMES) - 2))
        texts = {name: (folder / name).read_bytes() for name in first.written}
        report = export(folder)
        assert report.already == LABELS[:-2]
        assert [name[21:-4] for name in report.written] == NAMES[-2:]
        assert {name: (folder / name).read_bytes() for name in texts} == texts

    def test_a_renamed_file_is_known_by_its_header(self, folder: Path) -> None:
        """Teams renumber; some commit with Windows line ends, some put a banner on top."""
        export(folder)
        for number, name in enumerate(names(folder)):
            text = (folder / name).read_text(encoding="utf-8")
            (folder / name).unlink()
            (folder / f"{number:04d}_jobs.sql").write_text(
                "-- Copyright\n" + text, encoding="utf-8", newline="\r\n"
            )
        assert export(folder).written == ()

    def test_timestamps_come_after_the_newest_file(self, folder: Path) -> None:
        """A team that is ahead of the clock is followed; the CLI applies nothing out of order."""
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        newest = f"{tomorrow:%Y%m%d%H%M%S}"
        (folder / f"{newest}_theirs.sql").write_text("select 1;")
        (folder / "20200101000000_older.sql").write_text("select 1;")
        (folder / "notes.sql").write_text("-- no migration")
        report = export(folder)
        assert report.written[0][:14] == f"{tomorrow + timedelta(seconds=1):%Y%m%d%H%M%S}"
        assert names(folder)[2 : 2 + len(NAMES)] == list(report.written)

    def test_timestamps_are_utc_and_fresh(self, folder: Path) -> None:
        """The first is now, whatever the machine's time zone."""
        before = datetime.now(UTC).replace(microsecond=0)
        stamp = datetime.strptime(export(folder).written[0][:14], "%Y%m%d%H%M%S").replace(
            tzinfo=UTC
        )
        assert before <= stamp <= datetime.now(UTC)

    def test_a_migration_in_a_folder_of_its_own_counts(self, folder: Path) -> None:
        """The CLI also reads ``<timestamp>_name/…``."""
        (folder / "20990101000000_theirs").mkdir()
        assert export(folder).written[0] > "20990101000000"

    @pytest.mark.parametrize(
        ("newest", "first"),
        [
            ("20990228235959", "20990301000000"),
            ("20990228990001", "20990301000000"),
            ("209902282359590", "20990301000000"),
            ("20990228", "20990301000000"),
        ],
    )
    def test_numbers_that_look_like_a_date_are_followed(
        self, folder: Path, newest: str, first: str
    ) -> None:
        """Some teams count within a day, some add a digit."""
        (folder / f"{newest}_theirs.sql").write_text("select 1;")
        written = export(folder).written
        assert written[0][:14] == first
        assert names(folder)[0] == f"{newest}_theirs.sql"

    @pytest.mark.parametrize(
        "name", ["9_late.sql", "99999999999999_late.sql", "99991231235959_x.sql"]
    )
    def test_what_no_timestamp_sorts_after_is_refused(self, folder: Path, name: str) -> None:
        """The CLI would put ours first; there is a way out, and nothing was written."""
        (folder / name).write_text("select 1;")
        with pytest.raises(Misconfigured, match=r"sorts after every timestamp.* empty folder"):
            export(folder)
        assert names(folder) == [name]

    def test_numbers_of_ones_own_come_before(self, folder: Path) -> None:
        """``0001_init.sql`` sorts before a timestamp."""
        (folder / "0001_init.sql").write_text("select 1;")
        assert names(folder)[0] == "0001_init.sql"
        assert len(export(folder).written) == len(NAMES)

    def test_the_folder_is_made_when_only_itself_is_missing(self, tmp_path: Path) -> None:
        """A new Supabase project has none; in a wrong directory nothing is made."""
        (tmp_path / "supabase").mkdir()
        assert export(tmp_path / "supabase" / "migrations").made_folder
        with pytest.raises(
            Misconfigured, match=r"There is no folder .*elsewhere/supabase: run this"
        ):
            export(tmp_path / "elsewhere" / "supabase" / "migrations")
        assert not (tmp_path / "elsewhere").exists()

    def test_the_supabase_folder_itself_is_not_meant(self, folder: Path) -> None:
        """The CLI would never look there."""
        (folder.parent / "config.toml").write_text("")
        with pytest.raises(Misconfigured, match=r"supabase/migrations: export to that folder"):
            export(folder.parent)

    def test_a_folder_that_cannot_be_written_is_named(self) -> None:
        """A read-only checkout, say; /proc takes no folder of anybody, not even of root."""
        with pytest.raises(Misconfigured, match="/proc/migrations cannot be written: "):
            export(Path("/proc/migrations"))

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        """A path to a single migration, say."""
        (tmp_path / "0001.sql").write_text("")
        with pytest.raises(Misconfigured, match=r"0001\.sql is a file"):
            export(tmp_path / "0001.sql")


class TestWhatIsRefused:
    """What the team has does not fit this release: a sentence, and nothing is written."""

    def test_an_edited_file(self, folder: Path) -> None:
        """The history would say of this database what is not true."""
        path = folder / export(folder).written[0]
        rewrite(path, "create table uvian.jobs", "create table if not exists uvian.jobs")
        with pytest.raises(Misconfigured, match=r"0001_jobs\.sql was edited after its export"):
            export(folder)

    def test_a_file_that_was_cut(self, folder: Path) -> None:
        """A merge gone wrong."""
        path = folder / export(folder).written[0]
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(Misconfigured, match=r"0001_jobs\.sql was edited"):
            export(folder)

    def test_a_text_of_another_release(self, folder: Path, release: Callable[[int], Path]) -> None:
        """A development version was exported, say; both ways out are named."""
        earlier = release(3)
        rewrite(
            earlier / "migrations" / "0001_jobs.sql",
            "create table uvian.jobs",
            "create  table uvian.jobs",
        )
        export(folder, directory=earlier)
        before = names(folder)
        with pytest.raises(
            Misconfigured, match=r"another text of 0001_jobs .*delete it and export"
        ):
            export(folder)
        assert names(folder) == before

    def test_a_copy_with_another_text_hides_nothing(self, folder: Path) -> None:
        """Two files of one version: the good one does not excuse the bad one."""
        good = folder / export(folder).written[0]
        bad = folder / "20200101000000_copy.sql"
        bad.write_text(good.read_text(encoding="utf-8"), encoding="utf-8")
        rewrite(bad, "create table uvian.jobs", "create  table uvian.jobs")
        with pytest.raises(Misconfigured, match=r"copy\.sql was edited"):
            export(folder)

    def test_a_gap(self, folder: Path) -> None:
        """A new copy of an old file would come after those that build on it."""
        report = export(folder)
        (folder / report.written[1]).unlink()
        with pytest.raises(Misconfigured, match=rf"{LABELS[1]} is missing .* Restore its file"):
            export(folder)
        assert len(names(folder)) == len(NAMES) - 1

    def test_what_a_newer_release_exported_is_left_alone(
        self, folder: Path, release: Callable[[int], Path]
    ) -> None:
        """An older release next to it has nothing to add."""
        export(folder)
        assert unexported(folder, directory=release(5)) == ()


class TestTheText:
    """What the CLI and a person find in a file."""

    def test_each_text_is_one_statement_for_the_cli(self, folder: Path) -> None:
        """However the CLI splits, the guard and what it guards stay together."""
        for name, step in zip(export(folder).written, RELEASE.steps, strict=True):
            statements = list(split((folder / name).read_text(encoding="utf-8")))
            assert len(statements) == len(step)
            for statement in statements:
                assert statement.endswith("end $uvian$")
                assert len(statement) < 64_000, "older CLIs read no longer statements"

    def test_lines_of_an_error_are_lines_of_the_file(self, folder: Path) -> None:
        """The text begins right behind its quote."""
        for name, step in zip(export(folder).written, RELEASE.steps, strict=True):
            text = (folder / name).read_text(encoding="utf-8")
            assert all(f"$sql${file.sql}$sql$" in text for file in step)

    def test_quotes_do_not_end_early(self, folder: Path, release: Callable[[int], Path]) -> None:
        """A migration may use the very words that the wrapper quotes with."""
        release_folder = release(1)
        (release_folder / "migrations" / "0002_quotes.sql").write_text(
            "-- min_code: 0.1.0\nselect $sql$ it's $uvian$ here $sql$ as x, '{{label}}';\n"
        )
        name = export(folder, directory=release_folder).written[1]
        text = (folder / name).read_text(encoding="utf-8")
        (statement,) = split(text)
        assert statement.endswith("end $uvian_$")
        assert "$sql_$-- min_code: 0.1.0\nselect $sql$ it's $uvian$ here $sql$" in text
        assert "'{{label}}'" in text
        assert export(folder, directory=release_folder).written == ()


class TestTheCommand:
    """``uvian migrate --export``."""

    def run(self, *words: str) -> Result:
        """The command in this process, without any setting."""
        return CliRunner().invoke(app, ["migrate", *words])

    def test_it_needs_no_database(self, folder: Path) -> None:
        """It says what it wrote and what comes next; again it says that nothing was missing."""
        first = self.run("--export", str(folder))
        assert first.exit_code == 0, first.output
        assert f"{len(NAMES)} written; 0 were there already." in first.stdout
        assert "supabase db push" in first.stdout
        assert (
            f"Nothing was missing; {len(LABELS)} were there already."
            in self.run("--export", str(folder)).stdout
        )

    def test_it_says_that_it_made_the_folder(self, tmp_path: Path) -> None:
        """A typing error shows."""
        result = self.run("--export", str(tmp_path / "migrations"))
        assert f"The folder {tmp_path / 'migrations'} was made." in result.stdout.replace("\n", "")

    def test_json_is_for_scripts(self, folder: Path) -> None:
        """One document with the folder, what was written and what was there."""
        document = orjson.loads(self.run("--export", str(folder), "--json").stdout)
        assert document == {"folder": str(folder), "written": names(folder), "already": []}

    def test_status_tells_a_pipeline_that_an_export_is_due(self, folder: Path) -> None:
        """After an upgrade of uvian-worker the build says what to run, and changes nothing."""
        due = self.run("--export", str(folder), "--status")
        assert due.exit_code == ExitCode.USAGE
        assert LABELS[0] in due.stdout
        assert f"uvian migrate --export {folder}" in due.stdout.replace("\n", "")
        assert names(folder) == []
        export(folder)
        done = self.run("--export", str(folder), "--status", "--json")
        assert done.exit_code == 0
        assert orjson.loads(done.stdout) == {"folder": str(folder), "pending": []}

    def test_a_refusal_is_a_sentence(self, folder: Path) -> None:
        """With the exit code of a wrong setting."""
        path = folder / export(folder).written[0]
        rewrite(path, "create schema uvian", "create schema if not exists uvian")
        result = self.run("--export", str(folder))
        assert result.exit_code == ExitCode.USAGE
        assert "was edited after its export" in result.stderr

    @pytest.mark.parametrize("other", [["--bootstrap"], ["--url", "postgresql://127.0.0.1:9/x"]])
    def test_what_needs_a_database_does_not_go_with_it(
        self, folder: Path, other: list[str]
    ) -> None:
        """Nobody shall think that the export looked into theirs."""
        result = self.run("--export", str(folder), *other)
        assert result.exit_code == ExitCode.USAGE
        assert names(folder) == []

    def test_help_has_both_routes(self) -> None:
        """Each on its line."""
        said = " ".join(self.run("--help").stdout.split())
        assert (
            "uvian migrate: applies what is pending, over a direct or session connection." in said
        )
        assert "uvian migrate --export supabase/migrations: writes what is pending there" in said
