"""Servers for the whole session, and a clean database or Redis for each test that asks for one."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest
import redis

from tests.adapters import ADAPTERS, Adapter, OverPostgres, OverSupabase
from tests.servers import POSTGRES_BINARIES, REDIS_BINARY, CleanDatabase, Clones, server_folder
from tests.supabase.platform import Platform
from uvian_worker.local.embedded import EmbeddedPostgres, EmbeddedRedis

# A developer's own settings must neither help nor hurt; asyncpg reads PGHOST and its like.
for _name in [name for name in os.environ if name.startswith(("UVIAN_", "PG"))]:
    del os.environ[_name]

# Under xdist `coverage` measures those who run tests, not the processes that they start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_START", None)

# A shell that starts us in the background has us ignore Ctrl-C, and with us every process of a test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Nobody here speaks TLS, and reading the world's authorities takes longer than most tests.
os.environ["SSL_CERT_DIR"] = os.devnull
os.environ.pop("SSL_CERT_FILE", None)

# A deadline for one example measures what else the machine is doing. `make thorough` tries more.
hypothesis.settings.register_profile("uvian", deadline=None, max_examples=50)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("uvian")

# A browser's driver is not in the lock: `make e2e` brings it, and names what else is missing.
collect_ignore = [] if find_spec("playwright") else ["e2e"]

# The suites of the contracts explain their failures like tests do.
pytest.register_assert_rewrite("tests.contracts")


#: Each suite is chosen by its mark (`make database`, …); `make unit` runs what has none of them.
_SUITES = ("database", "processes", "e2e", "real")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A suite imports no file without a test of it: each of its processes would import all of them."""
    suite = config.option.markexpr
    if not suite or not collection_path.name.startswith("test_"):
        return None
    if suite in _SUITES:
        return None if _names(suite, collection_path) else True
    text = collection_path.read_text()
    of_whole_file = re.search(r"^pytestmark = \[?\s*pytest\.mark\.(\w+)", text, re.MULTILINE)
    return True if of_whole_file and f"not {of_whole_file[1]}" in suite else None


def _names(suite: str, path: Path) -> bool:
    """Whether a file may have tests of a suite: by their mark, or by fixtures that bring it."""
    if f"mark.{suite}" in path.read_text():
        return True
    fixtures = path.with_name("conftest.py")
    return suite == "database" and fixtures.exists() and "redis_servers" in fixtures.read_text()


def pytest_itemcollected(item: pytest.Item) -> None:
    """What the suites would not import has no tests of theirs (`make unit` sees every mixed file)."""
    for mark in item.iter_markers():
        if mark.name in _SUITES and not _names(mark.name, item.path):
            raise pytest.UsageError(
                f"{item.nodeid}: 'pytest.mark.{mark.name}' has to stand in its file"
            )


@pytest.fixture(scope="session")
def _servers() -> Iterator[Path]:
    with server_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_server(_servers: Path) -> Iterator[EmbeddedPostgres]:
    """The session's Postgres. A test that stops or kills a server starts its own."""
    folder = _servers / "postgres"
    with EmbeddedPostgres(folder, durable=False, binaries=POSTGRES_BINARIES) as server:
        yield server


@pytest.fixture(scope="session")
def clones(postgres_server: EmbeddedPostgres) -> Iterator[Clones]:
    """Databases from templates of the session's Postgres."""
    clones = Clones(postgres_server)
    yield clones
    clones.close()


@pytest.fixture(scope="session")
def database_template(clones: Clones) -> Clones:
    """The template is there: bootstrapped, and migrated as the customer's role."""
    clones.prepare()
    return clones


@pytest.fixture
def database(database_template: Clones) -> Iterator[CleanDatabase]:
    """A migrated database without rows, gone after the test."""
    database = database_template.clone()
    yield database
    database_template.drop(database)


@pytest.fixture
def database_dsn(database: CleanDatabase) -> str:
    """The connection string of ``database`` as the owner of the schema."""
    return database.dsn


@pytest.fixture
def superuser_dsn(database: CleanDatabase) -> str:
    """The connection string of ``database`` as a superuser, who may write ``auth.users``."""
    return database.superuser_dsn


@pytest.fixture
def platform(database: CleanDatabase, tmp_path: Path) -> Iterator[Platform]:
    """A Supabase project on ``database``: PostgREST and Storage behind one address."""
    with Platform(database.authenticator_dsn, tmp_path / "storage") as platform:
        yield platform


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest, database: CleanDatabase) -> Adapter:
    """The way to ``database``: the test runs once over each. ``-k supabase`` chooses one."""
    if request.param == "postgres":
        return OverPostgres(database)
    return OverSupabase(database, request.getfixturevalue("platform"))


@pytest.fixture
def blank_database(clones: Clones) -> Iterator[CleanDatabase]:
    """A database that was neither bootstrapped nor migrated, gone after the test."""
    database = clones.blank()
    yield database
    clones.drop(database)


@pytest.fixture(scope="session")
def redis_server(_servers: Path) -> Iterator[EmbeddedRedis]:
    """The session's Redis. A test that stops or kills a server starts its own."""
    with EmbeddedRedis(_servers / "redis", binary=REDIS_BINARY) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """The URL of an empty Redis."""
    with redis.Redis.from_url(redis_server.url) as connection:
        connection.flushall()
    return redis_server.url
