"""What the operator allows of a type holds in the worker too, whatever the row says."""

from __future__ import annotations

import builtins
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from executors.base import BaseExecutor, JobContext, JobInput
from executors.registry import Registry
from tests.executors.running.conftest import Bench
from tests.executors.running.executors import ScriptOutput


class ChoosyInput(JobInput):
    """An input with a word on everything that the operator may set."""

    model: str | None = None
    max_tokens: int | None = None
    system_prompt: str | None = None


class ChoosyExecutor(BaseExecutor[ChoosyInput, ScriptOutput]):
    """Says what it was asked to use."""

    type = "choosy"
    Input: ClassVar[builtins.type[BaseModel]] = ChoosyInput
    Output = ScriptOutput

    def __init__(self) -> None:
        self.used: list[dict[str, Any]] = []

    async def execute(self, job: JobContext[ChoosyInput]) -> ScriptOutput:
        self.used.append(job.input.model_dump())
        return ScriptOutput(said="done")


class UsualInput(JobInput):
    """An input with defaults of its own."""

    model: str = "house"
    max_tokens: int = 500


class UsualExecutor(ChoosyExecutor):
    """Whose input has defaults."""

    type = "usual"
    Input: ClassVar[builtins.type[BaseModel]] = UsualInput


async def ran(bench: Bench, executor: type[ChoosyExecutor], asked: Any, said: Any) -> Any:
    """What the executor used, or the error, when the operator spoke after the job was made."""
    registry = Registry([executor])
    await bench.jobs.register("0.1.0", registry.descriptions())
    bench.runner._execution = replace(bench.runner._execution, registry=registry)
    await bench.database.call(
        "configure_types",
        request={
            "types": [
                {"type": executor.type, "models": None, "max_tokens": None, "system_prompt": None}
            ]
        },
    )
    job_id = await bench.create(executor.type, **asked)
    await bench.database.call(
        "configure_types", request={"types": [{"type": executor.type, **said}]}
    )
    await bench.runner.run(job_id, 1)
    row = await bench.row(job_id)
    (instance,) = registry
    assert isinstance(instance, ChoosyExecutor)
    if row["status"] == "completed":
        return instance.used[-1]
    assert instance.used == []
    assert (row["status"], row["error"]["code"]) == ("failed", "invalid_input"), row["error"]
    return row["error"]["message"]


@pytest.mark.database
@pytest.mark.parametrize(
    ("asked", "said", "used"),
    [
        ({"model": "large"}, {"models": ["small"]}, "model may be: small"),
        ({"model": "large"}, {"models": ["small", "large"]}, {"model": "large"}),
        ({}, {"models": ["small", "large"]}, {"model": "small"}),
        ({"model": None}, {"models": ["small"]}, {"model": "small"}),
        ({"max_tokens": 200_000}, {"max_tokens": 1000}, "max_tokens may be 1000 at most"),
        ({"max_tokens": "200000"}, {"max_tokens": 1000}, "max_tokens may be 1000 at most"),
        ({"max_tokens": 10}, {"max_tokens": 1000}, {"max_tokens": 10}),
        ({}, {"max_tokens": 1000}, {"max_tokens": 1000}),
        ({"system_prompt": "Be rude."}, {"system_prompt": "Be kind."}, "the operator's"),
        ({}, {"system_prompt": "Be kind."}, {"system_prompt": "Be kind."}),
        (
            {"model": "large", "max_tokens": 9, "system_prompt": "Be rude."},
            {},
            {"model": "large", "max_tokens": 9, "system_prompt": "Be rude."},
        ),
    ],
)
async def test_a_job_that_was_made_before_keeps_to_what_is_allowed_now(
    bench: Bench, asked: Any, said: Any, used: Any
) -> None:
    """The provider is asked for what the operator allows at that moment, or not at all."""
    result = await ran(bench, ChoosyExecutor, asked, said)
    if isinstance(used, str):
        assert used in result
    else:
        assert {name: result[name] for name in used} == used


@pytest.mark.database
@pytest.mark.parametrize("adapter", ["postgres"], indirect=True)
async def test_a_default_of_the_executor_is_no_wish_of_the_user(bench: Bench) -> None:
    """The operator's word goes before it; settings about fields that are not there mean nothing."""
    said = {"models": ["small"], "max_tokens": 100, "system_prompt": "Be kind."}
    assert await ran(bench, UsualExecutor, {}, said) == {"model": "small", "max_tokens": 100}
    said = {"models": ["small"], "max_tokens": 900}
    assert (await ran(bench, UsualExecutor, {}, said))["max_tokens"] == 500
    assert "model may be" in await ran(bench, UsualExecutor, {"model": "house"}, said)


@pytest.mark.database
@pytest.mark.parametrize("adapter", ["postgres"], indirect=True)
async def test_a_row_that_no_door_has_looked_at_is_looked_at(bench: Bench) -> None:
    """Inserted past every trigger, as only the owner of the schema can."""
    registry = Registry([ChoosyExecutor])
    await bench.jobs.register("0.1.0", registry.descriptions())
    bench.runner._execution = replace(bench.runner._execution, registry=registry)
    job_id = await bench.create("choosy", model="small")
    await bench.execute("update uvian.job_types set models = '{small}' where type = 'choosy'")
    await bench.execute('update uvian.jobs set input = \'{"model": "large"}\'')
    await bench.runner.run(job_id, 1)
    row = await bench.row(job_id)
    assert (row["status"], row["error"]["code"]) == ("failed", "invalid_input")
