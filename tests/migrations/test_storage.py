"""The bucket and its policy: made where the platform lets us, otherwise a notice with the steps."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import orjson
import pytest
from typer.testing import CliRunner

from repositories.supabase.images import _AS_IT_SHOULD_BE
from tests.migrations.supabase_cli import SupabaseCli
from tests.servers import CleanDatabase
from uvian_worker.cli import app
from uvian_worker.schema.export import export
from uvian_worker.schema.history import load
from uvian_worker.schema.migrate import bootstrap, look, migrate, status

pytestmark = pytest.mark.database

Connection: TypeAlias = "asyncpg.Connection[Any]"

ADA, BOB = "00000000-0000-4000-8000-0000000000ad", "00000000-0000-4000-8000-0000000000b0"
BUCKET = {
    "id": "uvian-images",
    "name": "uvian-images",
    "public": False,
    "file_size_limit": 32 * 1024 * 1024,
    "allowed_mime_types": ["image/png", "image/webp", "image/jpeg"],
}
PLATFORM = next(file for file in load().files if file.label == "platform")
DOCS = Path(__file__).parents[2] / "docs" / "migrations.md"


@pytest.fixture
async def superuser(plain: CleanDatabase) -> AsyncIterator[Connection]:
    """Behind the scenes of a database that is not migrated yet."""
    connection = await asyncpg.connect(plain.superuser_dsn)
    yield connection
    await connection.close()


async def bucket(superuser: Connection) -> dict[str, Any] | None:
    """Our bucket's row, as far as this test asks."""
    row = await superuser.fetchrow("select * from storage.buckets where id = 'uvian-images'")
    return {key: row[key] for key in BUCKET if key in row} if row else None


async def has_policy(superuser: Connection) -> bool:
    """Whether our policy is there."""
    return bool(
        await superuser.fetchval(
            "select exists (select from pg_policies where schemaname = 'storage' "
            "and tablename = 'objects' and policyname = 'uvian_images_owner')"
        )
    )


async def seen(database: CleanDatabase, role: str, user: str | None) -> set[str]:
    """The paths that somebody reads through PostgREST or the Storage API."""
    connection = await asyncpg.connect(database.authenticator_dsn)
    try:
        async with connection.transaction():
            await connection.execute(f"set local role {role}")
            claims = orjson.dumps({"role": role, "sub": user}).decode()
            await connection.execute("select set_config('request.jwt.claims', $1, true)", claims)
            rows = await connection.fetch("select name from storage.objects")
    finally:
        await connection.close()
    return {row["name"] for row in rows}


async def store(superuser: Connection) -> None:
    """Pictures of two users, one at the top, and one in another bucket."""
    await superuser.execute("insert into storage.buckets (id, name) values ('other', 'other')")
    await superuser.executemany(
        "insert into storage.objects (bucket_id, name) values ($1, $2)",
        [
            ("uvian-images", f"{ADA}/a/1.png"),
            ("uvian-images", f"{BOB}/b/1.png"),
            ("uvian-images", f"x/{ADA}/1.png"),
            ("uvian-images", f"{ADA}.png"),
            ("other", f"{ADA}/2.png"),
        ],
    )


async def test_bucket_and_policy_are_made(plain: CleanDatabase, superuser: Connection) -> None:
    """As on Supabase: a private bucket with its limits, and nothing to do for anybody."""
    report = await migrate(plain.dsn)
    assert report.notices == ()
    assert await bucket(superuser) == BUCKET
    assert await has_policy(superuser)


async def test_a_user_reads_what_is_under_their_own_name(
    plain: CleanDatabase, superuser: Connection
) -> None:
    """The first element of the path decides; strangers and anonymous callers see nothing."""
    await migrate(plain.dsn)
    await store(superuser)
    assert await seen(plain, "authenticated", ADA) == {f"{ADA}/a/1.png"}
    assert await seen(plain, "authenticated", BOB) == {f"{BOB}/b/1.png"}
    assert await seen(plain, "authenticated", None) == set()
    assert await seen(plain, "anon", None) == set()
    assert await seen(plain, "anon", ADA) == set()


async def test_users_only_read(plain: CleanDatabase, superuser: Connection) -> None:
    """Files are written by workers: a user neither uploads nor deletes, not even in the own folder."""
    await migrate(plain.dsn)
    await store(superuser)
    connection = await asyncpg.connect(plain.authenticator_dsn)
    try:
        await connection.execute("set role authenticated")
        claims = orjson.dumps({"role": "authenticated", "sub": ADA}).decode()
        await connection.execute("select set_config('request.jwt.claims', $1, false)", claims)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(
                "insert into storage.objects (bucket_id, name) values ('uvian-images', $1)",
                f"{ADA}/mine.png",
            )
        assert await connection.execute("delete from storage.objects") == "DELETE 0"
        assert await connection.execute("update storage.objects set name = 'x'") == "UPDATE 0"
    finally:
        await connection.close()


async def test_again_changes_nothing(plain: CleanDatabase, superuser: Connection) -> None:
    """What is there is left as it is, the limits that an operator changed too."""
    await migrate(plain.dsn)
    await superuser.execute(
        "update storage.buckets set file_size_limit = 1 where id = 'uvian-images'"
    )
    migrator = await asyncpg.connect(plain.dsn)
    await migrator.execute(PLATFORM.sql)
    await migrator.close()
    assert await bucket(superuser) == {**BUCKET, "file_size_limit": 1}
    assert (
        await superuser.fetchval("select count(*) from pg_policies where schemaname = 'storage'")
        == 1
    )


async def test_a_refusal_is_a_notice_with_the_dashboards_steps(
    plain: CleanDatabase, superuser: Connection
) -> None:
    """One for each of the two; everything else is applied, and the schema is usable."""
    await bootstrap(plain.superuser_dsn, storage_policies=False)
    report = await migrate(plain.dsn)
    first, second = report.notices
    assert [finding.part for finding in report.missing] == ["bucket", "policy"]
    assert {first.migration, second.migration} == {PLATFORM.label}
    assert "bucket uvian-images was not made (new row violates row-level security" in first.message
    assert "Storage > New bucket: name uvian-images, not public" in first.message
    assert (
        "policy uvian_images_owner was not made (must be owner of table objects)" in second.message
    )
    assert "Storage > Policies" in second.message
    assert (await bucket(superuser), await has_policy(superuser)) == (None, False)
    (await status(plain.dsn)).require_usable()


async def test_the_steps_reach_who_runs_the_command(
    plain: CleanDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`uvian migrate` shows each once, marked; so does every later run, as long as it is so."""
    await bootstrap(plain.superuser_dsn, storage_policies=False)
    monkeypatch.setenv("UVIAN_DATABASE_URL", plain.dsn)
    said = await _command("migrate")
    assert said.count(f"! {PLATFORM.label}: The bucket uvian-images was not made") == 1
    assert said.count(f"! {PLATFORM.label}: The policy uvian_images_owner was not made") == 1
    assert "definition: bucket_id = 'uvian-images' and (storage.foldername(name))[1]" in said
    for words in (("migrate",), ("migrate", "--status")):
        said = await _command(*words)
        assert said.count("! This role does not see whether the bucket uvian-images is there") == 1
        assert said.count("! The policy uvian_images_owner is missing") == 1
        assert said.count("Storage > New bucket: name uvian-images") == 1
    await bootstrap(plain.superuser_dsn)
    said = await _command("migrate")
    assert "✓ made: the bucket uvian-images" in said
    assert "✓ made: the policy uvian_images_owner" in said
    assert "!" not in said + await _command("migrate") + await _command("migrate", "--status")


async def _command(*words: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


async def test_who_pushes_with_the_cli_asks_for_the_status(
    plain: CleanDatabase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`supabase db push` shows no notices: what was refused is told by us, and mended by us later."""
    await bootstrap(plain.superuser_dsn, storage_policies=False)
    export(folder)
    await SupabaseCli(plain.dsn, folder).push()
    monkeypatch.setenv("UVIAN_DATABASE_URL", plain.dsn)
    assert "In the dashboard" in await _command("migrate", "--status")
    await bootstrap(plain.superuser_dsn)
    assert "made: the bucket uvian-images" in await _command("migrate")


#: What a project may lack, how it comes to, and what is said of it.
LACKS = {
    "bucket": ("delete from storage.buckets where id = 'uvian-images'", "uvian-images is missing"),
    "policy": (
        "drop policy uvian_images_owner on storage.objects",
        "uvian_images_owner is missing",
    ),
    "jobs": ("alter publication supabase_realtime drop table uvian.jobs", "uvian.jobs is not in"),
    "messages": (
        "alter publication supabase_realtime drop table uvian.messages",
        "uvian.messages is not in",
    ),
}
#: What only the operator can mend.
OPERATORS = {
    "public": (
        "update storage.buckets set public = true where id = 'uvian-images'",
        "uvian-images is public",
    ),
    "exposed": (
        "alter role authenticator in database \"{database}\" set pgrst.db_schemas = 'public, graphql_public'",
        "The API does not serve the schema uvian",
    ),
}


@pytest.mark.parametrize("lack", LACKS)
async def test_what_is_lost_later_is_told_and_made_again(
    plain: CleanDatabase, superuser: Connection, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    """With nothing pending: `--status` says so and changes nothing, the next `migrate` mends it."""
    await migrate(plain.dsn)
    await superuser.execute(LACKS[lack][0])
    monkeypatch.setenv("UVIAN_DATABASE_URL", plain.dsn)
    for _ in range(2):
        assert LACKS[lack][1] in await _command("migrate", "--status")
    found = (await look(plain.dsn)).missing
    assert [finding.part for finding in found] == [lack]
    report = await migrate(plain.dsn)
    assert (report.applied, report.made, report.missing) == ((), (lack,), ())
    assert (await look(plain.dsn)).missing == ()


@pytest.mark.parametrize("lack", OPERATORS)
async def test_what_only_the_operator_may_change_is_told(
    plain: CleanDatabase, superuser: Connection, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    """With the steps, by every run and by `--status`, in words and as JSON."""
    await migrate(plain.dsn)
    await superuser.execute(OPERATORS[lack][0].format(database=plain.name))
    monkeypatch.setenv("UVIAN_DATABASE_URL", plain.dsn)
    for words in (("migrate",), ("migrate", "--status")):
        said = await _command(*words)
        assert OPERATORS[lack][1] in said
        assert "→ In the dashboard" in said
    document = orjson.loads(await _command("migrate", "--status", "--json"))
    assert [each["part"] for each in document["missing"]] == [lack]


async def test_a_schema_that_is_exposed_in_the_database_is_not_missed(
    plain: CleanDatabase, superuser: Connection
) -> None:
    """Quoted or not; what stands elsewhere is not known, and nothing is said of it."""
    await migrate(plain.dsn)
    for schemas in ("public, uvian", 'public,"uvian"', "uvian"):
        await superuser.execute(
            f"alter role authenticator in database \"{plain.name}\" set pgrst.db_schemas = '{schemas}'"
        )
        assert (await look(plain.dsn)).missing == ()


async def test_the_service_sees_what_is_missing_and_users_do_not(
    plain: CleanDatabase, superuser: Connection
) -> None:
    """A worker over the API asks as service_role, which may not change anything of it."""
    await migrate(plain.dsn)
    for statement, _ in LACKS.values():
        await superuser.execute(statement)
    connection = await asyncpg.connect(plain.authenticator_dsn)
    try:
        await connection.execute("set role service_role")
        found = orjson.loads(await connection.fetchval("select uvian.platform_state()"))
        assert [each["part"] for each in found["missing"]] == list(LACKS)
        for role, call in (
            ("service_role", "uvian._set_up_platform()"),
            ("authenticated", "uvian.platform_state()"),
            ("anon", "uvian.platform_state()"),
        ):
            await connection.execute(f"set role {role}")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"select {call}")
    finally:
        await connection.close()


def test_both_ways_make_the_same_bucket() -> None:
    """Over a connection and through the Storage API."""
    kept = ("public", "file_size_limit", "allowed_mime_types")
    assert {name: BUCKET[name] for name in kept} == _AS_IT_SHOULD_BE


@pytest.mark.parametrize("refused", ["buckets", "objects"])
async def test_each_of_the_two_stands_alone(
    plain: CleanDatabase, superuser: Connection, refused: str
) -> None:
    """A refused policy does not undo the bucket, nor the other way round."""
    await superuser.execute(f"alter table storage.{refused} owner to supabase_storage_admin")
    (notice,) = (await migrate(plain.dsn)).notices
    assert ("bucket" if refused == "buckets" else "policy") in notice.message.split(" was not")[0]
    assert (await bucket(superuser) is None) == (refused == "buckets")
    assert await has_policy(superuser) == (refused == "buckets")


async def test_steps_done_by_hand_later_work_the_same(
    plain: CleanDatabase, superuser: Connection
) -> None:
    """The dashboard makes the bucket (as the platform's role) and the policy, after our notice."""
    await bootstrap(plain.superuser_dsn, storage_policies=False)
    _, policy = (await migrate(plain.dsn)).notices
    definition = policy.message.partition("definition: ")[2]
    await superuser.execute(
        "insert into storage.buckets (id, name) values ('uvian-images', 'uvian-images')"
    )
    await superuser.execute(
        "create policy uvian_images_owner on storage.objects for select to authenticated "
        f"using ({definition})"
    )
    await store(superuser)
    assert await seen(plain, "authenticated", ADA) == {f"{ADA}/a/1.png"}
    assert await seen(plain, "anon", None) == set()


async def test_a_bucket_that_is_there_is_kept_and_gets_its_policy(
    plain: CleanDatabase, superuser: Connection
) -> None:
    """Somebody made it first, with a limit of their own."""
    await superuser.execute(
        "insert into storage.buckets (id, name, public, file_size_limit) "
        "values ('uvian-images', 'uvian-images', false, 5)"
    )
    assert (await migrate(plain.dsn)).notices == ()
    found = await bucket(superuser)
    assert found is not None
    assert found["file_size_limit"] == 5
    assert await has_policy(superuser)


async def test_a_public_bucket_is_warned_of(plain: CleanDatabase, superuser: Connection) -> None:
    """Whoever knows a path would see a picture without any token."""
    await superuser.execute(
        "insert into storage.buckets (id, name, public) values ('uvian-images', 'uvian-images', true)"
    )
    (notice,) = (await migrate(plain.dsn)).notices
    assert notice.severity == "WARNING"
    assert "The bucket uvian-images is public" in notice.message
    assert "Public bucket: off" in notice.message


@pytest.mark.parametrize(
    "missing",
    [
        ["allowed_mime_types"],
        ["allowed_mime_types", "file_size_limit"],
        ["allowed_mime_types", "file_size_limit", "public", "owner_id", "avif_autodetection"],
    ],
    ids=len,
)
async def test_an_older_storage_gets_what_it_knows(
    plain: CleanDatabase, superuser: Connection, missing: list[str]
) -> None:
    """Self-hosted projects lag behind: a column that is not there is left out."""
    for column in missing:
        await superuser.execute(f"alter table storage.buckets drop column {column}")
    assert (await migrate(plain.dsn)).notices == ()
    expected = {key: value for key, value in BUCKET.items() if key not in missing}
    assert await bucket(superuser) == expected
    assert await has_policy(superuser)


async def test_without_storage_it_says_what_pictures_need(
    plain: CleanDatabase, superuser: Connection
) -> None:
    """A Postgres with the roles and auth alone: one notice, and everything else works."""
    await superuser.execute("drop schema storage cascade")
    (notice,) = (await migrate(plain.dsn)).notices
    assert "There is no Supabase Storage" in notice.message
    assert "UVIAN_IMAGES_DIR" in notice.message
    (await status(plain.dsn)).require_usable()


async def test_a_storage_that_is_closed_to_us_is_refused_twice(
    plain: CleanDatabase, superuser: Connection
) -> None:
    """Not even the schema may be looked into: both steps, no failure."""
    await bootstrap(plain.superuser_dsn, storage_policies=False)
    await superuser.execute("revoke usage on schema storage from uvian_migrator")
    assert len((await migrate(plain.dsn)).notices) == 2


def test_the_page_has_every_notice_and_the_policys_definition() -> None:
    """Who lost the output of a migration finds the steps in docs/migrations.md."""
    page = DOCS.read_text(encoding="utf-8")
    for file in load().files:
        for said in re.findall(r"raise (?:notice|warning) '([^']+)", file.sql):
            opening = re.split(r" \(%|[:.]", said)[0]
            assert f"| {opening}" in page, opening
    functions = next(each for each in load().files if each.label == "functions/platform")
    definition = re.search(r"using \((bucket_id = .*)\);", functions.sql)
    assert definition is not None
    assert f"\n{definition[1]}\n" in page
