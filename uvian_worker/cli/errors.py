"""How a command ends: exit codes, and every foreseeable error as a sentence with the next step."""

from __future__ import annotations

__all__ = [
    "ExitCode",
    "Fault",
    "exiting_with_zero",
    "explained",
    "keep_traces",
    "print_fault",
    "run",
]

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine, Iterator
from typing import Any, NoReturn, TypeVar

import typer

from uvian_common.scrubbing import scrubbed, scrubbed_trace
from uvian_worker.process.exit_codes import ExitCode

T = TypeVar("T")


class Fault(Exception):
    """What went wrong and what to do, for the person at the terminal."""

    def __init__(self, message: str, code: ExitCode, *, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        self.code = code
        super().__init__(message)


class _Traces:
    wanted = False


def keep_traces() -> None:
    """``--debug``: errors come with their stack trace."""
    _Traces.wanted = True


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command to its end; its errors end the process with a sentence and their exit code."""
    with explained():
        return asyncio.run(_until_signalled(work))


async def _until_signalled(work: Coroutine[Any, Any, T]) -> T:
    """SIGTERM and a closed terminal end a command as Ctrl-C does: whatever it opened is closed."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine always runs in a task
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, task.cancel)
    return await work


@contextlib.contextmanager
def exiting_with_zero() -> Iterator[None]:
    """For servers: SIGTERM and Ctrl-C are how they end, so the exit code is 0."""
    try:
        yield
    except typer.Exit as exited:
        signalled = exited.exit_code == ExitCode.INTERRUPTED
        raise typer.Exit(ExitCode.OK if signalled else exited.exit_code) from None


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn what escapes into a sentence on stderr and an exit code."""
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except (typer.Exit, typer.BadParameter, SystemExit):
        raise
    except BrokenPipeError:
        # `uvian jobs list | head`: whoever read us has seen enough.
        sys.stderr.close()
        raise typer.Exit(ExitCode.OK) from None
    except Exception as error:  # noqa: BLE001 - every error ends in a sentence
        _give_up(error)


def _give_up(error: Exception) -> NoReturn:
    fault = error if isinstance(error, Fault) else _translated(error)
    print_fault(fault)
    raise typer.Exit(fault.code) from None


def print_fault(fault: Fault) -> None:
    """The sentence and the next step, on stderr; with ``--debug`` where it came from."""
    from rich.console import Console
    from rich.text import Text

    from uvian_worker.cli.terminal.program import as_called

    console = Console(stderr=True, highlight=False)
    flows = not console.is_terminal  # a pipe has no width
    if _Traces.wanted and sys.exc_info()[0] is not None:
        console.print(Text(scrubbed_trace(*sys.exc_info())), soft_wrap=True)
    console.print(Text.assemble(("✗ ", "bold red"), scrubbed(fault.message)), soft_wrap=flows)
    if fault.hint:
        console.print(
            Text.assemble(("→ ", "cyan"), scrubbed(as_called(fault.hint))), soft_wrap=flows
        )


def _translated(error: Exception) -> Fault:
    """Any error as a fault; no other function knows them all."""
    from uvian_worker.config import ConfigError
    from uvian_worker.local.server_process import EmbeddedError
    from uvian_worker.local.worker_process import WorkerEnded

    match error:
        case ConfigError():
            return Fault(str(error), ExitCode.USAGE)
        case EmbeddedError() | WorkerEnded():
            return Fault(str(error), ExitCode.NOT_STARTED)
        case _:
            return _of_repositories(error) or Fault(
                f"Something unexpected happened: {type(error).__name__}: {error}",
                ExitCode.UNEXPECTED,
                hint="Run it again with --debug for the stack trace: uvian --debug …",
            )


def _of_repositories(error: Exception) -> Fault | None:
    from repositories import errors
    from uvian_worker.client.calls import DatabaseAway

    match error:
        case errors.Transient() | DatabaseAway():
            return Fault(str(error), ExitCode.UNREACHABLE, hint=_next_try(error))
        case errors.Misconfigured():
            return Fault(str(error), ExitCode.USAGE)
        case errors.RepositoryError():
            return Fault(str(error), ExitCode.REFUSED)
        case _:
            return None


def _next_try(error: Exception) -> str:
    """What helps against a fault that passes: only where nobody answers it may be a setting."""
    from repositories.errors import TimedOut
    from uvian_worker.client.calls import DatabaseAway

    cause = error.__cause__ if isinstance(error, DatabaseAway) else error
    if isinstance(cause, TimedOut):
        return "Try again in a moment; look first whether it has happened all the same."
    if "UVIAN_" in str(error):
        return ""
    return (
        "Try again in a moment. If it stays so, check that the database runs, and UVIAN_DATABASE_URL "
        "or UVIAN_SUPABASE_URL."
    )
