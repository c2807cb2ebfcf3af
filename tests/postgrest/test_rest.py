"""What the double of a project is held to, a real PostgREST is held to: it cannot drift."""

from __future__ import annotations

import pytest

from tests.contracts.rest import RestCalls, RestRows
from tests.supabase.conftest import connect, sandbox, service, superuser, user  # noqa: F401

pytestmark = pytest.mark.e2e


class TestRows(RestRows):
    """Tables."""


class TestCalls(RestCalls):
    """Functions."""
