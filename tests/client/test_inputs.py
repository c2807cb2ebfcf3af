"""Inputs are checked before a job is made: by whom, against what, and how often that is looked up."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import orjson
import pytest

from executors.refinement import RefinementInput
from executors.registry import BUILT_IN, Registry
from tests.adapters import Adapter
from uvian_worker.client import Client
from uvian_worker.client.calls import DatabaseAway, JobRefused
from uvian_worker.client.inputs import Inputs
from uvian_worker.client.schemas import mistakes_of, sentence_of

USER = str(uuid.uuid4())
NUMBER = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
TEXT = {"properties": {"n": {"type": "string"}}}


class Types:
    """A database whose types may change, or that may be away."""

    def __init__(self) -> None:
        self.types: dict[str, Any] = {"t": NUMBER}
        self.now = 0.0
        self.reads = 0
        self.away = False
        self.inputs = Inputs(self.read, clock=lambda: self.now)

    async def read(self) -> dict[str, Any]:
        self.reads += 1
        if self.away:
            raise DatabaseAway("away")
        return dict(self.types)

    async def refusal(self, document: dict[str, Any], type_: str = "t") -> str | None:
        """The sentence, or None where it fits."""
        try:
            await self.inputs.require_valid(type_, document)
        except JobRefused as refused:
            return str(refused.details["message"])
        return None


async def test_schemas_are_read_now_and_then() -> None:
    """Not for each job; what passes is believed for a minute."""
    types = Types()
    for _ in range(50):
        assert await types.refusal({"n": 1}) is None
    assert types.reads == 1
    types.now = 59
    assert await types.refusal({"n": 1}) is None
    assert types.reads == 1
    types.now = 61
    assert await types.refusal({"n": 1}) is None
    assert types.reads == 2


async def test_many_at_once_ask_once() -> None:
    """An API that has just started, under load."""
    types = Types()
    assert set(await asyncio.gather(*(types.refusal({"n": 1}) for _ in range(40)))) == {None}
    assert types.reads == 1


async def test_nothing_is_refused_by_a_schema_of_yesterday() -> None:
    """A newer release may take what the older one refused."""
    types = Types()
    assert await types.refusal({"n": "x"}) == "n should be a whole number."
    types.types["t"] = TEXT
    types.now = 3
    assert await types.refusal({"n": "x"}) is None
    assert await types.refusal({"n": 1}) == "n should be a string."


async def test_types_that_are_new_or_unknown() -> None:
    """A new one is known at once after two seconds; an unknown one is the database's to refuse."""
    types = Types()
    assert await types.refusal({}, "new") is None
    types.types["new"] = NUMBER
    types.now = 2.5
    assert await types.refusal({}, "new") == "n is missing."
    for _ in range(20):
        assert await types.refusal({}, "none") is None
    assert types.reads == 2


async def test_a_database_that_is_away_is_told_as_such_unless_the_schema_is_known() -> None:
    """What is known will do."""
    types = Types()
    types.away = True
    with pytest.raises(DatabaseAway):
        await types.refusal({"n": 1})
    types.away = False
    assert await types.refusal({"n": 1}) is None
    types.away, types.now = True, 100
    assert await types.refusal({"n": 1}) is None
    assert await types.refusal({"n": "x"}) == "n should be a whole number."


async def test_inputs_are_looked_at_as_they_are_sent() -> None:
    """Ids and times become text on their way; what is no JSON is refused here."""
    types = Types()
    types.types["t"] = TEXT
    assert await types.refusal({"n": uuid.uuid4()}) is None
    assert await types.refusal({"n": datetime.now(UTC)}) is None
    assert "not JSON" in str(await types.refusal({"n": Decimal(1)}))


def test_a_sentence_for_many_mistakes() -> None:
    """The first three, by name; values are not repeated."""
    schema = {
        "properties": {name: {"type": "integer", "minimum": 3} for name in "abcd"},
        "required": ["e"],
        "additionalProperties": False,
    }
    document = {"a": "secret", "b": 1, "x": 0, "c": "secret"}
    assert sentence_of(mistakes_of(schema, document)) == (
        "e is missing; a should be a whole number; b: at least 3; and 2 more."
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "the input should have exactly one of concept_id, image_path, original_image_url."),
        ({"image_path": "a"}, None),
        ({"image_path": "a", "concept_id": None, "logo_description": "a fox"}, None),
        ({"concept_id": "a", "theme_description": None}, None),
        (
            {"image_path": "a", "concept_id": "b"},
            "the input should have exactly one of concept_id, image_path, original_image_url.",
        ),
        ({"concept_id": "a", "theme_description": "b"}, "theme_description should be null."),
    ],
)
def test_a_refinement_has_one_original(given: dict[str, Any], said: str | None) -> None:
    """Told as that, and not as if the first of three were missing; the worker would say the same."""
    schema = RefinementInput.model_json_schema()
    mistakes = mistakes_of(schema, {"refinement_prompt": "x", **given})
    assert (sentence_of(mistakes) if mistakes else None) == said


@pytest.fixture
async def hand(superuser_dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A superuser; there are a user with credits and prices, and no worker has ever started."""
    connection = await asyncpg.connect(superuser_dsn)
    await connection.execute("insert into auth.users (id) values ($1)", uuid.UUID(USER))
    await connection.execute(
        "insert into uvian.job_prices values ('generation', 2), ('chat', 1), ('refinement', 1)"
    )
    await connection.fetchval("select uvian.grant_credits($1, 100, 'first')", uuid.UUID(USER))
    yield connection
    await connection.close()


@pytest.fixture
async def client(adapter: Adapter, redis_url: str) -> AsyncIterator[Client]:
    """A client over this adapter."""
    async with adapter.client(redis_url) as client:
        yield client


GENERATION = {"logo_description": "A fox", "theme_description": "woods"}


@pytest.mark.database
@pytest.mark.parametrize(
    ("type_", "input_"),
    [
        ("generation", {**GENERATION, "size": "huge"}),
        ("generation", {**GENERATION, "size": 77}),
        ("generation", {**GENERATION, "seed": 2**63}),
        ("generation", {**GENERATION, "colour": "red"}),
        ("generation", {"logo_description": "A fox"}),
        ("chat", {"conversation_id": "nonsense"}),
        ("chat", {"conversation_id": str(uuid.uuid4()), "temperature": 3}),
        ("refinement", {"refinement_prompt": 7}),
        ("refinement", {"refinement_prompt": "x"}),
        ("refinement", {"refinement_prompt": "x", "concept_id": None}),
        ("refinement", {"refinement_prompt": "x", "concept_id": "a", "image_path": "b"}),
        ("refinement", {"refinement_prompt": "x", "concept_id": "a", "logo_description": "a fox"}),
    ],
)
async def test_a_client_refuses_before_credits_are_held(
    client: Client, hand: asyncpg.Connection[Any], type_: str, input_: dict[str, Any]
) -> None:
    """Before the first worker has ever started as well: the built-in types are known with the schema."""
    with pytest.raises(JobRefused, match="invalid_input") as refused:
        await client.submit(USER, type_, input_)
    assert refused.value.details["errors"]
    assert await hand.fetchval("select count(*) from uvian.jobs") == 0
    assert await hand.fetchval("select reserved from uvian.credit_accounts") == 0


@pytest.mark.database
async def test_options_of_a_message_are_the_input_of_its_chat(
    client: Client, hand: asyncpg.Connection[Any]
) -> None:
    """Refused with the message, before it is stored."""
    conversation_id = await client.conversations.create(USER)
    with pytest.raises(JobRefused, match="invalid_input") as refused:
        await client.conversations.post(USER, conversation_id, "Hello", options={"temperature": 3})
    assert refused.value.details["message"] == "options.temperature: at most 2."
    assert await hand.fetchval("select count(*) from uvian.messages") == 0
    await client.conversations.post(USER, conversation_id, "Hello", options={"temperature": 1})
    # The conversation is the one that was named, also where the options name another.
    await client.conversations.post(
        USER, conversation_id, "Hello", options={"conversation_id": "x"}
    )


@pytest.mark.database
async def test_the_schema_knows_the_built_in_types_as_the_code_does(
    hand: asyncpg.Connection[Any],
) -> None:
    """The generated migration is what a worker of this release registers."""
    rows = await hand.fetch(
        "select type, input_schema, timeout_seconds, max_attempts from uvian.job_types order by 1"
    )
    known = [{**row, "input_schema": orjson.loads(row["input_schema"])} for row in rows]
    assert known == sorted(Registry(BUILT_IN).descriptions(), key=lambda each: str(each["type"]))
