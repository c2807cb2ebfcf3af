"""Which connection strings lead to a transaction pooler."""

from __future__ import annotations

import pytest

from repositories.dsn import is_transaction_pool


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
        "no connection string at all",
        "",
    ],
)
def test_a_password_a_name_or_an_address_is_no_port(dsn: str) -> None:
    """Whatever else reads 6543; and a string that is malformed is for others to refuse."""
    assert not is_transaction_pool(dsn)
