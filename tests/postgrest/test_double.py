"""What the double is held to, a real PostgREST is held to: a double that differs would hide faults."""

from __future__ import annotations

import pytest

from tests.supabase.conftest import connect, sandbox, service, superuser, user  # noqa: F401
from tests.supabase.test_calls import *  # noqa: F403
from tests.supabase.test_rest import *  # type: ignore[assignment]  # noqa: F403

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("sandbox")]
