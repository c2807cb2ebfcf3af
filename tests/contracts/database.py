"""The promises of the Database port. An adapter's test subclasses it and brings two fixtures:

class TestPostgresDatabase(DatabaseContract):
    @pytest.fixture
    async def port(self, …): yield await PostgresDatabase.connect(…)

    @pytest.fixture
    async def user(self, …): return <the id of a row in auth.users>
"""

from __future__ import annotations

__all__ = ["DatabaseContract"]

import asyncio
import uuid
from datetime import datetime
from typing import Any

import pytest

from repositories import errors
from repositories.database import Database, Filter, Order

TEXT = "quotes ' \" \\ %s $1 {} ; -- ü 漢 🦊 \n\t end"


def job(user: str, **more: Any) -> dict[str, Any]:
    """A row as an API inserts it."""
    return {"id": str(uuid.uuid4()), "user_id": user, "type": "generation", "input": {}, **more}


class DatabaseContract:
    """What repositories and runner may rely on, over any transport."""

    @pytest.fixture
    def port(self) -> Database:
        """The adapter, as the service, on a migrated database without rows."""
        raise NotImplementedError

    @pytest.fixture
    def user(self) -> str:
        """A user who exists."""
        raise NotImplementedError

    # ─── call ────────────────────────────────────────────────────────────────────────────────────

    async def test_a_function_answers_with_values_as_json_knows_them(
        self, port: Database, user: str
    ) -> None:
        """Uuids and timestamps are text, jsonb comes back as it went in."""
        id_ = str(uuid.uuid4())
        document: dict[str, Any] = {
            "text": TEXT,
            "nested": [1, 2.5, None, True, {"a": []}],
            "empty": {},
        }
        request = {"jobs": [{"id": id_, "user_id": user, "type": "generation", "input": document}]}
        answer = await port.call("create_jobs", request=request)
        made = answer["jobs"][0]["job"]
        assert (made["id"], made["run"], made["cost"]) == (id_, 1, "0.000000")
        assert datetime.fromisoformat(made["created_at"]).tzinfo is not None
        claim = await port.call(
            "claim_jobs", request={"worker": "w", "jobs": [{"id": id_, "run": 1}]}
        )
        assert claim["jobs"][0]["input"] == document

    async def test_a_function_may_answer_with_a_scalar(self, port: Database) -> None:
        """A number, not a document."""
        assert await port.call("calculate_cost", type="generation", input={}) == 0

    async def test_arguments_that_are_left_out_have_their_defaults(
        self, port: Database, user: str
    ) -> None:
        """And None is null."""
        for arguments in ({}, {"user_id": None}, {"user_id": user}):
            made = await port.call("create_jobs", request={"jobs": [job(user)]})
            answer = await port.call("cancel_job", job_id=made["jobs"][0]["job"]["id"], **arguments)
            assert answer["cancelled"]

    async def test_a_refusal_carries_its_code_and_its_sentence(self, port: Database) -> None:
        """What a function says no with is for programs and for people."""
        with pytest.raises(errors.Refused, match=r"There is no such job\.") as refused:
            await port.call("cancel_job", job_id=str(uuid.uuid4()))
        assert refused.value.code == "not_found"

    @pytest.mark.parametrize("bad", ["\u0000", "\ud800"])
    async def test_text_that_postgres_refuses_is_a_data_error(
        self, port: Database, user: str, bad: str
    ) -> None:
        """The same call would be refused again: the batcher must find the item at fault."""
        with pytest.raises(errors.DataError):
            await port.call("create_jobs", request={"jobs": [job(user, input={"text": bad})]})

    @pytest.mark.parametrize("value", [{1}, object(), "half \ud83d"])
    async def test_what_is_not_json_is_a_data_error(
        self, port: Database, user: str, value: Any
    ) -> None:
        """It is refused before it is sent, whatever is called with it."""
        (made,) = await port.insert("jobs", [job(user)])
        mine = [Filter("id", "eq", made["id"])]
        for attempt in (
            port.call("create_jobs", request={"jobs": [job(user, input={"x": value})]}),
            port.insert("jobs", [job(user, input={"x": value})]),
            port.update("jobs", {"input": {"x": value}}, where=mine),
            port.select("jobs", where=[Filter("idempotency_key", "eq", value)]),
        ):
            with pytest.raises(errors.DataError):
                await attempt

    async def test_what_json_has_no_word_for_is_null(self, port: Database, user: str) -> None:
        """Not a number, not finite: an executor's output must not be lost for one value in it."""
        numbers = {
            "nan": float("nan"),
            "infinite": float("inf"),
            "large": 2**53 + 1,
            "small": 1e-300,
        }
        (made,) = await port.insert("jobs", [job(user, input=numbers)])
        (row,) = await port.select("jobs", where=[Filter("id", "eq", made["id"])])
        assert row["input"] == {**numbers, "nan": None, "infinite": None}

    async def test_a_malformed_value_is_a_data_error(self, port: Database) -> None:
        """No uuid, no uuid."""
        with pytest.raises(errors.DataError):
            await port.call("cancel_job", job_id="not a uuid")
        with pytest.raises(errors.DataError):
            await port.call("claim_jobs", request={"worker": "w", "jobs": [{"id": "x", "run": 1}]})

    async def test_calls_at_once_are_all_served(self, port: Database, user: str) -> None:
        """More than there are connections: they queue, and none is mixed up with another."""
        asked = [job(user, input={"n": n}) for n in range(40)]

        async def create(item: dict[str, Any]) -> Any:
            return await port.call("create_jobs", request={"jobs": [item]})

        answers = await asyncio.gather(*map(create, asked))
        assert [a["jobs"][0]["job"]["id"] for a in answers] == [item["id"] for item in asked]

    async def test_a_large_document_passes(self, port: Database, user: str) -> None:
        """A batch has up to 1 MB."""
        claimed = await self._claimed(port, user)
        output = {"text": "ü" * 450_000}
        item = {"id": claimed, "run": 1, "outcome": "completed", "output": output}
        await port.call("settle_jobs", request={"worker": "w", "jobs": [item]})
        (row,) = await port.select("jobs", columns=("output",))
        assert row["output"] == output

    # ─── select ──────────────────────────────────────────────────────────────────────────────────

    async def test_rows_come_whole_or_by_columns(self, port: Database, user: str) -> None:
        """No columns named are all; null is None."""
        (made,) = await port.insert("jobs", [job(user, input={"a": 1})])
        (row,) = await port.select("jobs")
        assert (row["id"], row["input"], row["output"]) == (made["id"], {"a": 1}, None)
        assert await port.select("jobs", columns=("id", "input")) == [
            {"id": made["id"], "input": {"a": 1}}
        ]

    async def test_an_exact_number_is_asked_for_as_text(self, port: Database, user: str) -> None:
        """A float would lose the last of twenty digits."""
        amount = "12345678901234.123456"
        await port.call(
            "grant_credits", user_id=user, amount="12345678901234.123456", reference="r"
        )
        rows = await port.select("credit_accounts", columns=("balance::text", "version"))
        assert rows == [{"balance": amount, "version": 1}]

    @pytest.mark.parametrize(
        ("op", "value", "found"),
        [
            ("eq", 2, [2]),
            ("ne", 2, [1, 3]),
            ("lt", 2, [1]),
            ("lte", 2, [1, 2]),
            ("gt", 2, [3]),
            ("gte", 2, [2, 3]),
            ("in", [1, 3, 7], [1, 3]),
            ("in", [], []),
        ],
    )
    async def test_filters_compare(
        self, port: Database, user: str, op: Any, value: Any, found: list[int]
    ) -> None:
        """Every operator, on a number."""
        await port.insert("jobs", [job(user, priority=n) for n in (1, 2, 3)])
        rows = await port.select(
            "jobs",
            where=[Filter("priority", op, value)],
            columns=("priority",),
            order=[Order("priority")],
        )
        assert [row["priority"] for row in rows] == found

    async def test_filters_take_values_of_every_type(self, port: Database, user: str) -> None:
        """Uuid, text, boolean, timestamp: compared as what their column is."""
        (made,) = await port.insert("jobs", [job(user, idempotency_key=TEXT)])
        examples: list[tuple[str, Any, Any]] = [
            ("id", "eq", made["id"]),
            ("id", "in", [made["id"], str(uuid.uuid4())]),
            ("idempotency_key", "eq", TEXT),
            ("idempotency_key", "in", ["a,b", 'c"d', TEXT, "(e)"]),
            ("admitted", "eq", True),
            ("created_at", "lte", made["created_at"]),
            ("created_at", "eq", made["created_at"]),
            ("output", "is_null", None),
        ]
        for column, op, value in examples:
            assert len(await port.select("jobs", where=[Filter(column, op, value)])) == 1, column
        assert await port.select("jobs", where=[Filter("admitted", "eq", False)]) == []
        assert await port.select("jobs", where=[Filter("idempotency_key", "is_null")]) == []

    async def test_nothing_compares_with_null(self, port: Database, user: str) -> None:
        """A value that got lost on the way finds no row, as in SQL; null itself is asked for."""
        await port.insert("jobs", [job(user)])
        for op in ("eq", "ne", "gt"):
            for column in ("idempotency_key", "parent_id", "priority"):
                assert await port.select("jobs", where=[Filter(column, op, None)]) == []
        assert await port.select("jobs", where=[Filter("parent_id", "in", [None])]) == []
        assert len(await port.select("jobs", where=[Filter("parent_id", "is_null")])) == 1

    @pytest.mark.parametrize(
        "text", ["", " ", "null", "NULL", "true", "1", "a.b", "(a,b)", "\\", '"']
    )
    async def test_text_is_compared_as_it_is(self, port: Database, user: str, text: str) -> None:
        """What means something to the transport means nothing in a value."""
        await port.insert("jobs", [job(user, idempotency_key=text)])
        await port.insert("jobs", [job(user, idempotency_key="another")])
        for where in (
            Filter("idempotency_key", "eq", text),
            Filter("idempotency_key", "in", [text]),
            Filter("idempotency_key", "in", [text, "none has it"]),
        ):
            (row,) = await port.select("jobs", where=[where])
            assert row["idempotency_key"] == text

    @pytest.mark.parametrize("bad", ["\u0000", "\ud800"])
    async def test_text_that_postgres_refuses_is_no_filter(self, port: Database, bad: str) -> None:
        """The same filter would be refused again."""
        for where in (
            Filter("idempotency_key", "eq", bad),
            Filter("idempotency_key", "in", ["a", bad]),
        ):
            with pytest.raises(errors.DataError):
                await port.select("jobs", where=[where])

    async def test_a_long_answer_is_whole(self, port: Database) -> None:
        """No transport cuts it: every row once, in the order asked for, with a limit or without."""
        types = [f"t{n:04}" for n in range(1, 2301)]
        rows = [{"type": type_, "max_attempts": 1 + n % 2} for n, type_ in enumerate(types)]
        await port.insert("job_types", rows)
        mine = [Filter("type", "gte", "t0001"), Filter("type", "lte", "t2300")]
        assert sorted(r["type"] for r in await port.select("job_types", where=mine)) == types
        for limit in (999, 1000, 1001, 2299, 2300, 5000):
            order = [Order("max_attempts", descending=True)]
            some = await port.select("job_types", where=mine, order=order, limit=limit)
            assert len({row["type"] for row in some}) == len(some) == min(limit, len(types))
            assert [r["max_attempts"] for r in some] == sorted(
                (r["max_attempts"] for r in some), reverse=True
            )

    async def test_filters_are_joined_by_and(self, port: Database, user: str) -> None:
        """All of them hold of every row."""
        await port.insert("jobs", [job(user, priority=n) for n in (1, 2, 3)])
        where = [Filter("priority", "gt", 1), Filter("priority", "lt", 3)]
        assert len(await port.select("jobs", where=where)) == 1

    async def test_rows_are_ordered_and_limited(self, port: Database, user: str) -> None:
        """By several columns, each in its own direction."""
        rows = [job(user, priority=p, idempotency_key=k) for p, k in ((1, "a"), (1, "b"), (2, "c"))]
        await port.insert("jobs", rows)
        order = [Order("priority", descending=True), Order("idempotency_key")]
        found = await port.select("jobs", columns=("priority", "idempotency_key"), order=order)
        assert [(r["priority"], r["idempotency_key"]) for r in found] == [
            (2, "c"),
            (1, "a"),
            (1, "b"),
        ]
        assert len(await port.select("jobs", order=order, limit=2)) == 2
        assert await port.select("jobs", limit=0) == []

    # ─── insert, update, delete ──────────────────────────────────────────────────────────────────

    async def test_inserted_rows_come_back_with_their_defaults(
        self, port: Database, user: str
    ) -> None:
        """In the order given; none is none."""
        rows = [job(user, priority=n) for n in range(3)]
        made = await port.insert("jobs", rows)
        assert [row["id"] for row in made] == [row["id"] for row in rows]
        assert all(row["status"] == "queued" and row["run"] == 1 for row in made)
        assert await port.insert("jobs", []) == []

    async def test_a_row_that_exists_is_a_conflict(self, port: Database, user: str) -> None:
        """And nothing of its call is inserted."""
        (made,) = await port.insert("jobs", [job(user)])
        with pytest.raises(errors.Conflict):
            await port.insert("jobs", [job(user), job(user, id=made["id"])])
        assert len(await port.select("jobs")) == 1

    async def test_many_rows_are_inserted_at_once(self, port: Database) -> None:
        """And all of them are answered."""
        rows = [{"type": f"t{n:04}"} for n in range(1500)]
        made = await port.insert("job_types", rows)
        assert [row["type"] for row in made] == [row["type"] for row in rows]
        gone = await port.delete("job_types", where=[Filter("type", "gte", "t")])
        assert len(gone) == 1500

    async def test_or_it_stays_as_it_is(self, port: Database, user: str) -> None:
        """With ``on_conflict`` only what was missing is inserted, and answered."""
        (made,) = await port.insert("jobs", [job(user, priority=1)])
        other = job(user, priority=3)
        again = await port.insert(
            "jobs", [job(user, id=made["id"], priority=2), other], on_conflict=("id",)
        )
        assert [row["id"] for row in again] == [other["id"]]
        (row,) = await port.select("jobs", where=[Filter("id", "eq", made["id"])])
        assert row["priority"] == 1

    async def test_rows_of_one_insert_have_the_same_keys(self, port: Database, user: str) -> None:
        """A key that only some have would be dropped, or be null instead of its default."""
        for rows in ([job(user), job(user, priority=1)], [job(user, priority=1), job(user)]):
            with pytest.raises(errors.DataError):
                await port.insert("jobs", rows)

    @pytest.mark.parametrize(
        "bad",
        [
            {"priority": 10_000_000},
            {"user_id": str(uuid.uuid4())},
            {"parent_id": str(uuid.uuid4())},
            {"priority": "many"},
            {"input": [1]},
            {"type": None},
        ],
    )
    async def test_what_a_constraint_refuses_is_a_data_error(
        self, port: Database, user: str, bad: dict[str, Any]
    ) -> None:
        """Checks, foreign keys, types, not null: the same values would be refused again."""
        with pytest.raises((errors.DataError, errors.Refused)):
            await port.insert("jobs", [job(user, **bad)])

    async def test_matching_rows_are_updated_and_answered(self, port: Database, user: str) -> None:
        """Also to null; no match is no error."""
        one, two = await port.insert(
            "jobs", [job(user, priority=n, idempotency_key=str(n)) for n in (1, 2)]
        )
        values = {"priority": 9, "idempotency_key": None, "input": {"text": TEXT}}
        (row,) = await port.update("jobs", values, where=[Filter("id", "eq", one["id"])])
        assert (row["priority"], row["idempotency_key"], row["input"]) == (9, None, {"text": TEXT})
        (other,) = await port.select("jobs", where=[Filter("id", "eq", two["id"])])
        assert other["priority"] == 2
        assert (
            await port.update("jobs", values, where=[Filter("id", "eq", str(uuid.uuid4()))]) == []
        )

    async def test_matching_rows_are_deleted_and_answered(self, port: Database, user: str) -> None:
        """And the others are not."""
        one, two = await port.insert("jobs", [job(user), job(user)])
        (gone,) = await port.delete("jobs", where=[Filter("id", "eq", one["id"])])
        assert gone["id"] == one["id"]
        assert [row["id"] for row in await port.select("jobs")] == [two["id"]]
        assert await port.delete("jobs", where=[Filter("id", "eq", one["id"])]) == []

    async def test_without_a_filter_nothing_is_changed(self, port: Database, user: str) -> None:
        """A filter that was lost on the way must not empty a table."""
        await port.insert("jobs", [job(user)])
        with pytest.raises(errors.DataError):
            await port.update("jobs", {"priority": 1}, where=[])
        with pytest.raises(errors.DataError):
            await port.delete("jobs", where=[])
        assert len(await port.select("jobs")) == 1

    # ─── names ───────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize(
        "name", ["id; drop table uvian.jobs", 'id" or "1', "ID", "", "auth.users", "a,b"]
    )
    async def test_a_name_is_a_name(self, port: Database, user: str, name: str) -> None:
        """What is none is refused before it is sent, wherever a column is named."""
        attempts = [
            port.select("jobs", columns=(name,)),
            port.select("jobs", where=[Filter(name, "eq", 1)]),
            port.select("jobs", order=[Order(name)]),
            port.insert("jobs", [{name: 1}]),
            port.update("jobs", {name: 1}, where=[Filter("id", "eq", str(uuid.uuid4()))]),
            port.delete("jobs", where=[Filter(name, "eq", 1)]),
        ]
        for attempt in attempts:
            with pytest.raises(errors.DataError):
                await attempt

    async def test_a_column_or_table_that_is_not_there_says_what_to_do(
        self, port: Database
    ) -> None:
        """The schema is older than this release: the message names the command."""
        with pytest.raises(errors.SchemaMissing, match="uvian migrate"):
            await port.select("jobs", columns=("not_yet",))
        with pytest.raises(errors.SchemaMissing, match="uvian migrate"):
            await port.select("not_yet")  # type: ignore[arg-type]

    # ─── life ────────────────────────────────────────────────────────────────────────────────────

    async def test_a_notification_is_heard_or_the_answer_is_no(
        self, port: Database, user: str
    ) -> None:
        """Where there is a session, a row made by hand is heard of; otherwise the caller polls."""
        heard: asyncio.Queue[str] = asyncio.Queue()
        if not await port.listen("uvian_jobs", heard.put_nowait):
            return
        assert await asyncio.wait_for(heard.get(), 5) == ""  # told once when it begins to listen
        await port.insert("jobs", [job(user)])
        await asyncio.wait_for(heard.get(), 5)

    async def test_a_notification_says_whose_members_have_left(
        self, port: Database, user: str
    ) -> None:
        """Its payload arrives as it was sent."""
        heard: asyncio.Queue[str] = asyncio.Queue()
        if not await port.listen("uvian_members", heard.put_nowait):
            return
        assert await asyncio.wait_for(heard.get(), 5) == ""
        made = await port.call("create_conversation", user_id=user)
        await port.call("delete_conversation", conversation_id=made["id"], user_id=user)
        assert await asyncio.wait_for(heard.get(), 5) == made["id"]

    async def test_it_closes_twice_and_is_closed_then(self, port: Database) -> None:
        """Whoever calls afterwards hears that the database is away, not of a bug."""
        await port.close()
        await port.close()
        with pytest.raises(errors.Transient):
            await port.select("jobs")

    async def _claimed(self, port: Database, user: str) -> str:
        made = await port.call("create_jobs", request={"jobs": [job(user)]})
        id_ = str(made["jobs"][0]["job"]["id"])
        await port.call("claim_jobs", request={"worker": "w", "jobs": [{"id": id_, "run": 1}]})
        return id_
