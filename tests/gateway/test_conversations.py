"""Conversations over HTTP: who takes part, what is said, and how an answer is stopped."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from tests.gateway.site import Caller, Site, someone

pytestmark = pytest.mark.database


async def begun(caller: Caller, **body: Any) -> str:
    """The address of a new conversation of this caller."""
    reply = await caller.post("/v1/conversations", body)
    assert reply.status == 201, reply
    return reply.headers["Location"]


async def said(caller: Caller, at: str, content: str = "Why?", **more: Any) -> dict[str, Any]:
    """A message that was posted."""
    reply = await caller.post(f"{at}/messages", {"content": content, **more})
    assert reply.status == 201, reply
    return dict(reply.body)


# ─── conversations and members ───────────────────────────────────────────────────────────────────


async def test_a_conversation_is_begun_changed_and_deleted(site: Site) -> None:
    """By its owner, who is its first member; what is left out of a change stays."""
    user = await site.user()
    at = await begun(user, title="Hello", metadata={"tags": ["ü"]})
    made = (await user.get(at)).body
    assert (made["title"], made["metadata"], made["last_position"]) == ("Hello", {"tags": ["ü"]}, 0)
    changed = await user("PATCH", at, {"title": "Goodbye"})
    assert (changed.body["title"], changed.body["metadata"]) == ("Goodbye", {"tags": ["ü"]})
    assert [m["role"] for m in (await user.get(f"{at}/members")).body["items"]] == ["owner"]
    assert (await user("DELETE", at)).status == 204
    assert (await user.get(at)).code == "not_found"
    assert (await user("DELETE", at)).code == "not_found"


async def test_a_request_that_is_repeated_makes_one_conversation(site: Site) -> None:
    """Its answer was lost, and it names the conversation itself; somebody else's id is refused."""
    user, other = await site.user(), await site.user()
    wanted = str(uuid.uuid4())
    addresses = {await begun(user, id=wanted, title=title) for title in ("Hello", "Hello again")}
    assert addresses == {f"/v1/conversations/{wanted}"}
    (made,) = (await user.get("/v1/conversations")).body["items"]
    assert (made["id"], made["title"]) == (wanted, "Hello")
    taken = await other.post("/v1/conversations", {"id": wanted, "title": "Mine"})
    assert (taken.status, taken.code) == (409, "conflict")
    assert (await other.get("/v1/conversations")).body["items"] == []
    assert (await user.post("/v1/conversations", {"id": "x"})).code == "invalid_input"


async def test_titles_and_metadata_have_an_end(site: Site) -> None:
    """200 characters, 16 kB; nothing is made."""
    user = await site.user()
    long = await user.post("/v1/conversations", {"title": "x" * 201})
    assert long.code == "invalid_input"
    heavy = await user.post("/v1/conversations", {"metadata": {"x": "y" * 17_000}})
    assert heavy.code == "invalid_conversation"
    assert (await user.get("/v1/conversations")).body["items"] == []


async def test_the_list_is_by_the_latest_message_page_by_page(site: Site) -> None:
    """A message that arrives between two pages costs no conversation and repeats none."""
    user = await site.user()
    addresses = [await begun(user) for _ in range(5)]
    await begun(await site.user())
    first = (await user.get("/v1/conversations?limit=3")).body
    assert len(first["items"]) == 3
    await said(
        user, f"/v1/conversations/{first['items'][2]['id']}"
    )  # known already, and now on top
    second = (await user.get(f"/v1/conversations?limit=3&cursor={first['next_cursor']}")).body
    assert second["next_cursor"] is None
    seen = [c["id"] for c in [*first["items"], *second["items"]]]
    assert sorted(seen) == sorted(at.rpartition("/")[2] for at in addresses)
    latest = (await user.get("/v1/conversations?limit=1")).body["items"][0]
    assert latest["id"] == first["items"][2]["id"]


async def test_a_cursor_of_the_list_is_ours_or_refused(site: Site) -> None:
    """Not an error of the database."""
    user = await site.user()
    for cursor in ("", "x", "W10=", "WyJhIiwiYiJd"):
        reply = await user.get(f"/v1/conversations?cursor={cursor}")
        assert reply.code == "invalid_input"


async def test_members_come_and_go(site: Site) -> None:
    """The owner lets in and removes; a member sees everything, leaves, and is no owner."""
    owner, guest, other = await site.user(), await site.user(), await site.user()
    at = await begun(owner)
    await site.joined(owner, at, guest)
    members = (await owner.get(f"{at}/members")).body["items"]
    assert [m["user_id"] for m in members] == [owner.user_id, guest.user_id]
    assert (await guest.get(at)).status == 200
    assert [c["id"] for c in (await guest.get("/v1/conversations")).body["items"]]
    for refused in (
        await guest("PATCH", at, {"title": "Mine"}),
        await guest("DELETE", at),
        await guest.post(f"{at}/invitations", {"user_ids": [other.user_id]}),
        await guest("DELETE", f"{at}/members/{owner.user_id}"),
    ):
        assert (refused.status, refused.code) == (403, "owner_only")
    assert (await guest("DELETE", f"{at}/members/{guest.user_id}")).status == 204
    assert (await guest.get(at)).code == "not_found"
    assert (await owner("DELETE", f"{at}/members/{owner.user_id}")).code == "owner_stays"


async def test_nobody_takes_part_unasked(site: Site) -> None:
    """An invitation lets nobody in and shows its title alone; who declines is not there."""
    owner, guest, other = await site.user(), await site.user(), await site.user()
    at = await begun(owner)
    mine = at.replace("/v1/conversations/", "/v1/invitations/")
    asked = {"user_ids": [guest.user_id, other.user_id, guest.user_id, owner.user_id]}
    reply = await owner.post(f"{at}/invitations", asked)
    assert {i["user_id"] for i in reply.body["items"]} == {guest.user_id, other.user_id}
    assert len((await owner.get(f"{at}/members")).body["items"]) == 1
    for path in (at, f"{at}/members", f"{at}/messages", f"{at}/invitations"):
        assert (await guest.get(path)).code == "not_found"
    (invitation,) = (await guest.get("/v1/invitations")).body["items"]
    assert (invitation["invited_by"], at.endswith(invitation["conversation_id"])) == (
        owner.user_id,
        True,
    )
    assert (await guest.post(f"{mine}/accept")).status == 200
    assert (await guest.post(f"{mine}/accept")).status == 200  # a reply that was lost
    assert (await other.post(f"{mine}/decline")).status == 204
    assert (await other.post(f"{mine}/accept")).code == "not_found"
    members = (await guest.get(f"{at}/members")).body["items"]
    assert [m["user_id"] for m in members] == [owner.user_id, guest.user_id]
    assert (await owner.get(f"{at}/invitations")).body["items"] == []


async def test_an_invitation_tells_nothing_of_who_exists(site: Site) -> None:
    """The same answers whether there is such a user or not, until they answer themselves."""
    owner, guest = await site.user(), await site.user()
    told = []
    for user_id in (guest.user_id, someone()):
        at = await begun(owner)
        replies = [
            await owner.post(f"{at}/invitations", {"user_ids": [user_id]}),
            await owner.get(f"{at}/invitations"),
            await owner.get(f"{at}/members"),
            await owner("DELETE", f"{at}/members/{user_id}"),  # withdrawn
            await owner.get(f"{at}/invitations"),
            await owner.post(f"{at}/invitations", {"user_ids": [user_id] * 2}),
        ]
        shapes = [[set(i) for i in r.body["items"]] if r.raw else None for r in replies]
        told.append([(r.status, shape) for r, shape in zip(replies, shapes, strict=True)])
    assert told[0] == told[1]
    many = await owner.post(f"{await begun(owner)}/invitations", {"user_ids": [someone()] * 101})
    assert many.code == "invalid_input"


async def test_conversations_without_a_message_do_not_pile_up(site: Site) -> None:
    """Ten of an anonymous sign-in, where chats are open to those; a hundred of anybody else."""
    user, anonymous = await site.user(), await site.user(is_anonymous=True)
    assert (await anonymous.post("/v1/conversations", {})).code == "type_not_open"
    await site.world.type("chat", anonymous=True)
    for caller, most in ((anonymous, 10), (user, 100)):
        made = [await begun(caller) for _ in range(most)]
        refused = await caller.post("/v1/conversations", {})
        assert (refused.status, refused.code) == (429, "too_many_conversations")
        await said(caller, made[0])  # a chat, with its own limits and price
        assert (await caller.post("/v1/conversations", {})).status == 201


async def test_who_is_removed_has_no_answer_written_any_more(site: Site) -> None:
    """Their chat is cancelled with them; the next in line is dispatched."""
    owner, guest = await site.user(), await site.user()
    at = await begun(owner)
    await site.joined(owner, at, guest)
    theirs = await said(guest, at)
    mine = await said(owner, at)
    assert (await owner("DELETE", f"{at}/members/{guest.user_id}")).status == 204
    assert (await site.world.row(theirs["job"]["id"]))["status"] == "cancelled"
    claim = await site.world.claim(mine["job"])
    assert claim["claimed"]


# ─── messages ────────────────────────────────────────────────────────────────────────────────────


async def test_a_message_and_its_chat_are_made_together(site: Site) -> None:
    """201 with both; the answer that a worker stores has the id that was foretold."""
    user = await site.user()
    at = await begun(user)
    posted = await said(user, at, "Why?", options={"temperature": 0.5})
    job = (await user.get(f"/v1/jobs/{posted['job']['id']}")).body
    assert (job["type"], job["input"]["temperature"]) == ("chat", 0.5)
    assert job["input"]["message_id"] == posted["id"]
    await site.world.answered(posted["job"], "Because.")
    items = (await user.get(f"{at}/messages")).body["items"]
    assert [(m["role"], m["content"]) for m in items] == [
        ("user", "Why?"),
        ("assistant", "Because."),
    ]
    assert (items[0]["id"], items[1]["id"]) == (posted["id"], posted["answer_id"])
    assert items[1]["reply_to"] == posted["id"]


async def test_the_same_key_posts_once(site: Site) -> None:
    """Ten at once: one 201 and the same message for all; other words are a conflict."""
    user = await site.user()
    at = await begun(user)
    body = {"content": "Why?", "idempotency_key": "k"}
    replies = await asyncio.gather(*(user.post(f"{at}/messages", body) for _ in range(10)))
    assert sorted(reply.status for reply in replies) == [200] * 9 + [201]
    assert len({reply.body["id"] for reply in replies}) == 1
    other = await user.post(f"{at}/messages", {"content": "How?"}, headers={"Idempotency-Key": "k"})
    assert (other.status, other.code) == (409, "idempotency_conflict")
    assert len(await site.world.messages(at.rpartition("/")[2])) == 1


async def test_messages_are_read_in_both_directions(site: Site) -> None:
    """The latest first asked for, then older ones before, then what was posted since."""
    user = await site.user()
    at = await begun(user)
    for n in range(1, 8):
        await said(user, at, str(n))

    async def page(query: str) -> tuple[list[str], bool]:
        body = (await user.get(f"{at}/messages?{query}")).body
        assert [m["position"] for m in body["items"]] == sorted(
            m["position"] for m in body["items"]
        )
        return [m["content"] for m in body["items"]], body["more"]

    assert await page("limit=3") == (["5", "6", "7"], True)
    assert await page("limit=3&before=5") == (["2", "3", "4"], True)
    assert await page("limit=3&before=2") == (["1"], False)
    assert await page("limit=3&after=1") == (["2", "3", "4"], True)
    assert await page("limit=3&after=7") == ([], False)
    assert await page(f"limit=3&after={2**63 - 1}") == ([], False)
    assert (await user.get(f"{at}/messages?before=3&after=1")).code == "invalid_input"


@pytest.mark.parametrize("on_busy", ["enqueue", "reject", "interrupt"])
async def test_a_message_while_another_is_answered(site: Site, on_busy: str) -> None:
    """It waits, is refused, or takes its place: the client says which."""
    user = await site.user()
    at = await begun(user)
    first = await said(user, at)
    await site.world.claim(first["job"])
    reply = await user.post(f"{at}/messages", {"content": "And?", "on_busy": on_busy})
    lease = await site.world.lease(first["job"]["id"])
    assert lease is not None
    assert lease["cancel_requested"] == (on_busy == "interrupt")
    if on_busy == "reject":
        assert (reply.status, reply.code) == (409, "conversation_busy")
    else:
        assert reply.status == 201
        assert not (await site.world.claim(reply.body["job"]))["claimed"]


async def test_an_answer_is_stopped(site: Site) -> None:
    """The one that is written or about to be; the one behind it is next; then there is none."""
    user = await site.user()
    at = await begun(user)
    first, second = await said(user, at), await said(user, at)
    assert (await user.post(f"{at}/stop")).body == {"stopped": True}
    assert (await site.world.row(first["job"]["id"]))["status"] == "cancelled"
    assert (await site.world.claim(second["job"]))["claimed"]
    assert (await user.post(f"{at}/stop")).body == {"stopped": True}
    await site.world.settle({**second["job"]}, "cancelled")
    assert (await user.post(f"{at}/stop")).body == {"stopped": False}


async def test_a_stop_that_names_its_chat_stops_no_other(site: Site) -> None:
    """A second press, or one that comes when its answer has ended, leaves the next one alone."""
    user = await site.user()
    at = await begun(user)
    first, second = await said(user, at), await said(user, at)
    named = {"job_id": first["job"]["id"]}
    for _ in range(2):
        assert (await user.post(f"{at}/stop", named)).body == {"stopped": True}
    assert (await site.world.row(second["job"]["id"]))["status"] == "queued"
    for job_id in (someone(), second["id"]):
        assert (await user.post(f"{at}/stop", {"job_id": job_id})).body == {"stopped": False}
    assert (await user.post(f"{at}/stop", {"job_id": "x"})).code == "invalid_input"


async def test_what_a_message_may_not_be(site: Site) -> None:
    """Empty, all space, over 64 kB, with options that no chat takes, or of a type that is closed."""
    schema = {"properties": {"temperature": {"type": "number", "maximum": 2}}}
    await site.world.type("chat", input_schema=schema)
    user, anonymous = await site.user(), await site.user(is_anonymous=True)
    at = await begun(user)

    async def code(caller: Caller = user, where: str = at, **body: Any) -> str | None:
        return (await caller.post(f"{where}/messages", body)).code

    assert await code(content="") == "invalid_input"
    assert await code(content=" \n") == "invalid_message"
    assert await code(content="x\0y") == "invalid_input"
    assert await code(content="x" * 65_537) == "message_too_large"
    assert await code(content="x", on_busy="wait") == "invalid_input"
    assert await code(content="x", options={"temperature": 3}) == "invalid_input"
    theirs = await site.world.conversation(anonymous.user_id)
    assert await code(anonymous, f"/v1/conversations/{theirs}", content="x") == "type_not_open"


async def test_what_a_post_is_refused_for_has_its_field_and_numbers(site: Site) -> None:
    """As for a job that is asked for directly."""
    user = await site.user()
    at = await begun(user)
    await site.world.type("chat", models=["small"], price=2)
    reply = await user.post(f"{at}/messages", {"content": "x", "options": {"model": "large"}})
    assert (reply.status, reply.code, reply.body["field"]) == (422, "not_allowed", "model")
    assert reply.body["detail"] == "The model may be: small."
    reply = await user.post(f"{at}/messages", {"content": "x"})
    assert (reply.code, reply.body["cost"]) == ("insufficient_credits", "2.000000")
    assert "{" not in reply.body.get("detail", "")
