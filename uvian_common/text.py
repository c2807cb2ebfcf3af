"""Text that Postgres and UTF-8 take: without U+0000, and without surrogates that stand alone."""

from __future__ import annotations

__all__ = ["TextCleaner", "storable"]


def storable(text: str) -> str:
    """``text`` without what Postgres refuses (U+0000) and what is no Unicode (lone surrogates)."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")


class TextCleaner:
    """Cleans a stream: what ``storable`` does, for text that comes in pieces.

    Some servers split a surrogate pair between two pieces, as JSON allows: the halves are joined.
    """

    def __init__(self) -> None:
        self._half = ""

    def clean(self, text: str) -> str:
        """The text that may be passed on now. A first half at the end waits for the next piece."""
        if "\0" in text:
            text = text.replace("\0", "")
        if not self._half and text.isascii():
            return text
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
        return text
