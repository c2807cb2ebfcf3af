"""Prompt and picture → the picture refined, and what was done to it."""

from __future__ import annotations

__all__ = ["Refined", "refine_picture"]

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from PIL import Image

from executors.imaging.clusters import find_clusters
from executors.imaging.colour import hex_srgb, oklab_to_srgb, srgb_to_oklab
from executors.imaging.palettes import harmonies
from executors.imaging.recolour import cube_nodes, lut_of
from executors.providers.offline.refining import grounds, layouts, recolours
from executors.providers.offline.refining.finishes import FINISHES
from executors.providers.offline.refining.layers import Ground, Layers, take_apart
from executors.providers.offline.refining.lettering import lettered
from executors.providers.offline.refining.reading import Step, read
from executors.providers.offline.refining.styles import STYLES
from executors.providers.offline.refining.tones import TONES, toned

_USUAL: Final = 0.6  # strength when nobody says how much
_LEAST: Final = 0.25  # amount at strength 0: who asks for a change gets one
_SEEN: Final = 3.5  # levels of 255 by which a small copy has to differ to look changed, on average
_PLAIN: Final = 24  # … or plainly
_SPOT: Final = 0.004  # … in this share of it


@dataclass(frozen=True, slots=True)
class Refined:
    """A picture, and the operations that made it, for people to read."""

    image: Image.Image
    operations: tuple[str, ...]


def refine_picture(
    image: Image.Image, prompt: str, *, strength: float | None, seed: int
) -> Refined:
    """Refine an ``RGB`` or ``RGBA`` picture; its size stays. Raises ``Unwritable``.

    Deterministic in all of its arguments. Where no word of the prompt is known, or what it asks for
    cannot be seen on this picture, the picture is polished: it never comes back as it was.
    """
    amount = _LEAST + (1 - _LEAST) * (_USUAL if strength is None else strength)
    work = _Work(image, amount, Random(seed))  # noqa: S311  (chance of design, not of secrets)
    work.run(read(prompt))
    for fallback in (_POLISH, [Step("palette", text=prompt)], [Step("frame")]):
        if _differs(work.image, image):
            break
        work.run(fallback)
    return Refined(work.image, tuple(work.done))


#: For a prompt in words that nobody here knows.
_POLISH: Final = [
    Step("more saturated", 0.6),
    Step("more contrast", 0.7),
    Step("gradient background"),
    Step("shadow", 0.5),
]


class _Work:
    """A picture on its way: whole for operations on colours, in layers for those on parts.

    Whatever the order of the words: colours first, then the manner, the ground, the place, the
    letters, the finish, and what is cut off last.
    """

    def __init__(self, image: Image.Image, amount: float, chance: Random) -> None:
        self.image = image
        self.done: list[str] = []
        self._amount = amount
        self._chance = chance

    def run(self, steps: list[Step]) -> None:
        """Do these steps."""
        for phase in (self._colours, self._parts, self._final):
            phase(steps)

    def _strength(self, step: Step) -> float:
        return min(1.0, max(0.2, self._amount * step.amount))

    def _note(self, step: Step, what: str = "") -> None:
        graded = f"{self._strength(step):.0%}".replace("%", " %")
        self.done.append(what or f"{step.name} {graded}")

    # --- colours ---------------------------------------------------------------------------------

    def _colours(self, steps: list[Step]) -> None:
        tones: list[tuple[str, float]] = []
        for step in steps:
            if step.name in TONES:
                turn = self._chance.uniform(0.2, 0.8) if step.name == "other hues" else 0.0
                tones.append((step.name, turn or self._strength(step)))
                self._note(step)
            elif step.name in _RECOLOUR:
                self.image = _flushed(self.image, tones)
                self.image, what = _RECOLOUR[step.name](self.image, step)
                self._note(step, what)
            elif step.name == "aged print":
                tones.append(("faded", self._strength(step)))
        self.image = _flushed(self.image, tones)

    # --- parts -----------------------------------------------------------------------------------

    def _parts(self, steps: list[Step]) -> None:
        wanted = [step for step in steps if step.name in STYLES or step.name in _PARTS]
        rest = [step for step in steps if step.name in ("circle", "minimal", "watercolour")]
        if not wanted and not rest:
            return
        layers = take_apart(self.image)
        if any(step.name == "watercolour" for step in steps):
            layers = _on_paper(layers)
        for step in [step for step in wanted if step.name in STYLES]:
            layers = STYLES[step.name](layers, self._strength(step), self._chance)
            self._note(step)
        for names in _ORDER:
            for step in [step for step in wanted if step.name in names]:
                layers, what = _PARTS[step.name](layers, step, self._strength(step))
                self._note(step, what)
        if any(step.name == "minimal" for step in steps):
            layers = layouts.scaled(layers, 0.8)
        if any(step.name == "circle" for step in steps):
            self.image = layouts.in_circle(layers)
            self.done.append("cut to a circle")
        else:
            self.image = layers.flat()

    # --- ending ----------------------------------------------------------------------------------

    def _final(self, steps: list[Step]) -> None:
        for step in steps:
            if step.name in FINISHES:
                self.image = FINISHES[step.name](self.image, self._strength(step), self._chance)
                self._note(step)
        for step in steps:
            if step.name == "corners":
                self.image = layouts.rounded(self.image, 0.08 + 0.2 * self._strength(step))
                self._note(step, "rounded corners")
            elif step.name == "frame":
                plate = grounds.framed(take_apart(self.image), Ground.plain("#e9e6df"))
                self.image = plate.flat()
                self._note(step, "framed")


def _flushed(image: Image.Image, tones: list[tuple[str, float]]) -> Image.Image:
    """The tones that have gathered, applied in one pass."""
    if tones:
        image = toned(image, tones)
        tones.clear()
    return image


# --- operations on colours -----------------------------------------------------------------------

_Recolour = Callable[[Image.Image, Step], tuple[Image.Image, str]]


def _palette(image: Image.Image, step: Step) -> tuple[Image.Image, str]:
    changed = recolours.in_colours(image, step.colours, step.text)
    return changed, "palette: " + (", ".join(step.colours) or step.text)


def _colour(image: Image.Image, step: Step) -> tuple[Image.Image, str]:
    old, new = step.colours
    changed = recolours.replaced(image, old, new)
    if changed is None:
        return recolours.accented(image, new), f"accent {new} (nothing like {old} was found)"
    return changed, f"{old} became {new}"


def _accent(image: Image.Image, step: Step) -> tuple[Image.Image, str]:
    return recolours.accented(image, step.colours[0]), f"accent {step.colours[0]}"


def _fewer(count: int) -> _Recolour:
    def fewer(image: Image.Image, step: Step) -> tuple[Image.Image, str]:
        strong = toned(image, [("more saturated", 0.5), ("more contrast", 0.3)])
        return recolours.simplified(strong, count), f"{step.name}: at most {count} colours"

    return fewer


def _duotone(image: Image.Image, step: Step) -> tuple[Image.Image, str]:
    """Dark in one colour, light in another, everything else between them."""
    colours = step.colours or harmonies(step.text or "dusk", 1)[0].colours[1::3]
    pair = sorted((*colours, "#fff6e8")[:2], key=_lightness)
    ends = srgb_to_oklab(hex_srgb(pair))
    # Far enough apart for a picture, whatever the two are.
    ends[0, 0], ends[1, 0] = min(ends[0, 0], 0.38), max(ends[1, 0], 0.84)
    lightness = srgb_to_oklab(cube_nodes())[:, :1]
    darkest, lightest = _range(image)
    t = np.clip((lightness - darkest) / max(lightest - darkest, 0.1), 0, 1)
    nodes = np.clip(oklab_to_srgb(ends[0] + t * (ends[1] - ends[0])), 0, 1)
    return image.filter(lut_of(np.asarray(nodes, np.float32))), f"duotone {pair[0]} and {pair[1]}"


def _range(image: Image.Image) -> tuple[float, float]:
    """The lightness of the darkest and of the lightest of a picture's colours."""
    lightness = srgb_to_oklab(find_clusters(image).colours)[:, 0]
    return (float(lightness.min()), float(lightness.max())) if len(lightness) else (0.0, 1.0)


def _dark_mode(image: Image.Image, _: Step) -> tuple[Image.Image, str]:
    """Light and dark swapped on a light page; on a dark one, what is dark already gets darker."""
    if _page_lightness(image) > 0.55:
        return toned(image, [("light and dark swapped", 1.0)]), "dark mode: light and dark swapped"
    return toned(image, [("more contrast", 0.6), ("darker", 0.3)]), "dark mode: deeper darks"


def _page_lightness(image: Image.Image) -> float:
    """The mean lightness along the border."""
    small = (
        np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BOX), np.float32) / 255
    )
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    return float(srgb_to_oklab(border)[:, 0].mean())


def _lightness(colour: str) -> float:
    return float(srgb_to_oklab(hex_srgb([colour]))[0, 0])


_RECOLOUR: Final[dict[str, _Recolour]] = {
    "palette": _palette,
    "colour": _colour,
    "accent": _accent,
    "minimal": _fewer(3),
    "flat": _fewer(4),
    "duotone": _duotone,
    "dark mode": _dark_mode,
}


# --- operations on parts -------------------------------------------------------------------------

_Part = Callable[[Layers, Step, float], tuple[Layers, str]]


def _clear(layers: Layers, _: Step, __: float) -> tuple[Layers, str]:
    if layers.found:
        return layers.over(None), "transparent background"
    return grounds.framed(
        layers, None, 0.92
    ), "transparent around a plate (no background was found)"


def _ground(layers: Layers, step: Step, _: float) -> tuple[Layers, str]:
    main = grounds.main_of(layers)
    match step.name:
        case "dark background":
            ground = Ground.plain(grounds.dark_of(main))
        case "light background":
            ground = Ground.plain(grounds.light_of(main))
        case "gradient background":
            ground = grounds.blended(step.colours, layers, step.shade)
        case _:
            ground = Ground.plain(step.colours[0])
    ends = dict.fromkeys((ground.corners[0], ground.corners[3]))
    return grounds.on_ground(layers, ground), f"background {' to '.join(ends)}"


def _on_paper(layers: Layers) -> Layers:
    """What is painted with water needs a light paper to shine through."""
    if layers.ground is None or _lightness(layers.ground.colour) > 0.7:
        return layers
    return grounds.on_ground(layers, Ground.plain("#fbf8f1"))


def _rotate(layers: Layers, step: Step, _: float) -> tuple[Layers, str]:
    return layouts.turned(layers, step.degrees), f"turned by {step.degrees:g}°"


def _mirror(layers: Layers, step: Step, _: float) -> tuple[Layers, str]:
    way = "upside down" if step.vertical else "left to right"
    return layouts.mirrored(layers, upside_down=step.vertical), f"mirrored {way}"


def _padding(layers: Layers, _: Step, amount: float) -> tuple[Layers, str]:
    factor = 0.92 - 0.35 * amount
    return layouts.scaled(layers, factor), f"scaled to {factor:.0%}".replace("%", " %")


def _larger(layers: Layers, _: Step, amount: float) -> tuple[Layers, str]:
    factor = 1.1 + 0.5 * amount
    return layouts.scaled(layers, factor), "larger"


def _outline(layers: Layers, step: Step, amount: float) -> tuple[Layers, str]:
    colour = step.colours[0] if step.colours else grounds.dark_of(grounds.main_of(layers))
    return layouts.outlined(layers, colour, 0.008 + 0.022 * amount), f"outline {colour}"


def _sticker(layers: Layers, step: Step, amount: float) -> tuple[Layers, str]:
    colour = step.colours[0] if step.colours else "#ffffff"
    cut = layouts.outlined(layers, colour, 0.016 + 0.024 * amount, filled=True)
    return layouts.shadowed(cut, 0.3), f"sticker on {colour}"


def _shadow(layers: Layers, _: Step, amount: float) -> tuple[Layers, str]:
    return layouts.shadowed(layers, amount), "shadow"


def _text(layers: Layers, step: Step, _: float) -> tuple[Layers, str]:
    colour = step.colours[0] if step.colours else None
    return lettered(
        layers, step.text, step.place, colour
    ), f"text “{step.text}” at the {step.place}"


_PARTS: Final[dict[str, _Part]] = {
    "transparent background": _clear,
    "background": _ground,
    "dark background": _ground,
    "light background": _ground,
    "gradient background": _ground,
    "rotate": _rotate,
    "mirror": _mirror,
    "outline": _outline,
    "sticker": _sticker,
    "padding": _padding,
    "larger": _larger,
    "shadow": _shadow,
    "text": _text,
}

#: In which order parts are changed, whatever the order of the words.
_ORDER: Final[tuple[frozenset[str], ...]] = (
    frozenset(name for name in _PARTS if name.endswith("background")),
    frozenset({"rotate", "mirror"}),
    frozenset({"outline", "sticker"}),
    frozenset({"padding", "larger"}),
    frozenset({"shadow"}),
    frozenset({"text"}),
)


def _differs(one: Image.Image, other: Image.Image) -> bool:
    """Whether people would see a difference, on white or by what has become transparent."""
    size = (min(192, one.width), min(192, one.height))
    first, second = (
        np.asarray(image.resize(size, Image.Resampling.NEAREST).convert("RGBA"), np.int16)
        for image in (one, other)
    )
    opaque = np.maximum(first[..., 3:], second[..., 3:]) > 0
    apart = (np.abs(first - second) * opaque).max(axis=-1)
    return bool(apart.mean() >= _SEEN or (apart > _PLAIN).mean() >= _SPOT)
