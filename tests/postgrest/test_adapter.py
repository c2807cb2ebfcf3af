"""Our adapter on a real PostgREST: the contract of the port."""

from __future__ import annotations

import pytest

from tests.repositories.conftest import hand, service, user  # noqa: F401 - fixtures
from tests.repositories.test_supabase import SupabaseContract

pytestmark = pytest.mark.e2e


class TestRealPostgRest(SupabaseContract):
    """It keeps the promises of the port."""
