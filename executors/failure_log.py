"""What the log says of a failure: one line for an expected error, the whole trace for others."""

from __future__ import annotations

__all__ = ["line_of"]

from typing import Final

from executors.errors import ExecutorError, InvalidInput, StageError, as_executor_error
from repositories.errors import DataError, RepositoryError
from uvian_common.text import storable

_LONGEST: Final = 400  #: characters of a cause
_DEEPEST: Final = 3  #: causes of causes


def line_of(error: BaseException) -> tuple[str, BaseException | None]:
    """The line, with the cause in its own words, and the error whose trace belongs in the log.

    Providers and stores that are away, wrong inputs and all other errors with a sentence of ours are
    expected. Nobody reads their traces, and a hundred of them hide the one that matters.
    """
    if not _is_expected(error):
        return str(error), error
    said = [_line(error)]
    for cause in _causes(error):
        if (line := _line(cause)) and line not in said[-1]:
            said.append(line)
    return ": ".join(part.removesuffix(".") for part in said), None


def _is_expected(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_expected, error.exceptions))
    if isinstance(error, StageError):
        return _is_expected(error.cause)
    if isinstance(error, ExecutorError):
        return True
    known = as_executor_error(error) is not None or isinstance(error, RepositoryError)
    return known and not isinstance(error, DataError)


def _causes(error: BaseException) -> list[BaseException]:
    """The chain of causes. Of a wrong input there is none: the cause would quote the input."""
    while isinstance(error, StageError | BaseExceptionGroup):
        error = error.cause if isinstance(error, StageError) else error.exceptions[0]
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and len(causes) <= _DEEPEST:
        causes.append(cause)
    return [] if isinstance(error, InvalidInput) else causes


def _line(error: BaseException) -> str:
    """Its first line, on one line; of a group that of its first member."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = str(error).strip() or type(error).__name__
    return storable(" ".join(text.split()))[:_LONGEST]
