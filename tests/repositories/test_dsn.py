"""Which connection strings can be read, and which lead to a transaction pooler."""

from __future__ import annotations

import pytest

from repositories.dsn import is_readable, is_transaction_pool


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
