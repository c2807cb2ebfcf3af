"""The input of a job, as words on a command line."""

from __future__ import annotations

from typing import Any

import pytest

from executors.generation import GenerationInput
from uvian_worker.cli.errors import ExitCode, Fault
from uvian_worker.cli.inputs import check_fields, parse_input

_SCHEMA = GenerationInput.model_json_schema()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("logo_description=42", "42"),
        ("logo_description=a=b", "a=b"),
        ("num_palettes=3", 3),
        ("seed=null", None),
        ("style=null", None),
        ("style=flat", "flat"),
        ("num_palettes=many", "many"),
    ],
)
def test_a_value_is_read_as_its_field_is(word: str, value: Any) -> None:
    """Text where the schema takes text, JSON elsewhere; the worker judges what is neither."""
    assert list(parse_input([word], _SCHEMA).values()) == [value]


def test_one_json_object_is_the_whole_input() -> None:
    """What begins with a brace is JSON."""
    assert parse_input(['{"a": [1, 2]}'], {}) == {"a": [1, 2]}


@pytest.mark.parametrize("words", [["{oops"], ["word"], ["=x"], ["{}", "a=1"]])
def test_what_is_neither_is_refused(words: list[str]) -> None:
    """The sentence shows how to write it."""
    with pytest.raises(Fault) as refused:
        parse_input(words, {})
    assert refused.value.code == ExitCode.USAGE


def test_unknown_fields_are_answered_by_the_nearest() -> None:
    """A typing error is found before a job is made."""
    with pytest.raises(Fault) as refused:
        check_fields({"logo_desription": "x"}, _SCHEMA)
    assert refused.value.hint == "Did you mean logo_description?"


@pytest.mark.parametrize(
    ("values", "said", "hint"),
    [
        (
            {"size": "huge"},
            "The input does not fit: size should be a whole number.",
            "size takes: type integer, minimum 256, maximum 2048, default 1024",
        ),
        ({"size": 77}, "The input does not fit: size: at least 256.", "size takes: type integer"),
        (
            {"size": 77, "num_palettes": 99},
            "The input does not fit: size: at least 256; num_palettes: at most 12.",
            "",
        ),
        ({"seed": "x"}, "The input does not fit: seed should be a whole number.", "seed takes:"),
    ],
)
def test_values_that_do_not_fit_are_told_before_anything_is_made(
    values: dict[str, Any], said: str, hint: str
) -> None:
    """What is wrong with which field, and what it takes."""
    given = {"logo_description": "a", "theme_description": "b", **values}
    with pytest.raises(Fault) as refused:
        check_fields(given, _SCHEMA)
    assert refused.value.code == ExitCode.USAGE
    assert refused.value.message == said
    assert refused.value.hint.startswith(hint)


def test_missing_fields_are_named() -> None:
    """All of them at once, and how to give them."""
    with pytest.raises(Fault) as refused:
        check_fields({"seed": 1}, _SCHEMA)
    assert refused.value.message == "The input lacks logo_description and theme_description."
    assert refused.value.hint.startswith("Give it as: logo_description=… theme_description=….")


def test_a_type_nobody_has_described_takes_anything() -> None:
    """Before the first worker has registered, the schema is empty."""
    check_fields({"whatever": 1}, {})
