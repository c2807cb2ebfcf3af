"""An answer on a terminal while it is written: word by word, wrapped between words."""

from __future__ import annotations

__all__ = ["AnswerView", "Wrapped", "printable"]

from collections.abc import Callable
from types import TracebackType
from typing import Self
from unicodedata import category

from rich.cells import cell_len
from rich.console import Console
from rich.status import Status
from rich.text import Text

from uvian_worker.events.job_view import WatchedJob


class AnswerView:
    """Shows the answer of a chat as it comes; where nobody looks it is written once, whole.

    Inside of ``with``, call ``changed`` after every event and ``finish`` with what is stored.
    """

    def __init__(self, console: Console, job: WatchedJob) -> None:
        self._console = console
        self._job = job
        self._shown = ""  #: of the answer, as it was published
        self._wrapped = self._new_page()
        self._status = Status("", console=console)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._status.stop()
        self._end_line()

    def note(self, sentence: str) -> None:
        """Why nothing comes yet."""
        self._status.update(Text(sentence, style="dim"))
        if not self._console.is_terminal:
            Console(stderr=True, highlight=False).print(sentence, soft_wrap=True)

    def changed(self) -> None:
        """Write what is new of the answer."""
        answer = self._job.answer
        if self._console.is_terminal and answer is not None and answer.state != "unknown":
            self._show(answer.text)

    def finish(self, stored: str | None) -> None:
        """The answer is stored, or there is none: what stands there now is what the row has."""
        if stored is not None:
            self._show(stored)
        self._status.stop()
        self._end_line()

    def _show(self, text: str) -> None:
        if text == self._shown:
            return
        if not text.startswith(self._shown):
            self._end_line()
            self._console.print(Text("↻ It begins again.", style="dim"))
            self._shown, self._wrapped = "", self._new_page()
        self._status.stop()
        self._wrapped.write(printable(text[len(self._shown) :]))
        self._shown = text

    def _end_line(self) -> None:
        if self._wrapped.column:
            self._wrapped.write("\n")

    def _new_page(self) -> Wrapped:
        def write(text: str) -> None:
            self._console.file.write(text)
            self._console.file.flush()

        # The last column stays empty: what a terminal does with its cursor there differs.
        width = self._console.width - 1 if self._console.is_terminal else None
        return Wrapped(write, width)


class Wrapped:
    """Writes text at once, and takes a word that does not fit along to the next line."""

    def __init__(self, write: Callable[[str], None], width: int | None) -> None:
        """``width`` in columns; None for what has no width."""
        self._write = write
        self._width = width
        self._word = ""  #: what of a word stands at the end of the line
        self.column = 0

    def write(self, text: str) -> None:
        """The next piece, of any length."""
        self._write("".join(self._placed(sign) for sign in text))

    def _placed(self, sign: str) -> str:
        if sign == "\n":
            self._word, self.column = "", 0
            return sign
        cells = cell_len(sign)
        overflows = self._width is not None and self.column + cells > self._width
        if sign.isspace():
            self._word = ""
            if overflows:
                self.column = 0
                return "\n"
            self.column += cells
            return sign
        before = self._next_line() if overflows else ""
        # Between wide characters a line may end anywhere.
        self._word = "" if cells > 1 else self._word + sign
        self.column += cells
        return before + sign

    def _next_line(self) -> str:
        """Begin one, with the word that is being written; a word as long as a line is broken."""
        length = cell_len(self._word)
        if not length or length >= self.column:
            self._word, self.column = "", 0
            return "\n"
        self.column = length
        return f"\x1b[{length}D\x1b[K\n{self._word}"


def printable(text: str) -> str:
    """Text of a stranger, without what would steer the terminal; a tab is four spaces."""
    expanded = text.replace("\t", "    ")
    return "".join(sign for sign in expanded if sign in _JOINING or category(sign)[0] != "C")


#: Of the signs that are not drawn, those that text needs: line ends, and what joins letters and emoji.
_JOINING = "\n\u200c\u200d"
