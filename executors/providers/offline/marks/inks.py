"""Which colour of the theme goes where: grounds, and what can be seen on them."""

from __future__ import annotations

__all__ = ["Colours", "Inks", "colours_of", "inks_on"]

from typing import NamedTuple

from executors.imaging.colour import contrast, delta_e_2000, hex_oklch, hex_srgb
from executors.imaging.palettes import harmonies, theme_colours

_VISIBLE = 1.45  # contrast with the ground that an area needs to be seen at all
_LEGIBLE = 2.4  # … and that the main colour needs
_APART = 14.0  # ΔE2000 between brand colours, so that two areas side by side differ at a glance


class Colours(NamedTuple):
    """What a mark may be drawn in."""

    ink: str  #: almost black, in the theme's hue
    paper: str  #: almost white
    brand: tuple[str, str, str]  #: the theme's own


class Inks(NamedTuple):
    """Colours for a motif on a ground: all visible there, ``main`` the strongest."""

    main: str
    second: str
    accent: str
    ground: str


def colours_of(theme: str) -> Colours:
    """The theme's colours as it names them, completed by a harmony where it names too few."""
    ladder = harmonies(theme, 1)[0].colours
    brand: list[str] = []
    for colour in (*theme_colours(theme), ladder[2], ladder[1], ladder[3]):
        lightness = hex_oklch(colour)[0]
        if 0.26 <= lightness <= 0.9 and all(_apart(colour, other) > _APART for other in brand):
            brand.append(colour)
    brand += [colour for colour in ladder[1:4] if colour not in brand]
    return Colours(ladder[0], ladder[4], (brand[0], brand[1], brand[2]))


def inks_on(ground: str, colours: Colours) -> Inks:
    """Main, second and accent on this ground; brand colours first, then paper and ink."""
    brand = sorted(
        (c for c in colours.brand if c != ground and _contrast(c, ground) >= _VISIBLE),
        key=lambda colour: -_contrast(colour, ground),
    )
    plain = sorted(
        (c for c in (colours.paper, colours.ink) if c != ground),
        key=lambda colour: -_contrast(colour, ground),
    )
    if not brand or _contrast(brand[0], ground) < _LEGIBLE:
        ranked = [plain[0], *brand, *plain[1:]]
    else:
        ranked = [*brand, *plain]
    ranked += [colour for colour in colours.brand if colour not in (ground, *ranked)]
    main, second, accent = ranked[:3]
    return Inks(main, second, accent, ground)


def _contrast(one: str, two: str) -> float:
    first, second = hex_srgb([one, two])
    return float(contrast(first, second))


def _apart(one: str, two: str) -> float:
    first, second = hex_srgb([one, two])
    return float(delta_e_2000(first, second))
