"""What the log says of a failure."""

from __future__ import annotations

import inspect

import pytest

from executors import errors
from executors.errors import (
    ExecutorError,
    InvalidInput,
    ProviderUnavailable,
    RateLimited,
    StageError,
)
from executors.failure_log import line_of
from executors.providers.transport.vendor import VendorFault
from repositories import errors as repository_errors


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """With a trace, as it is when it is caught."""
    with pytest.raises(type(error)) as caught:
        raise error from cause
    return caught.value


def kinds() -> list[ExecutorError]:
    """One of every error that an executor may raise."""
    found = []
    for cls in vars(errors).values():
        if not (inspect.isclass(cls) and issubclass(cls, ExecutorError)) or cls is StageError:
            continue

        found.append(RateLimited(1.0) if cls is RateLimited else cls())
    return found


@pytest.mark.parametrize("error", kinds(), ids=lambda error: type(error).__name__)
def test_every_error_of_ours_is_one_line_without_its_trace(error: ExecutorError) -> None:
    """Bare, in a stage, and in a group of them."""
    for seen in (
        raised(error, VendorFault("openai: 500\nout of memory")),
        raised(StageError("base_image", error)),
        raised(ExceptionGroup("two", [error, StageError("storing", error)])),
    ):
        line, trace = line_of(seen)
        assert trace is None
        assert error.message.removesuffix(".") in line
        assert "\n" not in line


@pytest.mark.parametrize(
    "error",
    [
        repository_errors.Unavailable("no answer"),
        repository_errors.TimedOut("no answer"),
        repository_errors.NotFound("no answer"),
        repository_errors.Misconfigured("no answer"),
    ],
)
def test_stores_that_are_away_are_one_line_too(error: Exception) -> None:
    """With their own words behind the user's."""
    line, trace = line_of(raised(StageError("storing", error, label="Storing the image")))
    assert trace is None
    assert line.startswith("Storing the image failed")
    assert line.endswith("no answer")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        StageError("drawing", KeyError("a bug")),
        ExceptionGroup("two", [ProviderUnavailable(), ValueError("a bug")]),
        repository_errors.DataError("a bug"),
        RuntimeError("the executor cancelled itself"),
    ],
)
def test_what_nobody_foresaw_keeps_its_trace(error: Exception) -> None:
    """A bug hides behind no sentence, wherever it happened."""
    _, trace = line_of(raised(error))
    assert trace is error


def test_the_cause_says_what_the_user_does_not_read() -> None:
    """The vendor's words are for the log; a user's input is not."""
    fault = VendorFault("openai: 502 Provider disconnected")
    line, _ = line_of(raised(ProviderUnavailable("The server has an internal fault."), fault))
    assert line == "The server has an internal fault: openai: 502 Provider disconnected"
    line, _ = line_of(
        raised(InvalidInput("size should be a number."), ValueError("input_value='x'"))
    )
    assert line == "size should be a number"
