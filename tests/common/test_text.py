"""Text that Postgres and UTF-8 take, whole or in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvian_common.text import TextCleaner, storable


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["a\0b"], "ab"),
        (["\ud83e", "\udd8a!"], "🦊!"),
        (["\ud83e\udd8a"], "🦊"),
        (["\ud83e", "no"], "no"),
        (["\udd8a", "x"], "x"),
        (["x\ud83e"], "x"),
        (["\ud83e", "\ud83e", "\udd8a"], "🦊"),
        (["\ud83e", "", "\udd8a"], "🦊"),
    ],
)
def test_text_can_be_stored_before_it_is_shown(pieces: list[str], text: str) -> None:
    """No U+0000, no half of a surrogate; two halves that meet are the character they were."""
    cleaner = TextCleaner()
    assert "".join(cleaner.clean(piece) for piece in pieces) == text


@given(st.lists(st.text(st.characters(codec=None), max_size=5), max_size=8))
def test_cleaned_text_is_always_unicode(pieces: list[str]) -> None:
    """Whatever comes in, what goes out can be encoded and has no U+0000."""
    cleaner = TextCleaner()
    for piece in pieces:
        cleaned = cleaner.clean(piece)
        assert "\0" not in cleaned
        cleaned.encode()


@given(st.text(st.characters(codec=None), max_size=20))
def test_a_whole_text_is_storable_too(text: str) -> None:
    """Nothing else is changed, and cleaning twice changes nothing more."""
    cleaned = storable(text)
    assert cleaned == "".join(c for c in text if c != "\0" and not "\ud800" <= c <= "\udfff")
    assert storable(cleaned) == cleaned
    cleaned.encode()
