"""Who may do what: every endpoint, asked by nobody, by strangers, and in every wrong way."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adapters import OverPostgres, over_postgres_only
from tests.gateway.contract import Contract, Operation
from tests.gateway.site import Caller, Site, config_of, opened, someone
from tests.gateway.tokens import SigningKey, claims_of, signed, unsigned
from tests.lifecycle.world import World
from uvian_worker.gateway.app import document

pytestmark = pytest.mark.database

CONTRACT = Contract(document())
SIGNED_IN = [operation for operation in CONTRACT.operations if operation.is_signed_in]
WITH_PATH = [operation for operation in SIGNED_IN if "{" in operation.route]
WITH_BODY = [operation for operation in SIGNED_IN if operation.body is not None]

#: Bodies that are right in themselves.
BODIES: dict[str, Any] = {
    "createJob": {"type": "noop"},
    "retryJob": {"expected_run": 1},
    "createConversation": {},
    "updateConversation": {"title": "x"},
    "addMembers": {"user_ids": [someone()]},
    "postMessage": {"content": "x"},
    "signFiles": {"paths": ["x"]},
    "calculateCost": {"type": "noop"},
}


def each(operations: list[Operation]) -> Any:
    """The test once per operation."""
    return pytest.mark.parametrize("operation", operations, ids=lambda each: str(each.id))


def at(operation: Operation, **ids: str) -> str:
    """Its address; what is not given is an id that nobody has."""
    return operation.route.format(
        **{name: ids.get(name, someone()) for name in operation.parameters("path")}
    )


async def ask(caller: Caller, operation: Operation, path: str = "") -> Any:
    """A request that is right but for what the test is about."""
    return await caller(operation.method, path or at(operation), BODIES.get(operation.id))
