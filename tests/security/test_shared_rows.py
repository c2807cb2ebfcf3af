"""Conversations are seen by those who take part in them, all of them, and by nobody else."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import NamedTuple

import asyncpg
import pytest

from tests.lifecycle.conftest import world
from tests.lifecycle.world import World
from tests.security.caller import Caller, Connection
from tests.security.expectations import FUNCTIONS, SHARED_ROWS
from tests.servers import CleanDatabase

__all__ = ["world"]

pytestmark = pytest.mark.database

#: An example of every argument that comes after the conversation of somebody else.
_ARGUMENTS = {
    "accept": "true",
    "content": "'Why?'",
    "door": "null",
    "job_id": "gen_random_uuid()",
    "max_cost": "1",
    "member": "{stranger}",
    "members": "jsonb_build_array({stranger})",
    "metadata": "'{{}}'::jsonb",
    "title": "'Mine'",
    "on_busy": "'interrupt'",
    "options": "'{{}}'::jsonb",
    "idempotency_key": "'k'",
    "user_id": "{owner}",
}


class Shared(NamedTuple):
    """A conversation of an owner and a member, one of the owner alone, and a stranger's own."""

    owner: str
    member: str
    stranger: str
    conversation: str
    message: str


@pytest.fixture
async def door(database: CleanDatabase) -> AsyncIterator[Connection]:
    """The connection of PostgREST's login role."""
    connection = await asyncpg.connect(database.authenticator_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def shared(world: World) -> Shared:
    """With a message in each conversation, and somebody invited to the shared one."""
    await world.type("chat", browser=True)
    owner, member, stranger = [await world.user() for _ in range(3)]
    conversation = await world.conversation(owner, member)
    await world.service.call(
        "invite_members", conversation_id=conversation, members=[str(uuid.uuid4())]
    )
    posted = await world.post(conversation, owner)
    for user in (owner, stranger):
        await world.post(await world.conversation(user), user)
    return Shared(owner, member, stranger, conversation, posted["message"]["id"])


async def _seen(door: Connection, user: str) -> dict[str, int]:
    caller = Caller(door, "authenticated", user)
    return {
        table: len(await caller.fetch(f"select * from uvian.{table}"))
        for table in sorted(SHARED_ROWS)
    }


async def test_a_member_sees_what_is_shared(door: Connection, shared: Shared) -> None:
    """The conversation, everybody in it, and every message; not the owner's other one, nor the jobs."""
    assert await _seen(door, shared.owner) == {
        "conversation_invitations": 1,
        "conversation_members": 3,
        "conversations": 2,
        "messages": 2,
    }
    assert await _seen(door, shared.member) == {
        "conversation_invitations": 1,
        "conversation_members": 2,
        "conversations": 1,
        "messages": 1,
    }
    assert await _seen(door, shared.stranger) == {
        "conversation_invitations": 0,
        "conversation_members": 1,
        "conversations": 1,
        "messages": 1,
    }
    caller = Caller(door, "authenticated", shared.member)
    assert await caller.fetch("select * from uvian.jobs") == []
    (mine,) = await caller.fetch("select uvian.my_conversations() as id")
    assert str(mine["id"]) == shared.conversation


async def test_who_is_removed_sees_nothing_any_more(
    world: World, door: Connection, shared: Shared
) -> None:
    """Not even what was written while they took part."""
    await world.service.call(
        "remove_member", conversation_id=shared.conversation, member=shared.member
    )
    assert set((await _seen(door, shared.member)).values()) == {0}


async def test_another_users_conversation_is_not_found_everywhere(
    world: World, door: Connection, shared: Shared
) -> None:
    """Every function that a user may call with a conversation's id, from the catalog."""
    functions = await world.hand.fetch(
        "select proname as name, proargnames as arguments from pg_proc "
        "where pronamespace = 'uvian'::regnamespace and 'conversation_id' = any (proargnames)"
    )
    tried = set()
    caller = Caller(door, "authenticated", shared.stranger)
    for function in functions:
        if "authenticated" not in FUNCTIONS.get(function["name"], ()):
            continue
        for conversation in (shared.conversation, str(uuid.uuid4())):
            named = [f"conversation_id => '{conversation}'"]
            for argument in function["arguments"]:
                if argument != "conversation_id":
                    example = _ARGUMENTS[argument].format(
                        stranger=f"'{shared.stranger}'::uuid", owner=f"'{shared.owner}'::uuid"
                    )
                    named.append(f"{argument} => {example}")
            statement = f"select uvian.{function['name']}({', '.join(named)})"
            if function["name"] == "create_conversation":
                if conversation == shared.conversation:  # the id is taken, and stays whose it is
                    with pytest.raises(asyncpg.PostgresError, match="conflict"):
                        await caller.fetch(statement)
                continue
            with pytest.raises(asyncpg.PostgresError, match="not_found"):
                await caller.fetch(statement)
        tried.add(function["name"])
    assert {"post_message", "delete_conversation", "create_conversation"} < tried


async def test_a_member_is_no_owner(world: World, door: Connection, shared: Shared) -> None:
    """Neither renaming, nor letting in, nor removing others, nor deleting."""
    caller = Caller(door, "authenticated", shared.member)
    for call in (
        "update_conversation(conversation_id => $1, title => 'Mine')",
        f"invite_members(conversation_id => $1, members => '[\"{shared.stranger}\"]')",
        f"remove_member(conversation_id => $1, member => '{shared.owner}')",
        "delete_conversation(conversation_id => $1)",
    ):
        with pytest.raises(asyncpg.PostgresError, match="owner_only"):
            await caller.fetch(f"select uvian.{call}", uuid.UUID(shared.conversation))


async def test_the_policy_looks_through_no_other_eyes(door: Connection, shared: Shared) -> None:
    """Who is nobody, or says to be somebody else in another setting, sees nothing."""
    for user in (None, str(uuid.uuid4())):
        caller = Caller(door, "authenticated", user)
        for table in SHARED_ROWS:
            assert await caller.fetch(f"select * from uvian.{table}") == [], (table, user)
