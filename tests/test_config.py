"""What settings mean together."""

from __future__ import annotations

import pytest

from uvian_worker.config import Config

DIRECT = "postgresql://u:p@host:5432/x"
POOLED = "postgresql://u:p@host:6543/x"


@pytest.mark.parametrize(
    ("database_url", "direct_url", "expected"),
    [
        (DIRECT, None, DIRECT),
        ("postgresql://u:6543@host:5432/x", None, "postgresql://u:6543@host:5432/x"),
        (POOLED, None, None),
        (POOLED, DIRECT, DIRECT),
        (DIRECT, "postgresql://u:p@other/x", "postgresql://u:p@other/x"),
        (None, DIRECT, DIRECT),
        (None, None, None),
    ],
)
def test_listen_needs_a_session(
    database_url: str | None, direct_url: str | None, expected: str | None
) -> None:
    """The direct connection where there is one; never a transaction pooler."""
    config = Config.load({}, database_url=database_url, database_direct_url=direct_url)
    assert config.listen_url() == expected
