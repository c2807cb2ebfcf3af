"""What users read when something fails: sentences, in words of theirs."""

from __future__ import annotations

import inspect
import re
import uuid
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from executors import errors
from executors.base import complaint
from executors.errors import ExecutorError, StageError
from executors.providers.transport.vendor import Refusal, by_status
from executors.registry import BUILT_IN

#: Of programmers, of parsers, of libraries; and values that were sent.
_JARGON = re.compile(
    r"json|pydantic|type=|unable to|parse|regex|pattern|line \d|column \d|traceback|exception|error:|"
    r"null|none\b|\bobject at|https?://|SECRET|\^|\$",
    re.IGNORECASE,
)

_VALUES: list[Any] = [
    None, True, -1, 0.5, 10**30, "", "SECRET", "SECRET" * 9000, [], ["SECRET"], {}, {"SECRET": 1},
    str(uuid.uuid4()), "../SECRET", "SECRET\0", "{SECRET",
]  # fmt: skip


def complaints(model: type[BaseModel]) -> set[str]:
    """What is said of every field with every value, of what is missing, and of what is too much."""
    given: list[dict[str, Any]] = [{}, {"SECRET_FIELD": 1}]
    given += [{name: value} for name in model.model_fields for value in _VALUES]
    full = dict.fromkeys(model.model_fields, "A fox")
    given += [{**full, name: value} for name in model.model_fields for value in _VALUES]
    said = set()
    for document in given:
        try:
            model.model_validate(document)
        except ValidationError as error:
            said.add(complaint(error))
            for each in error.errors():
                alone = ValidationError.from_exception_data(
                    "x",
                    [
                        {
                            "type": each["type"],
                            "loc": each["loc"],
                            "input": 0,
                            "ctx": each.get("ctx", {}),
                        }
                    ],
                )
                said.add(complaint(alone))
    return said


@pytest.mark.parametrize("model", [cls.Input for cls in BUILT_IN], ids=lambda it: it.__name__)
def test_every_complaint_about_an_input_is_a_plain_sentence(model: type[BaseModel]) -> None:
    """The field by its name, no value, nothing of how it was found out."""
    said = complaints(model)
    assert len(said) > 5
    for sentence in said:
        plain = sentence.replace("SECRET_FIELD", "field")
        assert re.fullmatch(r"Invalid input: [a-z].*\.", plain), sentence
        assert not _JARGON.search(plain), sentence
        assert ".." not in plain, sentence


def test_a_value_that_cannot_be_read() -> None:
    """The sentence that stood in a job's error: "…, unable to parse string as an integer"."""

    class Model(BaseModel):
        size: int

    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"size": "huge"})
    assert complaint(caught.value) == "Invalid input: size should be a valid integer."
    with pytest.raises(ValidationError) as caught:
        Model.model_validate_json("nonsense")
    assert complaint(caught.value) == "Invalid input: it cannot be read."


def test_every_error_of_ours_reads_well_by_itself_and_behind_its_stage() -> None:
    """The default of each class, and what each status of a provider becomes."""
    kinds = [
        cls
        for cls in vars(errors).values()
        if inspect.isclass(cls) and issubclass(cls, ExecutorError) and cls is not StageError
    ]
    said = [(cls.__doc__ or "").split("\n")[0] for cls in kinds]
    refused = [by_status("OpenAI", Refusal(status=status)) for status in range(300, 600)]
    said += {error.message for error in refused}
    said += [StageError("storing", error).message for error in refused[:5]]
    for sentence in said:
        assert re.fullmatch(r"[A-Za-z].*\.", sentence), sentence
        assert not _JARGON.search(sentence), sentence
