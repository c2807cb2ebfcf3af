"""Whatever is sent to whichever endpoint, the answer is one of those that are documented, and no 500."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.adapters import over_postgres_only
from tests.gateway.contract import Contract, Operation
from tests.gateway.site import Caller, Site, someone
from uvian_worker.gateway.app import document

pytestmark = [pytest.mark.database, over_postgres_only]

CONTRACT = Contract(document())
OPERATIONS = [
    operation
    for operation in CONTRACT.operations
    if operation.is_signed_in and operation.id not in ("live", "followJob")
]

#: Everything that JSON can say, and UTF-8 can carry: lone surrogates are no text.
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT | st.just("\0") | st.uuids().map(str),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def near(schema: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """What the schema asks for, more or less, or something else."""
    if depth > 4 or not isinstance(schema, dict):
        return JSON
    if "$ref" in schema:
        return near(CONTRACT.definitions[schema["$ref"].rpartition("/")[2]], depth)
    choices = [near(each, depth + 1) for each in schema.get("anyOf", ())]
    match schema.get("type"):
        case "object":
            fields = {
                name: near(field, depth + 1) for name, field in schema.get("properties", {}).items()
            }
            choices.append(st.fixed_dictionaries({}, optional=fields))
        case "array":
            choices.append(st.lists(near(schema.get("items"), depth + 1), max_size=3))
        case "integer":
            choices.append(st.integers(-1, 200))
        case "string":
            choices += [TEXT, st.sampled_from([*schema.get("enum", ()), "noop", "k", "chat"])]
    return st.one_of(*choices, JSON) if choices else JSON


def request(ids: dict[str, str]) -> st.SearchStrategy[tuple[Operation, str, Any]]:
    """An operation, an address (of what is there, or not), and a body."""

    @st.composite
    def draw(choose: Any) -> tuple[Operation, str, Any]:
        operation = choose(st.sampled_from(OPERATIONS))
        names = {
            name: choose(st.just(ids[name]) | st.just(someone()) | TEXT)
            for name in operation.parameters("path")
        }
        path = operation.route.format(
            **{name: quote(value, safe="") or "-" for name, value in names.items()}
        )
        known = list(operation.parameters("query"))
        query = choose(
            st.dictionaries(
                st.sampled_from(known) | TEXT if known else TEXT,
                TEXT | st.integers(-1, 2**65).map(str) | st.uuids().map(str),
                max_size=3,
            )
            | st.just({})
        )
        body = choose(near(operation.body)) if operation.body is not None else None
        return operation, f"{path}?{urlencode(query)}", body

    return draw()


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
async def test_every_answer_is_a_documented_one(site: Site, data: st.DataObject) -> None:
    """Random addresses, queries and bodies, near to what is asked for and far from it."""
    user, ids = await _somebody(site)
    operation, path, body = data.draw(request(ids))
    if operation.id == "deleteConversation":
        ids.pop("conversation_id", None)
    raw = None if operation.body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if raw else {}
    # Held against the document by the caller.
    reply = await user(operation.method, path, raw=raw, headers=headers)
    assert reply.status < 500, (operation.id, path, body, reply)


_KNOWN: dict[str, tuple[Caller, dict[str, str]]] = {}


async def _somebody(site: Site) -> tuple[Caller, dict[str, str]]:
    """One user for all examples, with one of everything."""
    if site.url not in _KNOWN:
        user = await site.user(1_000)
        job = await site.made(user)
        conversation = await site.world.conversation(user.user_id)
        _KNOWN[site.url] = (
            user,
            {
                "job_id": job["id"],
                "conversation_id": conversation,
                "concept_id": someone(),
                "user_id": user.user_id,
            },
        )
    user, ids = _KNOWN[site.url]
    if "conversation_id" not in ids:
        ids["conversation_id"] = await site.world.conversation(user.user_id)
    return user, ids
