"""Another user's value in any field that names a row or a file: `not_found`, as for a missing one.

The fields are found by walking the input models of all executors, so a field that nobody has thought
of fails here, and so does an executor whose fields nobody has sorted.
"""

from __future__ import annotations

import types
import uuid
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from executors.registry import BUILT_IN
from repositories.concepts import Concept
from tests.executors.site import Site

# --- the fields ----------------------------------------------------------------------------------


class Reference(NamedTuple):
    """A field that names what belongs to somebody."""

    own: Callable[[Concept], str]  #: its value for a thing of one user
    strange: Callable[[Concept, str], list[str]]  #: what leads to another's thing, or to nothing


def _ids(theirs: Concept, _: str) -> list[str]:
    return [
        theirs.id,
        theirs.id.upper(),
        str(uuid.uuid4()),
        "00000000-0000-0000-0000-000000000000",
        "not-an-id",
        "' or true --",
        f"{theirs.id[:-1]}%",
    ]


def _paths(theirs: Concept, user: str) -> list[str]:
    their_user, name = theirs.image_path.split("/")
    return [
        theirs.image_path,
        theirs.variations[0].image_path,
        f"{user}/../{theirs.image_path}",
        f"{user}/..%2f{theirs.image_path}",
        f"{user}//{name}",
        f"{user}/./{name}",
        f"{user}%2f{name}",
        f"{user}\\{name}",
        f"/{theirs.image_path}",
        f"./{theirs.image_path}",
        f"{their_user.upper()}/{name}",
        f"{user}/{name}",  # a file of that name, but not the user's
        f"{user}/{'0' * 64}.png",
        f"file:///{theirs.image_path}",
        "/etc/passwd",
        "x",
    ]


#: What names a row or a file. A new one needs a line here: then it is tried.
REFERENCES = {
    "concept_id": Reference(lambda concept: concept.id, _ids),
    "image_path": Reference(lambda concept: concept.image_path, _paths),
}

#: What leads elsewhere, with the suite that tries it.
ELSEWHERE = {"original_image_url": "tests/executors/fetching"}

#: Text that is nothing but text.
WORDS = {"logo_description", "theme_description", "refinement_prompt", "style"}

SORTED = {*REFERENCES, *ELSEWHERE, *WORDS}


def walk(model: type[BaseModel], inside: str = "") -> Iterator[tuple[str, FieldInfo, object]]:
    """Every field of a model and of the models in it: its dotted name, itself, each type in it."""
    for name, field in model.model_fields.items():
        for kind in kinds_in(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from walk(kind, f"{inside}{name}.")
            else:
                yield f"{inside}{name}", field, kind


def kinds_in(annotation: object) -> Iterator[object]:
    """The plain types that an annotation is made of."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from kinds_in(get_args(annotation)[0])
    elif origin in (Union, types.UnionType, list, tuple, set, frozenset, dict):
        for part in get_args(annotation):
            yield from kinds_in(part)
    elif annotation is not types.NoneType and annotation is not Ellipsis:
        yield annotation


def is_sorted(name: str, kind: object) -> bool:
    """Whether it is known what this field can name."""
    if isinstance(kind, type) and issubclass(kind, (bool, int, float)):
        return not name.endswith("_id")
    return get_origin(kind) is Literal or name.rpartition(".")[2] in SORTED


CASES = sorted(
    {
        (executor.type, name)
        for executor in BUILT_IN
        for name, _, _ in walk(executor.Input)
        if name in REFERENCES
    }
)


@pytest.mark.parametrize("executor", BUILT_IN, ids=lambda executor: executor.type)
def test_every_field_is_sorted(executor: Any) -> None:
    """Each names a row or file, leads elsewhere, is text, or is a number or a choice."""
    for name, _, kind in walk(executor.Input):
        assert is_sorted(name, kind), f"{executor.type}.{name}: say in this file what it can name"
        if name.endswith(("_id", "_path", "_ids", "_paths")):
            assert name.rpartition(".")[2] in REFERENCES, f"{executor.type}.{name} names something"


def test_the_walk_finds_what_is_hidden() -> None:
    """In unions, lists and models in models; and an unknown field is not waved through."""

    class Inner(BaseModel):
        image_path: str

    class Outer(BaseModel):
        concept_id: Annotated[str | None, "…"] = None
        parts: list[Inner] | None = None
        by_name: dict[str, list[Inner]]
        mystery: str
        media_id: int
        size: int

    found = {(name, kind) for name, _, kind in walk(Outer)}
    assert found == {
        ("concept_id", str),
        ("parts.image_path", str),
        ("by_name", str),
        ("by_name.image_path", str),
        ("mystery", str),
        ("media_id", int),
        ("size", int),
    }
    unsorted = {name for name, kind in found if not is_sorted(name, kind)}
    assert unsorted == {"by_name", "mystery", "media_id"}


def test_there_is_something_to_try() -> None:
    """The walk reaches the executors of ours."""
    assert {("refinement", "concept_id"), ("refinement", "image_path")} <= set(CASES)


# --- what comes of them --------------------------------------------------------------------------


def needed(model: type[BaseModel], owner: Concept) -> dict[str, Any]:
    """Values for the fields that an input must have."""
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if field.is_required():
            reference = REFERENCES.get(name)
            values[name] = reference.own(owner) if reference else "words"
    return values


@pytest.mark.database
@pytest.mark.parametrize(("type_", "name"), CASES)
async def test_what_is_not_the_users_is_not_there(site: Site, type_: str, name: str) -> None:
    """One answer for all of it, before anything is paid for; what is the user's is found."""
    me, other = await site.user(), await site.user()
    mine, theirs = await site.concept(me), await site.concept(other, logo_description="a whale")
    executor = site.registry.find(type_)
    assert executor is not None
    base = needed(executor.Input, mine)
    reference = REFERENCES[name]

    row = await site.run(me, type_, **{**base, name: reference.own(mine)})
    assert row["status"] == "completed", row["error_message"]

    async def must_not(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was asked")

    site.image_model.refine = site.image_model.generate = must_not  # type: ignore[assignment,method-assign]
    answers = set()
    for value in reference.strange(theirs, me):
        row = await site.run(me, type_, **{**base, name: value})
        assert row["status"] == "failed", (value, row["output"])
        assert row["error"]["code"] == "not_found", (value, row["error"])
        answers.add((row["error"]["stage"], row["error_message"]))
        assert row["output"] is None
    assert len(answers) == 1, "the answer tells what exists"
