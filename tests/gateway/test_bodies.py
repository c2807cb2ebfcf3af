"""JSON bodies: what cannot be kept is refused by its field, whatever parser would give up on it."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvian_worker.gateway.http.bodies import document_of_body
from uvian_worker.gateway.http.problems import Problem


def refused(raw: bytes) -> Problem:
    """The problem that this body is."""
    with pytest.raises(Problem) as problem:
        document_of_body(raw)
    return problem.value


def nested(depth: int, opening: str, inner: str, closing: str) -> bytes:
    """A field ``input.a`` that is so deep."""
    return ('{"input":{"a":' + opening * depth + inner + closing * depth + "}}").encode()


@pytest.mark.parametrize("depth", [64, 260, 1_100, 100_000])
@pytest.mark.parametrize(("opening", "inner", "closing"), [("[", "", "]"), ('{"b":', "1", "}")])
def test_what_is_too_deep_is_refused_by_its_field(
    depth: int, opening: str, inner: str, closing: str
) -> None:
    """Whether orjson reads it, pydantic would, or nothing at all."""
    problem = refused(nested(depth, opening, inner, closing))
    assert (problem.kind.status, problem.code) == (422, "invalid_input")
    (error,) = problem.members["errors"]
    assert error["field"].startswith("input.a")
    assert error["code"] == "too_deep"


def test_what_is_as_deep_as_may_be_is_taken() -> None:
    """Sixty-four, those around it counted."""
    raw = nested(62, "[", "", "]")
    assert document_of_body(raw) == orjson.loads(raw)


@pytest.mark.parametrize("half", ["\\ud83e", "\\uDC00", "\\ud83e\\ud83e", "a\\ud800b"])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"input":{"text":"X"}}', "input.text"),
        ('{"input":{"list":["ok",{"deep":"X"}]}}', "input.list.1.deep"),
        ('{"input":{"X":1}}', "input"),
        ('{"X":1}', ""),
        ('"X"', ""),
    ],
)
def test_half_an_emoji_is_refused_by_its_field(half: str, body: str, field: str) -> None:
    """In a text or a name, at any place."""
    problem = refused(body.replace("X", half).encode())
    assert (problem.kind.status, problem.members["in"]) == (422, "body")
    assert [error["field"] for error in problem.members["errors"]] == [field]


def test_nul_is_refused_by_its_field() -> None:
    """Postgres cannot keep it; a backslash before a u is something else."""
    problem = refused(b'{"input":{"a":"x\\u0000","b\\u0000":{"c":"\\u0000"}}}')
    fields = {error["field"] for error in problem.members["errors"]}
    assert fields == {"input", "input.a", "input.b?.c"}
    assert document_of_body(rb'{"a":"\\u0000"}') == {"a": "\\u0000"}


@pytest.mark.parametrize(
    "raw",
    [b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1e400}', b"\xef\xbb\xbf{}", b'"\xed\xa0\x80"', b"{"],
)
def test_what_is_no_json_is_no_json(raw: bytes) -> None:
    """As RFC 8259 has it: numbers are finite, text is UTF-8, no byte order mark."""
    assert refused(raw).code == "bad_request"


def test_of_a_name_given_twice_the_last_counts() -> None:
    """As in browsers and in jsonb, so that all that read it agree."""
    assert document_of_body(b'{"a":1,"a":2}') == {"a": 2}


def test_a_whole_number_beyond_64_bits_is_no_integer() -> None:
    """The field that wants an integer says so itself."""
    assert document_of_body(b'{"a":1' + b"0" * 30 + b"}") == {"a": 1e30}


@pytest.mark.parametrize(
    "raw",
    [
        b"{" + b",".join(b'"k%d":1' % n for n in range(80_000)) + b"}",
        b'{"a":[' + b'{"b":[1,{"c":"\\\\u0000"}]},' * 36_000 + b"1]}",
        b'{"a":"\\ud800",' + b'"b":[' + b"[]," * 330_000 + b"1]}",
        b'{"a":' + b"[" * 500_000,
        b'{"a":"' + b"\\ud83e" * 170_000 + b'"}',
    ],
    ids=["keys", "nul in disguise", "half and wide", "deep", "halves"],
)
def test_a_megabyte_of_anything_costs_little(raw: bytes) -> None:
    """Others wait meanwhile."""
    began = time.process_time()
    with contextlib.suppress(Problem):
        document_of_body(raw)
    assert time.process_time() - began < 5  # of a machine that is busy; a tenth of it is usual


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(_JSON)
def test_whatever_can_be_kept_is_taken_as_it_is(document: Any) -> None:
    """And what has a NUL in it is not, wherever."""
    raw = orjson.dumps(document)
    if b"\\u0000" in raw and "\0" in str(document).replace("\\x00", "\0"):
        assert refused(raw).code == "invalid_input"
    else:
        assert document_of_body(raw) == document


@given(
    st.binary(max_size=60) | st.text(alphabet='[]{}",:\\ud8\x00ef019 ', max_size=60).map(str.encode)
)
def test_rubbish_is_refused_in_good_order(raw: bytes) -> None:
    """No exception but the one."""
    with contextlib.suppress(Problem):
        document_of_body(raw)
