"""Text as vendors stream it, made fit to be shown and stored before anybody has seen it."""

from __future__ import annotations

__all__ = ["TextCleaner"]

import re
from typing import Final

from executors.errors import readable

_HALF: Final = re.compile("[\ud800-\udfff]")


class TextCleaner:
    """Joins surrogates that came in two pieces; drops U+0000 and the halves that stay alone."""

    def __init__(self) -> None:
        self._half = ""

    def clean(self, text: str) -> str:
        """The text that may be passed on now."""
        text, self._half = self._half + text, ""
        if _HALF.search(text):
            if "\ud800" <= text[-1] <= "\udbff":
                text, self._half = text[:-1], text[-1]  # its other half may come next
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
        return readable(text)
