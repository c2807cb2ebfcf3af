"""``uvian chat``: a conversation at the terminal."""

from __future__ import annotations

__all__ = ["chat"]

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uvian_worker.cli.errors import ExitCode, Fault, print_fault, run
from uvian_worker.cli.terminal.program import program

if TYPE_CHECKING:
    from rich.console import Console

    from repositories.messages import Message
    from uvian_worker.cli.terminal.talk import Answered, Talk

_REMEMBERED = 20  #: messages that are shown of a conversation that goes on


class OnBusy(StrEnum):
    """What becomes of a question while another one is being answered."""

    ENQUEUE = "enqueue"
    REJECT = "reject"
    INTERRUPT = "interrupt"


def chat(
    question: Annotated[
        str | None,
        typer.Argument(help="One question. Without it you are asked for one after the other."),
    ] = None,
    *,
    user: Annotated[
        str | None, typer.Option(help="The user who asks: an id from auth.users.")
    ] = None,
    conversation: Annotated[
        str | None, typer.Option(help="Continue this one; its last messages are shown.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A model, by the name that the provider gives it.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt for the model.")] = None,
    on_busy: Annotated[
        OnBusy,
        typer.Option(help="If another question is being answered: wait, be refused, or stop it."),
    ] = OnBusy.ENQUEUE,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document; needs a QUESTION.")
    ] = False,
) -> None:
    """Chat with a model. Ctrl-C stops an answer; what was written so far is stored.

    At the prompt Ctrl-C and Ctrl-D end the conversation. Text from a pipe is the question:
    git diff | uvian chat --system "You review code."
    """
    if question is None and not sys.stdin.isatty():
        question = sys.stdin.read()
    given = {"model": model, "system_prompt": system}
    options = {name: value for name, value in given.items() if value is not None}
    raise typer.Exit(run(_chat(question, user, conversation, on_busy, options, as_json)))


async def _chat(
    question: str | None,
    user: str | None,
    conversation: str | None,
    on_busy: OnBusy,
    options: dict[str, Any],
    as_json: bool,
) -> ExitCode:
    from uvian_worker.cli.connect import open_site
    from uvian_worker.cli.lookup import conversation_id_of, user_id_of
    from uvian_worker.cli.terminal.talk import Talk

    if as_json and question is None:
        raise Fault("--json needs a QUESTION.", ExitCode.USAGE, hint='uvian chat --json "…"')
    if question is not None and not question.strip():
        raise Fault("Nothing is asked.", ExitCode.USAGE, hint='uvian chat "…"')
    known = None if conversation is None else conversation_id_of(conversation)
    async with open_site() as site:
        talk = Talk(site, user_id_of(user, site), known, on_busy.value, options)
        try:
            if question is None:
                return await _converse(talk)
            return await _ask_once(talk, question, as_json)
        finally:
            await talk.leave()


async def _ask_once(talk: Talk, question: str, as_json: bool) -> ExitCode:
    import io

    from rich.console import Console

    from uvian_worker.cli.terminal.output import console, print_json

    screen = Console(file=io.StringIO()) if as_json else console()
    answered = await talk.ask(question, screen)
    if as_json:
        print_json(answered.as_document())
    else:
        # What is piped on is the answer alone.
        _conclude(console() if screen.is_terminal else console(stderr=True), answered)
    if answered.stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.OK if answered.job.status == "completed" else ExitCode.JOB_FAILED


async def _converse(talk: Talk) -> ExitCode:
    """One question after the other, until no more come."""
    from rich.text import Text

    from uvian_worker.cli.terminal.output import console
    from uvian_worker.cli.terminal.prompt import no_echo, read_line

    screen = console()
    _look_back(screen, await talk.history(_REMEMBERED))
    screen.print(Text("Ctrl-C stops an answer, Ctrl-D ends.\n", style="dim"))
    while (question := read_line()) is not None:
        if not question.strip():
            continue
        screen.print()
        try:
            with no_echo():
                _conclude(screen, await talk.ask(question, screen))
        except Fault as fault:
            if fault.code != ExitCode.REFUSED or not talk.conversation_id:
                raise
            print_fault(fault)  # the next question may be another matter
        screen.print()
    if talk.conversation_id is not None and not talk.is_empty:
        again = f"{program()} chat --conversation {talk.conversation_id}"
        screen.print(Text.assemble(("To go on: ", "dim"), (again, "cyan")), soft_wrap=True)
    return ExitCode.OK


def _look_back(screen: Console, messages: list[Message]) -> None:
    """What was said, dimmed: it is the past."""
    from rich.text import Text

    from uvian_worker.cli.terminal.answer import printable
    from uvian_worker.cli.terminal.prompt import PROMPT

    for message in messages:
        mark = PROMPT if message.role == "user" else ""
        stopped = " (stopped)" if message.status == "cancelled" else ""
        screen.print(Text(f"{mark}{printable(message.content)}{stopped}\n", style="dim"))


def _conclude(screen: Console, answered: Answered) -> None:
    """How the answer ended, in one line."""
    from rich.text import Text

    from uvian_worker.cli.terminal.output import credits_said, duration

    job, stored = answered.job, answered.stored
    if job.status == "failed":
        code = (job.error or {}).get("code", "")
        said = job.error_message or "The answer failed."
        line = Text.assemble(("✗ ", "bold red"), said, (f" ({code})", "dim"))
        screen.print(line, soft_wrap=not screen.is_terminal)
        return
    facts = [duration(job.ms)]
    if stored is not None and stored.usage is not None:
        facts.append(f"{stored.usage['completion_tokens']} tokens")
    if float(job.cost):
        facts.append(credits_said(job.cost))
    line = Text(" · ".join(facts), style="dim")
    if job.status == "cancelled":
        outcome = "stored as far as it was written" if stored else "nothing of it was written"
        line = Text.assemble(("○ stopped", "magenta"), (f", {outcome} · ", "dim"), line)
    for warning in job.warnings:
        line.append(f"\n! {warning['message']}", style="yellow")
    screen.print(line, soft_wrap=not screen.is_terminal)
