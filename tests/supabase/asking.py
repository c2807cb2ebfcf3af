"""What the tests of the platform ask with."""

from __future__ import annotations

__all__ = ["answered", "refused", "response"]

from typing import Any

import httpx
import pytest
from postgrest import APIError

from tests.supabase.platform import Platform


async def answered(query: Any) -> Any:
    """The data of a query's answer."""
    return (await query.execute()).data


async def refused(query: Any) -> APIError:
    """What a query that fails is answered with."""
    with pytest.raises(APIError) as caught:
        await query.execute()
    return caught.value


async def response(
    platform: Platform,
    method: str,
    path: str,
    *,
    key: str | None = None,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> httpx.Response:
    """An answer with its HTTP status, which supabase-py keeps to itself; as the service, or by key."""
    key = key or platform.secret_key
    sent = {"apikey": key, "Authorization": f"Bearer {key}", **(headers or {})}
    async with httpx.AsyncClient(timeout=30) as http:
        return await http.request(method, f"{platform.url}{path}", headers=sent, **options)
