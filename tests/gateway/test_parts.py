"""Parts of the gateway on their own: what it loads, the page's files, schemas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from executors.registry import Registry
from uvian_worker.client.calls import JobRefused
from uvian_worker.client.schemas import mistakes_of
from uvian_worker.gateway.app import _ENDPOINTS, _endpoints
from uvian_worker.gateway.endpoints.page import Page
from uvian_worker.gateway.http.problems import problem_of


def test_a_gateway_loads_neither_arq_nor_what_draws() -> None:
    """It starts in a moment, and its image needs no models."""
    code = (
        "import sys, uvian_worker.gateway.serving\n"
        "loaded = {'arq', 'numpy', 'PIL', 'typer', 'executors.running.runner'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_endpoints_of_the_document_are_those_that_are_served() -> None:
    """None is left out on one side; each has a summary, its handler's docstring."""
    stores: Any = SimpleNamespace(database=None, client=None, images=None)
    assert tuple(type(each) for each in _endpoints(stores)) == _ENDPOINTS
    operations = [each for kind in _ENDPOINTS for each in kind.operations.values()]
    assert len({(each.method, each.route) for each in operations}) == len(operations) > 20
    assert all(each.summary and not each.summary.endswith(".") for each in operations)


def test_what_the_client_finds_wrong_is_told_field_by_field() -> None:
    """Its schema may be newer than the gateway's: "cannot be stored" would be no help, and untrue."""
    errors = [
        {"field": "options.model", "code": "string_type", "message": "Input should be a string"}
    ]
    problem = problem_of(JobRefused("invalid_input", {"message": "…", "errors": errors}))
    assert problem.document("r")["errors"] == errors
    assert problem.detail == ""


def test_the_committed_page_of_the_contract_is_the_generated_one() -> None:
    """Who changes an endpoint also runs ``make docs``."""
    script = Path(__file__).parents[2] / "scripts" / "generate_rest.py"
    command = [sys.executable, str(script), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_only_files_of_known_types_are_part_of_the_page(tmp_path: Path) -> None:
    """What an editor or a system leaves in the folder is not."""
    (tmp_path / "css").mkdir()
    for name in ("index.html", "app.js", "css/a.css", ".DS_Store", "app.js~", "notes.txt", "x.py"):
        (tmp_path / name).write_text("x")
    routes = {route.path for route in Page(folder=tmp_path).routes()}
    assert routes == {"/", "/app.js", "/css/a.css"}


# ─── schemas ─────────────────────────────────────────────────────────────────────────────────────


class Leaf(BaseModel):
    """Inside of others."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=5, pattern="^[a-z]+$")
    weight: float | None = Field(None, gt=0, le=10)


class Tree(BaseModel):
    """What pydantic can say in a schema."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["oak", "ash"]
    leaves: list[Leaf] = Field(max_length=3)
    first: Leaf | None = None
    by_name: dict[str, Leaf] = {}
    pair: tuple[int, str] | None = None
    age: int = Field(ge=0, lt=100)
    alive: bool = True
    within: Tree | None = None


def fields(schema: Any, document: Any) -> set[tuple[str, str]]:
    """Where something is wrong, and what."""
    return {(mistake.field, mistake.code) for mistake in mistakes_of(schema, document)}


TREE = Tree.model_json_schema()
GOOD = {"kind": "oak", "leaves": [{"name": "a"}], "age": 7}


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, set()),
        ({"first": None, "within": {**GOOD, "within": None}}, set()),
        ({"kind": "elm"}, {("kind", "literal_error")}),
        ({"age": 100}, {("age", "less_than")}),
        ({"age": -1}, {("age", "greater_than_equal")}),
        ({"age": 1.5}, {("age", "integer_type")}),
        ({"age": True}, {("age", "integer_type")}),
        ({"age": "7"}, {("age", "integer_type")}),
        ({"alive": 1}, {("alive", "boolean_type")}),
        ({"leaves": [{"name": "a"}] * 4}, {("leaves", "too_long")}),
        ({"leaves": {}}, {("leaves", "array_type")}),
        ({"leaves": [7]}, {("leaves.0", "object_type")}),
        ({"leaves": [{"name": ""}]}, {("leaves.0.name", "string_too_short"),
                                      ("leaves.0.name", "string_pattern_mismatch")}),
        ({"leaves": [{"name": "abcdef"}]}, {("leaves.0.name", "string_too_long")}),
        ({"leaves": [{}]}, {("leaves.0.name", "missing")}),
        ({"first": {"name": "a", "weight": 0}}, {("first.weight", "greater_than")}),
        ({"first": {"name": "a", "weight": 11}}, {("first.weight", "less_than_equal")}),
        ({"first": {"name": "a", "x": 1}}, {("first.x", "extra_forbidden")}),
        ({"by_name": {"k": {"name": 7}}}, {("by_name.k.name", "string_type")}),
        ({"pair": [1, 2]}, {("pair.1", "string_type")}),
        ({"within": {**GOOD, "age": 100}}, {("within.age", "less_than")}),
        ({"unheard": 1}, {("unheard", "extra_forbidden")}),
    ],
    ids=lambda it: str(sorted(it)) if isinstance(it, set) else str(it),  # the same in every process
)  # fmt: skip
def test_an_input_is_read_as_pydantic_reads_it(
    changes: dict[str, Any], wrong: set[tuple[str, str]]
) -> None:
    """The same verdict, and the field by its place."""
    document = {**GOOD, **changes}
    assert fields(TREE, document) == wrong
    try:
        Tree.model_validate_json(orjson.dumps(document))
    except ValidationError as error:
        places = {".".join(str(part) for part in each["loc"]) for each in error.errors()}
        assert wrong
        assert {field for field, _ in wrong} <= places | {f"{p}.Tree" for p in places}
    else:
        assert not wrong


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(schema=_JSON, document=_JSON)
def test_no_schema_and_no_document_breaks_the_reader(schema: Any, document: Any) -> None:
    """Operators write rows by hand; whatever stands there, a request is answered."""
    mistakes_of({"$defs": {}, "properties": schema, **_dict(schema)}, document)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def test_a_schema_that_refers_to_itself_ends() -> None:
    """However deep the document goes, or does not."""
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}}
    assert mistakes_of(schema, {}) == []
    deep: Any = {}
    for _ in range(500):
        deep = {"within": deep}
    assert mistakes_of(TREE, {**GOOD, "within": deep}) != []


def test_choices_inside_choices_do_not_take_for_ever() -> None:
    """Two kinds of lists, forty deep, and something wrong at the bottom: it is the worker's to refuse."""
    lists = [{"type": "array", "items": {"$ref": "#/$defs/A"}}] * 2
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [*lists, {"type": "string"}]}}}
    deep: Any = 7
    for _ in range(18):
        deep = [deep]
    assert mistakes_of(schema, [7]) != []
    assert mistakes_of(schema, deep) == []


def test_a_format_is_looked_at_where_it_is_an_id() -> None:
    """Others are the worker's to check."""
    schema = {"properties": {"id": {"type": "string", "format": "uuid"}, "at": {"format": "date"}}}
    assert fields(schema, {"id": "x", "at": "x"}) == {("id", "format")}
    assert fields(schema, {"id": str(UUID(int=7))}) == set()


def test_what_our_own_executors_take_is_let_through() -> None:
    """Their defaults alone, where they need nothing else."""
    for description in Registry.load().descriptions():
        schema = description["input_schema"]
        for mistake in mistakes_of(schema, {}):
            assert mistake.code in ("missing", "one_of")
