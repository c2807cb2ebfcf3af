"""Our adapter on a real PostgREST: the contract of the port."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from repositories.supabase import SupabaseDatabase
from tests.repositories.conftest import hand, service, user  # noqa: F401 - fixtures
from tests.repositories.test_supabase import SupabaseContract

pytestmark = pytest.mark.e2e


class TestRealPostgRest(SupabaseContract):
    """It keeps the promises of the port."""

    @pytest.fixture
    async def port(self, service: SupabaseDatabase) -> AsyncIterator[SupabaseDatabase]:  # noqa: F811
        """With one kind of key: the double's gateway makes the same of both."""
        yield service  # noqa: PT022 - as the one it overrides
