"""The commands and a worker over a project's API: no connection string anywhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from typer.testing import Result

from repositories.supabase import SupabaseImages, connect_supabase
from tests.cli.conftest import Programs, Uvian
from tests.servers import CleanDatabase
from tests.supabase.faults import Action, empty_400, html_502, lose_reply
from tests.supabase.platform import Platform
from uvian_worker.cli.errors import ExitCode
from uvian_worker.config import Config
from uvian_worker.local.servers import LocalServers


@pytest.fixture
def project(platform: Platform, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A project, and the settings of who works on it through its API."""
    settings = {
        "UVIAN_DATABASE": "supabase",
        "UVIAN_SUPABASE_URL": platform.url,
        "UVIAN_SUPABASE_KEY": platform.secret_key,
        "UVIAN_REDIS_URL": redis_url,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return platform


@pytest.fixture
def uvian(folder: Path, project: Platform, superuser_dsn: str) -> Uvian:
    """The commands on that project."""
    uvian = Uvian("00000000-0000-4000-8000-00000000abcd", superuser_dsn)
    uvian.sql("insert into auth.users (id) values ($1)", uvian.user_id)
    return uvian


def fails(result: Result, code: ExitCode, *words: str) -> None:
    """It has ended with this code, and has said these words and no more than it should."""
    assert result.exit_code == code, result.output
    said = " ".join(result.stderr.split())
    for word in words:
        assert word in said, said
    assert "Traceback" not in said
    assert "unexpected" not in said


@pytest.mark.database
def test_every_command_works_through_the_api(uvian: Uvian) -> None:
    """Submit, list, show, cancel, retry, grant, books."""
    made = uvian.document(
        "submit",
        "generation",
        "logo_description=a fox",
        "theme_description=autumn",
        "--user",
        uvian.user_id,
        "--json",
    )
    assert uvian.document("jobs", "list", "--json")["jobs"][0]["id"] == made["id"]
    assert uvian.document("jobs", "show", made["id"][:8], "--json")["job"]["status"] == "queued"
    assert uvian.document("jobs", "cancel", made["id"], "--json")["status"] == "cancelled"
    assert uvian.document("jobs", "retry", made["id"], "--json")["run"] == 2
    granted = uvian.document("credits", "grant", uvian.user_id, "2.000001", "--json")
    assert granted["account"]["balance"] == "2.000001"
    shown = uvian.document("credits", "show", uvian.user_id, "--json")
    assert [entry["amount"] for entry in shown["entries"]] == ["2.000001"]


@pytest.mark.database
def test_refusals_are_the_same_sentences(uvian: Uvian) -> None:
    """What the database says no with comes through the API as it comes through a connection."""
    fails(uvian("submit", "nonsense", "--user", uvian.user_id), ExitCode.REFUSED, "no job type")
    nobody = "00000000-0000-4000-8000-00000000dead"
    words = ("submit", "generation", "logo_description=a", "theme_description=b", "--user", nobody)
    fails(uvian(*words), ExitCode.REFUSED, "There is no user")
    fails(uvian("jobs", "show", "abcdef12"), ExitCode.REFUSED, "no job abcdef12")


@pytest.mark.database
def test_a_lost_reply_is_not_heard_of(uvian: Uvian, project: Platform) -> None:
    """Of any call that a command makes."""
    project.faults.add(lose_reply, path="/rest/v1/", every=2)
    words = ("submit", "generation", "logo_description=a", "theme_description=b", "--json")
    made = uvian.document(*words, "--user", uvian.user_id)
    assert made["created"]
    assert uvian.document("jobs", "cancel", made["id"], "--json")["status"] == "cancelled"
    assert len(uvian.sql("select from uvian.jobs")) == 1


@pytest.mark.database
def test_what_is_not_set_up_is_a_sentence(
    uvian: Uvian, project: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser's key, another's key, no key, no URL, a schema that nobody may read: exit code 2."""
    grants = "select on uvian.schema_migrations"
    uvian.sql(f"revoke {grants} from service_role")
    fails(uvian("jobs", "list"), ExitCode.USAGE, "permission denied", "uvian migrate")
    uvian.sql(f"grant {grants} to service_role")
    for key, words in (
        (project.publishable_key, "is a publishable key"),
        (project.anon_key, "is a key of the role 'anon'"),
        ("sb_secret_of_another", "Supabase refuses UVIAN_SUPABASE_KEY"),
        ("nonsense", "is no key of Supabase"),
    ):
        monkeypatch.setenv("UVIAN_SUPABASE_KEY", key)
        fails(uvian("jobs", "list"), ExitCode.USAGE, words)
        fails(uvian("worker", "--burst"), ExitCode.USAGE, words)
    monkeypatch.delenv("UVIAN_SUPABASE_KEY")
    fails(uvian("jobs", "list"), ExitCode.USAGE, "UVIAN_DATABASE=supabase needs")
    monkeypatch.setenv("UVIAN_SUPABASE_KEY", project.secret_key)
    monkeypatch.setenv("UVIAN_SUPABASE_URL", f"{project.url}/rest/v1")
    fails(uvian("jobs", "list"), ExitCode.USAGE, "UVIAN_SUPABASE_URL is not the URL of a project")


@pytest.mark.database
def test_a_schema_that_is_not_exposed_is_a_sentence(
    uvian: Uvian, database: CleanDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the setting in the dashboard."""
    with Platform(database.authenticator_dsn, tmp_path / "files", schemas=("public",)) as closed:
        monkeypatch.setenv("UVIAN_SUPABASE_URL", closed.url)
        monkeypatch.setenv("UVIAN_SUPABASE_KEY", closed.secret_key)
        fails(uvian("jobs", "list"), ExitCode.USAGE, "Data API > Exposed schemas")


@pytest.mark.database
def test_an_api_that_is_away_is_not_reachable(uvian: Uvian, project: Platform) -> None:
    """Exit code 3: behind a proxy, and when nobody listens."""
    project.faults.add(html_502)
    fails(uvian("jobs", "list"), ExitCode.UNREACHABLE, "HTTP 502")
    project.stop()
    fails(uvian("jobs", "list"), ExitCode.UNREACHABLE, "UVIAN_SUPABASE_URL")
    project.start()


@pytest.mark.database
def test_the_state_of_the_schema_is_seen_through_the_api(uvian: Uvian) -> None:
    """Where nothing is pending there is nothing to refuse."""
    status = uvian.document("migrate", "--status", "--json")
    assert (status["pending"], status["missing"]) == ([], [])
    assert uvian.document("migrate", "--json")["applied"] == []


@pytest.mark.database
def test_migrating_needs_a_connection_string_all_the_same(uvian: Uvian) -> None:
    """The API cannot change a schema; the sentence says what can."""
    uvian.sql("delete from uvian.schema_migrations where name = 'platform'")
    assert uvian("migrate", "--status").exit_code == ExitCode.USAGE
    fails(uvian("migrate"), ExitCode.USAGE, "UVIAN_DATABASE_URL", "Session pooler")


@pytest.mark.database
def test_the_bucket_is_made_through_the_storage_api(
    uvian: Uvian, project: Platform, programs: Programs
) -> None:
    """Which is what the worker names that cannot do without: with nothing pending, and no connection."""
    uvian.sql("delete from storage.buckets where id = 'uvian-images'")
    worker = programs.uvian("worker", "--burst")
    assert worker.ends() == ExitCode.USAGE
    assert "`uvian migrate` makes it" in worker.output
    assert "uvian-images is missing" in uvian("migrate", "--status").stdout
    assert "✓ made: the bucket uvian-images" in uvian("migrate").stdout
    (made,) = uvian.sql("select public, file_size_limit, allowed_mime_types from storage.buckets")
    assert tuple(made) == (False, 32 * 1024 * 1024, ["image/png", "image/webp", "image/jpeg"])
    assert programs.uvian("worker", "--burst").ends() == ExitCode.OK
    assert "made" not in uvian("migrate").stdout


def test_the_servers_of_dev_are_used_whatever_the_settings_say(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project in the developer's ``.env`` is not what a worker of ``uvian dev`` works on."""
    (folder / ".env").write_text(
        "UVIAN_DATABASE=supabase\nUVIAN_IMAGES=supabase\n"
        "UVIAN_SUPABASE_URL=https://abcdefghijklmnopqrst.supabase.co\nUVIAN_SUPABASE_KEY=sb_secret_x\n"
    )
    assert Config.load().database == "supabase"
    servers = LocalServers(folder, "postgresql://here/x", "redis://here", "a user")
    for name, value in servers.settings().items():
        monkeypatch.setenv(name, value)
    config = Config.load()
    assert (config.database, config.images) == ("postgres", "local")
    assert config.require_database_url() == config.listen_url() == "postgresql://here/x"


@pytest.mark.processes
@pytest.mark.parametrize("fault", [None, lose_reply, empty_400])
def test_a_worker_needs_nothing_but_the_api(
    uvian: Uvian, project: Platform, programs: Programs, fault: Action | None
) -> None:
    """The main job from submit to a picture that a browser can open, though every third call is struck.

    There is no connection to Postgres, one concept, one charge, and no picture twice.
    """
    uvian.sql("insert into uvian.job_prices (type, amount) values ('generation', 2)")
    uvian.document("credits", "grant", uvian.user_id, "5", "--json")
    if fault is not None:
        half = "/rest/" if fault is empty_400 else ""  # it is PostgREST that says so
        project.faults.add(fault, path=half, every=3)
    worker = programs.uvian("worker")
    worker.says("at a time")
    words = (
        "logo_description=a fox",
        "theme_description=autumn woods",
        "num_palettes=3",
        "size=256",
    )
    watched = programs.uvian(
        "submit", "generation", *words, "--user", uvian.user_id, "--watch", "--json"
    )
    assert watched.ends() == ExitCode.OK, watched.output + worker.output
    events = [orjson.loads(line) for line in watched.output.splitlines() if line.startswith("{")]
    paths = [e["data"]["path"] for e in events if e["type"] == "image.ready"]
    assert len(paths) == 4
    (kept,) = uvian.sql("select count(*) from storage.objects where bucket_id = 'uvian-images'")
    assert kept[0] == 4
    (made,) = uvian.sql("select count(*) from uvian.concepts")
    (account,) = uvian.sql("select balance::text, reserved::text from uvian.credit_accounts")
    assert (made[0], *account) == (1, "3.000000", "0.000000")
    assert (project.faults.hits > 5) is (fault is not None)
    project.faults.clear()
    assert asyncio.run(_shown(project, paths)) == [200] * 4
    logins = uvian.sql(
        "select usename from pg_stat_activity"
        " where datname = current_database() and backend_type = 'client backend'"
    )
    assert {row["usename"] for row in logins} == {"authenticator", "postgres"}


async def _shown(project: Platform, paths: list[str]) -> list[Any]:
    supabase = connect_supabase(project.url, project.secret_key)
    images = SupabaseImages(supabase)
    urls = await images.sign(paths, expires_in=60)
    await images.close()
    await supabase.close()
    async with httpx.AsyncClient() as browser:
        return [(await browser.get(urls[path])).status_code for path in paths]
