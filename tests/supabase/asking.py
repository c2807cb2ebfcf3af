"""What the tests of the platform ask with."""

from __future__ import annotations

__all__ = ["BUCKET", "PNG", "answered", "refused", "response", "storage_refused"]

from collections.abc import Awaitable
from typing import Any, Final

import httpx
import pytest
from postgrest import APIError
from storage3.exceptions import StorageApiError
from storage3.types import FileOptions

from tests.supabase.platform import Platform

BUCKET: Final = "uvian-images"
PNG: Final[FileOptions] = {"content-type": "image/png"}


async def answered(query: Any) -> Any:
    """The data of a query's answer."""
    return (await query.execute()).data


async def refused(query: Any) -> APIError:
    """What a query that fails is answered with."""
    with pytest.raises(APIError) as caught:
        await query.execute()
    return caught.value


async def storage_refused(call: Awaitable[Any]) -> tuple[int, str, str]:
    """The status in the body, the error and the message."""
    with pytest.raises(StorageApiError) as caught:
        await call
    return int(caught.value.status), caught.value.code, caught.value.message


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
