"""From prompts to steps: in several languages, with degrees, directions, colours, places and quotes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors.providers.offline.refining import refine
from executors.providers.offline.refining.finishes import FINISHES
from executors.providers.offline.refining.reading import Step, read
from executors.providers.offline.refining.styles import STYLES
from executors.providers.offline.refining.tones import TONES
from executors.providers.offline.refining.words import ASKED

RED, BLUE, NAVY, GOLD, PINK, ORANGE = [
    "#d7263d",
    "#2456d6",
    "#1f3566",
    "#d4a52a",
    "#ec6a9c",
    "#f28322",
]
YELLOW, PURPLE, WHITE, BLACK = "#f4c430", "#7b3fb5", "#ffffff", "#000000"


def step(name: str, amount: float = 1.0, *colours: str, **more: object) -> Step:
    """One step."""
    return Step(name, amount, colours, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "steps"),
    [
        ("make it warmer", [step("warmer")]),
        ("much darker and less saturated", [step("darker", 1.5), step("muted")]),
        ("slightly brighter", [step("brighter", 0.5)]),
        ("etwas wärmer, aber mit mehr Kontrast", [step("warmer", 0.5), step("more contrast")]),
        ("not so dark", [step("brighter")]),
        ("less contrast", [step("less contrast")]),
        ("mets-le en noir et blanc", [step("monochrome")]),
        ("colores más vivos y fondo negro", [step("more saturated"), step("background", 1, BLACK)]),
        ("dark mode", [step("dark mode")]),
        # colours
        ("change the red to navy blue", [step("colour", 1, RED, NAVY)]),
        ("replace #ff0000 with #0f0", [step("colour", 1, "#ff0000", "#00ff00")]),
        ("turn the blue into red", [step("colour", 1, BLUE, RED)]),
        ("Rot → Gold", [step("colour", 1, RED, GOLD)]),
        ("make it gold and black", [step("palette", 1, GOLD, BLACK)]),
        ("gold accents", [step("accent", 1, GOLD)]),
        ("in the colours of autumn", [step("palette", text="autumn")]),
        ("Stimmung wie sunset", [step("palette", text="sunset")]),
        ("more professional", [step("palette", text="corporate")]),
        ("a duotone in purple and orange", [step("duotone", 1, PURPLE, ORANGE)]),
        # backgrounds
        ("white background", [step("background", 1, WHITE)]),
        ("auf blauem Hintergrund", [step("gradient background")]),  # a form nobody has taught it
        ("auf blauen Hintergrund", [step("background", 1, BLUE)]),
        ("change the background from white to navy", [step("background", 1, NAVY)]),
        ("the background should be darker", [step("dark background")]),
        ("sfondo bianco e ombra", [step("background", 1, WHITE), step("shadow")]),
        ("remove the background", [step("transparent background")]),
        ("fond transparent", [step("transparent background")]),
        ("ohne Hintergrund", [step("transparent background")]),
        (
            "a gradient background from pink to orange",
            [step("gradient background", 1, PINK, ORANGE)],
        ),
        ("on a dark gradient background", [step("gradient background", shade="dark")]),
        ("don't change the background, but make it blue", [step("palette", 1, BLUE)]),
        ("keep the background", []),
        # shape and place
        ("rounder corners", [step("corners")]),
        ("make it round", [step("circle")]),
        ("rotate by 15 degrees left", [step("rotate", degrees=-15)]),
        ("tilt it", [step("rotate", degrees=12)]),
        ("um 45 Grad drehen", [step("rotate", degrees=45)]),
        ("flip it upside down", [step("mirror", vertical=True)]),
        ("spiegeln", [step("mirror")]),
        ("smaller", [step("padding")]),
        ("a white outline", [step("outline", 1, WHITE)]),
        ("make the leaf bigger", [step("larger")]),
        ("a soft shadow", [step("shadow")]),
        ("no shadow", []),
        # styles
        ("neon style", [step("neon")]),
        ("im Stil einer Bleistiftzeichnung", [step("sketch")]),
        ("8-bit pixel art", [step("pixels")]),
        ("like a watercolor painting", [step("watercolour")]),
        ("make it 3D and golden metal", [step("relief"), step("gold")]),
        ("un estilo retro", [step("aged print")]),
        # words in the picture
        ('add the text "HELLO" at the top', [step("text", text="HELLO", place="top")]),
        ("Text „Grüße“ hinzufügen", [step("text", text="Grüße")]),
        ("ajoute le texte « Été »", [step("text", text=" Été ")]),
        ("Add a slogan: Fresh every day", [step("text", text="Fresh every day")]),
        ("write the words NORTH STAR", [step("text", text="NORTH STAR")]),
        (
            'blue background, yellow text "Hi"',
            [step("background", 1, BLUE), step("text", 1, YELLOW, text="Hi")],
        ),
        ('make it look "warmer"', [step("warmer")]),
        # nothing that is known
        ("asdf qwer", []),
        ("日本語", []),
        ("", []),
    ],
)
def test_prompts(prompt: str, steps: list[Step]) -> None:
    """What is asked for, in the order it was said."""
    assert read(prompt) == steps


def test_whatever_can_be_asked_for_can_be_done() -> None:
    """No word leads to an operation that does not exist."""
    known = {*TONES, *STYLES, *FINISHES, *refine._RECOLOUR, *refine._PARTS, "corners", "circle"}
    assert set(ASKED) - known == {"contrast"}  # which has two directions
    ordered = [name for names in refine._ORDER for name in names]
    assert sorted(ordered) == sorted(refine._PARTS)


def test_a_prompt_is_a_handful_of_steps() -> None:
    """However much is asked for at once."""
    everything = ", ".join(
        words.split()[0].strip("*").replace("_", " ") for words in ASKED.values()
    )
    assert len(read(everything)) == 12


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    """In any script, with any punctuation."""
    assert len(read(text)) <= 12
    read(f"change the {text} background to 'red' \"{text}\" text: {text}")
