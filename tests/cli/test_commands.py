"""The commands on a real database, without a worker: what they write, show and refuse."""

from __future__ import annotations

import uuid
from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import Uvian
from tests.servers import CleanDatabase
from uvian_worker.cli.errors import ExitCode
from uvian_worker.schema.history import load

pytestmark = pytest.mark.database

_NOBODY = "00000000-0000-4000-8000-0000000000aa"
_INPUT = ("logo_description=A fox", "theme_description=autumn")


def submitted(uvian: Uvian, *options: str) -> str:
    """The id of a job that waits."""
    words = ("submit", "generation", *_INPUT, "--user", uvian.user_id, "--json", *options)
    return str(uvian.document(*words)["id"])


def test_submit_makes_a_job_that_waits(uvian: Uvian) -> None:
    """The row has the input that was typed, and the queue has the job."""
    made = uvian.document(
        "submit", "generation", *_INPUT, "num_palettes=3", "--user", uvian.user_id, "--json"
    )
    assert (made["status"], made["run"], made["created"]) == ("queued", 1, True)
    row = uvian.document("jobs", "show", made["id"], "--json")["job"]
    assert row["input"] == {
        "logo_description": "A fox",
        "theme_description": "autumn",
        "num_palettes": 3,
    }
    assert row["user_id"] == uvian.user_id


def test_submit_reads_json_from_stdin(uvian: Uvian) -> None:
    """A dash stands for a whole JSON object."""
    text = orjson.dumps({"logo_description": "A", "theme_description": "B"}).decode()
    result = uvian("submit", "generation", "-", "--user", uvian.user_id, stdin=text)
    assert result.exit_code == 0, result.output


def test_the_same_key_makes_one_job(uvian: Uvian) -> None:
    """The second answer says so; another input under that key is refused."""
    first = submitted(uvian, "--key", "k")
    words = ("submit", "generation", *_INPUT, "--user", uvian.user_id, "--key", "k")
    again = uvian(*words)
    assert first in again.stdout
    assert "this --key made it before" in " ".join(again.stdout.split())
    other = uvian(*words, "seed=1")
    assert other.exit_code == ExitCode.REFUSED
    assert "A job with this --key exists" in other.stderr


def test_an_unknown_type_is_answered_by_the_nearest(uvian: Uvian) -> None:
    """The type is known to the database, not to this program."""
    result = uvian("submit", "genration", *_INPUT, "--user", uvian.user_id)
    assert result.exit_code == ExitCode.REFUSED
    assert "There is no job type 'genration'." in result.stderr
    assert "Did you mean generation?" in result.stderr
    listed = uvian("jobs", "list", "--type", "genration")
    assert listed.exit_code == ExitCode.REFUSED
    assert "Did you mean generation?" in listed.stderr


def test_an_unknown_user_is_told_how_users_are_made(uvian: Uvian) -> None:
    """Users belong to Supabase Auth."""
    for words in (
        ["submit", "generation", *_INPUT, "--user", _NOBODY],
        ["credits", "grant", _NOBODY, "5"],
    ):
        result = uvian(*words)
        assert result.exit_code == ExitCode.REFUSED, result.output
        assert f"There is no user {_NOBODY} in auth.users." in result.stderr
        assert "Authentication > Users" in result.stderr


def test_what_is_no_user_id_is_a_wrong_word(uvian: Uvian) -> None:
    """It is not looked for; nor is a job made for nobody."""
    for options in (["--user", "ada"], []):
        result = uvian("submit", "generation", *_INPUT, *options)
        assert result.exit_code == ExitCode.USAGE


def test_credits_are_granted_once_per_reference_and_reserved_by_a_job(uvian: Uvian) -> None:
    """A price makes the difference: refused without credits, reserved with them, back by cancel."""
    uvian.sql("insert into uvian.job_prices values ('generation', 3)")
    poor = uvian("submit", "generation", *_INPUT, "--user", uvian.user_id)
    assert poor.exit_code == ExitCode.REFUSED
    assert "The job costs 3 credits; the balance is 0." in poor.stderr
    for _ in range(2):
        grant = ("credits", "grant", uvian.user_id, "5.5", "--reference", "invoice 7", "--json")
        assert uvian.document(*grant)["account"]["balance"] == "5.500000"
    dear = uvian("submit", "generation", *_INPUT, "--user", uvian.user_id, "--max-cost", "2")
    assert dear.exit_code == ExitCode.REFUSED
    assert "more than --max-cost" in dear.stderr
    job_id = submitted(uvian)
    account = uvian.document("credits", "show", uvian.user_id, "--json")["account"]
    assert (account["balance"], account["reserved"]) == ("2.500000", "3.000000")
    assert uvian.document("jobs", "cancel", job_id, "--json")["status"] == "cancelled"
    shown = uvian("credits", "show", uvian.user_id).stdout
    assert "Balance 5.5" in shown
    assert "invoice 7" in shown


@pytest.mark.parametrize("amount", ["0", "-1", "NaN", "much"])
def test_an_amount_is_a_number_above_zero(uvian: Uvian, amount: str) -> None:
    """Anything else is a wrong word."""
    assert uvian("credits", "grant", uvian.user_id, "--", amount).exit_code == ExitCode.USAGE


def test_jobs_are_listed_newest_first_and_filtered(uvian: Uvian) -> None:
    """By user, status and type; the table has one line for each."""
    jobs = [submitted(uvian) for _ in range(3)]
    uvian("jobs", "cancel", jobs[1])
    listed = [job["id"] for job in uvian.document("jobs", "list", "--json")["jobs"]]
    assert listed == jobs[::-1]
    queued = uvian.document("jobs", "list", "--status", "queued", "--json")["jobs"]
    assert [job["id"] for job in queued] == [jobs[2], jobs[0]]
    assert uvian.document("jobs", "list", "--user", _NOBODY, "--json") == {"jobs": []}
    assert len(uvian.document("jobs", "list", "--limit", "1", "--json")["jobs"]) == 1
    table = uvian("jobs", "list").stdout.splitlines()
    assert [line.split()[1] for line in table[1:]] == ["queued", "cancelled", "queued"]


def test_a_job_is_found_by_the_beginning_of_its_id(uvian: Uvian) -> None:
    """As long as it is the only one; four characters at least."""
    first, second = "abcd1111-0000-4000-8000-000000000000", "abcd2222-0000-4000-8000-000000000000"
    for job_id in (first, second):
        uvian.sql(
            "insert into uvian.jobs (id, user_id, type, input) values ($1, $2, 'generation', '{}')",
            uuid.UUID(job_id),
            uuid.UUID(uvian.user_id),
        )
    assert uvian.document("jobs", "show", "abcd1", "--json")["job"]["id"] == first
    assert uvian.document("jobs", "show", second.upper(), "--json")["job"]["id"] == second
    for word, code in (("abcd", 2), ("abc", 2), ("xyz1", 2), ("abcd3", 4)):
        assert uvian("jobs", "show", word).exit_code == code, word


def test_a_cancelled_job_can_be_retried_and_a_waiting_one_cannot(uvian: Uvian) -> None:
    """The refusal says what the job is; a job that had ended is not cancelled."""
    job_id = submitted(uvian)
    refused = uvian("jobs", "retry", job_id)
    assert refused.exit_code == ExitCode.REFUSED
    assert "only failed and cancelled jobs are retried" in refused.stderr
    assert "cancelled" in uvian("jobs", "cancel", job_id).stdout
    assert "was cancelled before" in uvian("jobs", "cancel", job_id).stdout
    again = uvian.document("jobs", "retry", job_id, "--json")
    assert (again["status"], again["run"]) == ("queued", 2)


def test_a_job_is_shown_with_its_error(uvian: Uvian) -> None:
    """The page has the sentence, the code and the stage."""
    job_id = submitted(uvian)
    error = {"code": "timeout", "stage": "asking", "attempt": 3, "retryable": True}
    stages = [{"name": "asking", "label": "Asking", "status": "failed", "ms": 1234.5}]
    uvian.sql(
        "update uvian.jobs set status = 'failed', error = $2::text::jsonb, stages = $3::text::jsonb,"
        " error_message = 'Asking failed: too slow' where id = $1",
        uuid.UUID(job_id),
        orjson.dumps(error).decode(),
        orjson.dumps(stages).decode(),
    )
    page = uvian("jobs", "show", job_id).stdout
    assert "Asking failed: too slow" in page
    assert "timeout in asking, attempt 3" in page
    assert "1.23 s" in page
    assert "Asking failed: too slow" in uvian("jobs", "list").stdout


def test_watch_falls_back_to_the_row_when_the_events_are_gone(uvian: Uvian, redis_url: str) -> None:
    """After a day, or a flush of Redis, the row still knows how a job ended."""
    import redis

    job_id = submitted(uvian)
    uvian("jobs", "cancel", job_id)
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushall()
    watched = uvian("watch", job_id)
    assert watched.exit_code == ExitCode.JOB_FAILED
    assert "cancelled" in watched.stdout
    line = orjson.loads(uvian("watch", job_id, "--json").stdout)
    assert (line["type"], line["job"]["status"]) == ("row", "cancelled")


def test_watch_tells_a_job_that_has_ended_from_its_events(uvian: Uvian) -> None:
    """One line of JSON per event, the ending last."""
    job_id = submitted(uvian)
    uvian("jobs", "cancel", job_id)
    lines = [orjson.loads(line) for line in uvian("watch", job_id, "--json").stdout.splitlines()]
    assert [line["type"] for line in lines] == ["job.queued", "job.cancelled"]
    assert [line["seq"] for line in lines] == [1, 2]


def test_a_database_without_the_schema_says_what_to_run(
    folder: Path, blank_database: CleanDatabase, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next step is one command; so it is for the worker."""
    monkeypatch.setenv("UVIAN_DATABASE_URL", blank_database.superuser_dsn)
    monkeypatch.setenv("UVIAN_REDIS_URL", redis_url)
    uvian = Uvian(_NOBODY, blank_database.superuser_dsn)
    for words in (["jobs", "list"], ["worker"], ["submit", "generation"]):
        result = uvian(*words)
        assert result.exit_code == ExitCode.USAGE, result.output
        assert "uvian migrate" in result.stderr


def test_migrate_brings_a_plain_postgres_up_to_date(
    folder: Path, blank_database: CleanDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bootstrap and migrations in one command; again is a no-op; the status is for scripts."""
    monkeypatch.setenv("UVIAN_DATABASE_URL", blank_database.superuser_dsn)
    uvian = Uvian(_NOBODY, blank_database.superuser_dsn)
    before = uvian("migrate", "--status")
    assert before.exit_code == ExitCode.USAGE
    assert "0001_jobs" in before.stdout
    done = uvian.document("migrate", "--bootstrap", "--json")
    assert done["applied"][0] == "0001_jobs"
    assert uvian.document("migrate", "--json")["applied"] == []
    after = uvian.document("migrate", "--status", "--json")
    assert (after["pending"], after["changed"], after["unknown"]) == ([], [], [])
    assert uvian("migrate", "--status", "--bootstrap").exit_code == ExitCode.USAGE


def test_a_schema_that_is_too_old_names_what_is_missing(uvian: Uvian) -> None:
    """One migration behind is enough to refuse, before anything is done."""
    newest = load().migrations[-1]
    uvian.sql("delete from uvian.schema_migrations where version = $1", newest.version)
    result = uvian("jobs", "list")
    assert result.exit_code == ExitCode.USAGE
    assert f"too old for this release: run `uvian migrate` ({newest.label})" in result.stderr


def test_a_redis_that_wants_a_password_is_a_wrong_setting(
    uvian: Uvian, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reached but not let in: the setting is wrong, and its password stays unsaid."""
    monkeypatch.setenv("UVIAN_REDIS_URL", redis_url.replace("redis://:", "redis://:wrong"))
    result = uvian("submit", "generation", *_INPUT, "--user", uvian.user_id)
    assert result.exit_code == ExitCode.USAGE, result.output
    assert "refuses this user or password" in result.stderr
    assert "wrong" not in result.stderr.replace("wrong password", "")
