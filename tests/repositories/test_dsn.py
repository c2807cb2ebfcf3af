"""Which connection strings can be read, and which lead to a transaction pooler."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvian_common.dsn import UNREADABLE, BadConnectionString, is_transaction_pool, read


def is_readable(dsn: str) -> bool:
    """Whether it is taken."""
    try:
        read(dsn)
    except BadConnectionString:
        return False
    return True


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://postgres.ref:pw@aws-0-eu.pooler.supabase.com:6543/postgres",
        "postgres://u:p6543@host:6543/postgres?sslmode=require",
        "postgresql://u:p@host:6543",
        "postgresql://u:p@host:6543?sslmode=require",
        "postgresql:///postgres?host=/tmp&port=6543",
        "postgresql:///postgres?host=one:5432,two:6543",
        "postgresql:///postgres?port=5432,6543&host=one,two",
        "postgresql://u@one:5432,two:6543/postgres",
        "postgresql://u@[::1]:6543/postgres",
        "postgresql://u@one:5432%2Ctwo:6543/postgres",
        "postgresql://u@%2Ftmp%2Fpool:6543/postgres",
        "postgresql://u:p@host:5432/postgres?pgbouncer=true&connection_limit=1",
        "postgresql://u:p@host/postgres?pool_mode=transaction",
        "postgresql://u:p@ep-red-fox-1-pooler.eu-central-1.aws.neon.tech/neondb?sslmode=require",
    ],
)
def test_port_6543_is_the_transaction_pooler(dsn: str) -> None:
    """Wherever a connection string may name a port: after a host, one of several, in the query."""
    assert is_transaction_pool(dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:6543@127.0.0.1:1/x",
        "postgresql://u:pw:6543@host/x",
        "postgresql://u:a%3A6543@host:5432/x",
        "postgresql://u@127.0.0.1:1/6543",
        "postgresql://u@host:65430/x",
        "postgresql://u@[fe80::6543]/x",
        "postgresql://u@[fe80::6543]:5432/x",
        "postgresql://u@[fe80/x",
        "postgresql://u@host/x?application_name=a:6543",
        "postgresql://u@ep-red-fox-1.eu-central-1.aws.neon.tech/x",
        "postgresql://u@host/x?pgbouncer=false&pool_mode=session",
        "postgresql://6543@/x?host=/tmp/6543",
        "postgresql://6543/x",
        "no connection string at all",
        "",
    ],
)
def test_a_password_a_name_or_an_address_is_no_port(dsn: str) -> None:
    """Whatever else reads 6543; and a string that is malformed is for others to refuse."""
    assert not is_transaction_pool(dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgres://h/x",
        "postgresql://u:p:w@h:/x",
        "postgresql://u@[::1]:5432/x",
        "postgresql://u@one,two:5433/x?sslmode=require",
        "postgresql:///x?host=/tmp/a:b&port=5432",
        "postgresql://",
        "POSTGRES://h/x",
        "postgresql+asyncpg://h/x",
    ],
)
def test_what_can_be_read_is_left_to_postgres(dsn: str) -> None:
    """Hosts, users and databases are not for us to judge."""
    assert is_readable(dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgres://h:port/x",
        "postgresql://u@h:99999/x",
        "postgresql://u@one:5432,two:p/x",
        "postgresql:///x?port=p",
        "postgresql://u:pa#ss@h/x",
        "postgresql://u:pa/ss@h/x",
        "postgresql://u@::1/x",
        "mysql://h/x",
        "https://x.supabase.co",
        "host=h dbname=x",
        "no connection string at all",
        "",
    ],
)
def test_another_scheme_and_a_port_that_is_none_cannot_be_read(dsn: str) -> None:
    """Also where a password has signs in it that end it."""
    assert not is_readable(dsn)


#: As Supabase, Vercel, Neon, Prisma, node-postgres, SQLAlchemy and libpq's own manual write them.
TAKEN = [
    "pgbouncer=true",
    "pgbouncer=true&connection_limit=1",
    "sslmode=require&supa=base-pooler.x",
    "workaround=supabase-pooler.vercel",
    "sslmode=require&channel_binding=require",
    "connect_timeout=10&pool_timeout=20&socket_timeout=30",
    "schema=public&statement_cache_size=0",
    "application_name=api",
    "fallback_application_name=api",
    "options=-c%20statement_timeout%3D8000",
    "options=-c+search_path=public",
    "options=reference%3Dabcdefgh",
    "target_session_attrs=read-write",
    "keepalives=1&keepalives_idle=30&tcp_user_timeout=5000",
    "gssencmode=disable",
    "uselibpqcompat=true&sslmode=no-verify",
    "ssl=require",
    "statement_timeout=5000&TimeZone=UTC",
    "uvian.note=x",
    "prepared_statements=false&prepareThreshold=0",
]
REFUSED = {
    "foo=bar": "foo",
    "sslmod=require": "Did you mean sslmode?",
    "sslmode=always": "sslmode",
    "target_session_attrs=master": "target_session_attrs",
    "hostaddr=10.0.0.1": "hostaddr",
    "currentSchema=x": "currentSchema",
    "gssencmode=require": "gssencmode",
    "require_auth=scram-sha-256": "require_auth",
    "ssl=true": "sslmode=require",
    "connect_timeout=soon": "connect_timeout",
    "a-b=1": "it reads postgresql://",
}


@pytest.mark.parametrize("query", TAKEN)
def test_what_platforms_write_for_other_drivers_does_not_reach_the_server(query: str) -> None:
    """asyncpg would send what it does not know as a setting: 42704, and no connection."""
    given_to = read(f"postgresql://u:p@h/x?{query}").arguments(5.0)["dsn"]
    for word in ("pgbouncer", "supa", "schema=", "connect_timeout", "workaround", "keepalives"):
        assert word not in given_to
    assert read(f"postgresql://u:p@h/x?{query}&sslmode=disable").text


@pytest.mark.parametrize(("query", "named"), REFUSED.items())
def test_what_is_not_known_is_named(query: str, named: str) -> None:
    """The parameter and what to write instead, never its value."""
    with pytest.raises(BadConnectionString) as wrong:
        read(f"postgresql://u:secret@h/x?{query}")
    assert named in str(wrong.value)
    assert "secret" not in str(wrong.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres:[YOUR-PASSWORD]@h:5432/postgres",
        "postgresql://postgres:[s3cret!]@h:5432/postgres",
        "postgresql://postgres:<s3cret!>@h:5432/postgres",
        "postgresql://postgres:${s3cret!}@h:5432/postgres",
        "postgresql://postgres.[s3cret!]:x@h:5432/postgres",
    ],
)
def test_brackets_that_were_left_are_told(url: str) -> None:
    """It is how the dashboard marks what has to be replaced."""
    with pytest.raises(BadConnectionString, match="has brackets left") as wrong:
        read(url)
    assert "s3cret" not in str(wrong.value)


def test_brackets_that_are_meant_can_be_written() -> None:
    """Escaped, like every other sign; half a pair is no placeholder."""
    assert read("postgresql://u:%5Bpw%5D@h/x").url.password == "[pw]"
    assert read("postgresql://u:a[b@h/x").text == "postgresql://u:a%5Bb@h/x"


def test_the_time_to_connect_is_the_shorter_one() -> None:
    """A string may ask for less than the setting, and 0 asks for nothing."""
    seconds = [
        read(f"postgresql://h/x?connect_timeout={asked}").arguments(10.0)["timeout"]
        for asked in ("3", "60", "0", "")
    ]
    assert seconds == [3.0, 10.0, 10.0, 10.0]


def test_certificates_are_looked_for_before_anything_connects(tmp_path: object) -> None:
    """A file that is not there, and none where one is needed, are settings to mend and no outage."""
    with pytest.raises(BadConnectionString, match="sslrootcert that is not there"):
        read(f"postgresql://h/x?sslmode=verify-full&sslrootcert={tmp_path}/none").arguments(5)
    with pytest.raises(BadConnectionString, match="add sslrootcert="):
        read("postgresql://h/x?sslmode=verify-full").arguments(5)
    assert "ssl" in read("postgresql://h/x?sslmode=verify-full&sslrootcert=system").arguments(5)


PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=8, max_size=20)


@given(
    PASSWORDS,
    st.sampled_from(["postgresql://u:{}@h:5432/x", "postgres://u:{}@h/x?sslmode=require"]),
)
def test_no_password_whatever_is_in_it_gets_into_an_error(password: str, form: str) -> None:
    """Unescaped, it is either read as it stands or refused in words of ours, with none of its own."""
    said = ""
    try:
        found = read(form.format(password))
        assert found.url.hosts.startswith("h")
        assert read(found.text) == found
    except BadConnectionString as wrong:
        said = str(wrong)
    pieces = [password[start : start + 5] for start in range(len(password) - 4)]
    assert all(piece in UNREADABLE for piece in pieces if piece in said), said


@given(PASSWORDS)
def test_a_password_that_is_escaped_is_taken_as_it_is(password: str) -> None:
    """Every sign, and reading what was written changes nothing."""
    found = read(f"postgresql://u:{quote(password, safe='')}@h:5432/x")
    assert found.url.password == password
    assert read(found.text) == found
