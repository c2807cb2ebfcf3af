"""Styles: the subject drawn again in another manner, on the ground that belongs to it."""

from __future__ import annotations

__all__ = ["STYLES", "Style"]

from collections.abc import Callable
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from executors.imaging.colour import hex_oklch, hex_srgb, oklab_to_srgb, oklch_hex, srgb_to_oklab
from executors.providers.offline.refining.grounds import light_of, main_of, rounded_mask
from executors.providers.offline.refining.layers import Ground, Layers
from executors.providers.offline.refining.layouts import in_frame, placed, shadowed
from executors.providers.offline.refining.tones import toned

Style = Callable[[Layers, float, Random], Layers]

_SIDE: Final = 1024  # pixels at which lines and light are drawn; larger pictures get them enlarged


def _sketch(layers: Layers, amount: float, chance: Random) -> Layers:
    """Pencil: contours drawn twice, darkness as hatching."""
    picture = _at_work(layers)
    size = picture.size
    lines = _contours(picture, max(2, size[0] // 260))
    again = ImageChops.offset(lines, chance.choice((-3, 3)), chance.choice((-2, 2)))
    pencil = ImageChops.lighter(lines, again.point(lambda level: level * 55 // 100))
    grey = picture.convert("L")
    shaded = layers.alpha.resize(size, Image.Resampling.BOX)
    gap = max(4, size[0] // 90)
    for threshold, (dx, dy) in ((205, (1, 1)), (135, (1, -1)), (75, (3, 1))):
        deep = grey.point(lambda level, t=threshold: 255 if level < t else 0)
        hatch = ImageChops.darker(_hatching(size, dx, dy, gap * max(dx, dy)), shaded)
        pencil = ImageChops.lighter(pencil, ImageChops.darker(hatch, deep))
    pencil = pencil.filter(ImageFilter.GaussianBlur(0.7))
    pencil = ImageChops.multiply(pencil, _noise(size, chance, 0.6, 1.0))
    strength = 0.7 + 0.3 * amount
    ink = oklch_hex(0.27, 0.03, hex_oklch(main_of(layers))[2])
    return _inked(
        layers, pencil.point(lambda level: round(level * strength)), ink, Ground.plain("#fbf9f3")
    )


def _line_art(layers: Layers, amount: float, _: Random) -> Layers:
    """Contours alone, in one ink."""
    picture = _at_work(layers)
    lines = _contours(picture, max(2, round(picture.width * (0.004 + 0.005 * amount))))
    ink = oklch_hex(0.3, 0.06, hex_oklch(main_of(layers))[2])
    return _inked(layers, lines, ink, Ground.plain(light_of(main_of(layers))))


def _blueprint(layers: Layers, amount: float, _: Random) -> Layers:
    """White lines and a grid on blue."""
    picture = _at_work(layers)
    lines = _contours(picture, max(2, round(picture.width * (0.004 + 0.004 * amount))))
    grid = Image.new("L", picture.size)
    draw = ImageDraw.Draw(grid)
    step = picture.width / 32
    for at in range(33):
        level = 62 if at % 4 == 0 else 26
        draw.line((at * step, 0, at * step, picture.height), fill=level)
        draw.line((0, at * step, picture.width, at * step), fill=level)
    ground = Ground(("#1d56a8", "#1a4c98", "#1a4c98", "#153f82"))
    return _inked(layers, ImageChops.lighter(grid, lines), "#eaf3ff", ground)


def _neon(layers: Layers, amount: float, _: Random) -> Layers:
    """Tubes of light along the contours, glowing on a dark wall."""
    tubes = _contours(_at_work(layers), max(2, _work_size(layers.size)[0] // 120))
    # Tubes have the colours of the subject beside them, as bright as a gas can be.
    dark = _at_work(layers.over(Ground.plain("#000000")))
    beside = dark.reduce(2).filter(ImageFilter.GaussianBlur(dark.width / 240))
    lit = toned(_bright(beside), [("more saturated", 0.8)]).resize(dark.size)
    light = ImageChops.multiply(lit, Image.merge("RGB", [tubes] * 3))
    glow = light
    for radius, gain in ((0.006, 1.3), (0.02, 1.5), (0.055, 1.6)):
        halo = light.reduce(2).filter(ImageFilter.GaussianBlur(radius * light.width / 2))
        halo = halo.resize(light.size, Image.Resampling.BILINEAR)
        strength = gain * (0.5 + 0.7 * amount)
        glow = ImageChops.screen(glow, halo.point(lambda v, s=strength: min(255, round(v * s))))
    hot = tubes.filter(ImageFilter.MinFilter(3)).point(lambda level: level * 32 // 100)
    glow = ImageChops.screen(glow, Image.merge("RGB", [hot] * 3))
    hue = hex_oklch(main_of(layers))[2]
    wall = Ground((oklch_hex(0.19, 0.04, hue),) * 2 + (oklch_hex(0.13, 0.03, hue),) * 2)
    return Layers(_as_light(glow).resize(layers.size, Image.Resampling.BILINEAR), wall, found=True)


def _glass(layers: Layers, amount: float, _: Random) -> Layers:
    """The subject on a pane of frosted glass, before a bright blur."""
    width, height = layers.size
    hue = hex_oklch(main_of(layers))[2]
    blur = Ground(
        (
            oklch_hex(0.74, 0.15, hue - 35),
            oklch_hex(0.82, 0.12, hue + 45),
            oklch_hex(0.6, 0.19, hue + 15),
            oklch_hex(0.68, 0.17, hue - 70),
        )
    )
    side = round(min(width, height) * 0.74)
    place = ((width - side) // 2, (height - side) // 2)
    shape = rounded_mask((side, side), 0.2)
    sheen = Image.linear_gradient("L").rotate(180).resize((side, side))
    opacity = 0.66 - 0.24 * amount
    pane = Image.new("RGBA", (side, side), "#ffffff")
    pane.putalpha(
        ImageChops.multiply(shape, sheen.point(lambda v: round(255 * opacity * (0.55 + v / 500))))
    )
    rim = ImageChops.subtract(shape, _shrunk(shape, max(2, side // 110)))
    edge = Image.new("RGBA", (side, side), "#ffffff")
    edge.putalpha(ImageChops.multiply(rim, sheen.point(lambda v: 70 + v * 150 // 255)))
    pane.alpha_composite(edge)
    subject = _fitted(layers, 0.55).subject
    scene = Image.new("RGBA", layers.size)
    scene.alpha_composite(_soft_shadow(shape, layers.size, place, "#1a1030", 0.28))
    scene.alpha_composite(pane, place)
    scene.alpha_composite(shadowed(Layers(subject, blur, found=True), 0.1).subject)
    return Layers(scene, blur, found=True)


def _relief(layers: Layers, amount: float, _: Random) -> Layers:
    """As if cut from something thick: lit from above on the left, shaded below, with a shadow."""
    layers = _cut_out(layers)
    return shadowed(layers.with_subject(_lit(layers.subject, amount)), 0.4 + 0.6 * amount)


def _comic(layers: Layers, amount: float, _: Random) -> Layers:
    """Strong colours, thick ink, and dots where a printer would have put them."""
    layers = _cut_out(layers)
    strong = toned(layers.subject, [("more saturated", 0.5 + 0.5 * amount), ("more contrast", 0.4)])
    grey = strong.convert("L")
    dots = _dots(layers.size, max(6, min(layers.size) // 64))
    shade = ImageChops.darker(dots, grey.point(lambda v: 255 if 60 < v < 190 else 0))
    shade = ImageChops.darker(shade, layers.alpha).point(lambda v: v * 42 // 100)
    ink = Image.new("RGBA", layers.size, "#14121a")
    ink.putalpha(shade)
    subject = Image.alpha_composite(strong, ink)
    picture = _at_work(layers.with_subject(strong))
    lines = _contours(picture, max(3, picture.width // 110)).resize(layers.size)
    ink.putalpha(lines)
    subject = Image.alpha_composite(subject, ink)
    hue = hex_oklch(main_of(layers))[2]
    ground = Ground.plain(oklch_hex(0.9, 0.13, hue + 150 if 60 < hue < 130 else 95))
    return Layers(subject, ground, found=True)


def _gradient(layers: Layers, amount: float, _: Random) -> Layers:
    """The subject's colours flow into their neighbours, from one corner to the other."""
    subject = layers.subject
    turn = 0.06 + 0.07 * amount
    first = toned(subject, [("other hues", 1 - turn), ("brighter", 0.45), ("more saturated", 0.4)])
    last = toned(subject, [("other hues", turn), ("darker", 0.3), ("more saturated", 0.5)])
    down = Image.linear_gradient("L").resize(layers.size)
    across = down.transpose(Image.Transpose.ROTATE_90).resize(layers.size)
    return layers.with_subject(Image.composite(last, first, Image.blend(down, across, 0.4)))


#: Metals from dark to light and back, as they mirror a sky and a floor.
_METALS: Final = {
    "gold": ("#6b430c", "#b07d1e", "#f3d675", "#fff7d6", "#d9a83a", "#8a5a12", "#e9c45c"),
    "silver": ("#4a525c", "#8d97a3", "#dfe5ec", "#ffffff", "#aab3be", "#5f6874", "#d3dae2"),
    "copper": ("#5a2a16", "#a4552f", "#eaa67c", "#ffe6d4", "#c8774c", "#753719", "#e09a70"),
}


def _metal(name: str) -> Style:
    ramp = srgb_to_oklab(hex_srgb(_METALS[name]))

    def style(layers: Layers, amount: float, _: Random) -> Layers:
        layers = _cut_out(layers)
        small = layers.subject.convert("L").resize(_work_size(layers.size), Image.Resampling.BOX)
        lightness = np.asarray(small, np.float32) / 255
        height, width = lightness.shape
        down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
        across = np.linspace(0, 0.35, width, dtype=np.float32)[None]
        # Each region mirrors another part of the sky.
        along = (1.1 * (down + across) + 0.75 * lightness) % 1.0
        steps = np.linspace(0, 1, len(ramp))
        table = np.stack(
            [np.interp(np.linspace(0, 1, 256), steps, ramp[:, c]) for c in range(3)], -1
        )
        colours = np.rint(np.clip(oklab_to_srgb(table), 0, 1) * 255).astype(np.uint8)
        metal = Image.fromarray(colours[(along * 255).astype(np.uint8)])
        metal = metal.filter(ImageFilter.GaussianBlur(1.2)).resize(layers.size).convert("RGBA")
        metal.putalpha(layers.alpha)
        wall = Ground(("#2b2d33", "#24262b", "#1b1c21", "#141519"))
        edged = _with_lines(layers, metal)
        return shadowed(Layers(_lit(edged, amount), wall, found=True), amount)

    return style


def _with_lines(layers: Layers, metal: Image.Image) -> Image.Image:
    """The seams between regions engraved, so that they can be told apart in one metal."""
    picture = _at_work(layers)
    seams = _contours(picture, max(2, picture.width // 220)).resize(layers.size)
    dark = Image.new("RGBA", layers.size, "#1d1405")
    dark.putalpha(ImageChops.darker(seams, layers.alpha).point(lambda v: v * 55 // 100))
    return Image.alpha_composite(metal, dark)


#: Every style, by the name that is recorded.
STYLES: Final[dict[str, Style]] = {
    "sketch": _sketch,
    "line art": _line_art,
    "blueprint": _blueprint,
    "neon": _neon,
    "glass": _glass,
    "relief": _relief,
    "comic": _comic,
    "gradient": _gradient,
    "gold": _metal("gold"),
    "silver": _metal("silver"),
    "copper": _metal("copper"),
}


# --- tools ---------------------------------------------------------------------------------------


def _work_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, _SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _at_work(layers: Layers) -> Image.Image:
    """The picture as RGB, on white where it is transparent, at the size at which lines are drawn."""
    ground = layers if layers.ground else layers.over(Ground.plain("#ffffff"))
    return ground.flat().convert("RGB").resize(_work_size(layers.size), Image.Resampling.BOX)


def _contours(picture: Image.Image, width: int) -> Image.Image:
    """A line of so many pixels wherever two colours meet."""
    first, second = width // 2, width - width // 2
    half = max(1, round(width * 0.36))
    lines = Image.new("L", picture.size)
    for (ax, ay), (bx, by) in (
        ((first, 0), (-second, 0)),
        ((0, first), (0, -second)),
        ((half, half), (-half, -half)),
        ((half, -half), (-half, half)),
    ):
        apart = ImageChops.difference(
            ImageChops.offset(picture, ax, ay), ImageChops.offset(picture, bx, by)
        )
        for band in apart.split():
            lines = ImageChops.lighter(lines, band)
    # What the offset brings round from the other side is no contour.
    edge = Image.new("L", picture.size)
    edge.paste(
        lines.crop((width, width, picture.width - width, picture.height - width)), (width,) * 2
    )
    strong = edge.point(lambda level: min(255, max(0, (level - 14) * 9)))
    return strong.filter(ImageFilter.GaussianBlur(0.7))


def _inked(layers: Layers, ink: Image.Image, colour: str, ground: Ground) -> Layers:
    """Only ink on a ground."""
    subject = Image.new("RGBA", layers.size, colour)
    subject.putalpha(ink.resize(layers.size, Image.Resampling.BILINEAR))
    return Layers(subject, ground, found=True)


def _as_light(glow: Image.Image) -> Image.Image:
    """Light as a picture that can lie on any ground: as opaque as it is bright."""
    pixels = np.asarray(glow, np.float32)
    alpha = pixels.max(axis=-1, keepdims=True)
    colour = pixels * (255 / np.maximum(alpha, 1))
    return Image.fromarray(np.concatenate([colour, alpha], axis=-1).astype(np.uint8))


def _bright(picture: Image.Image) -> Image.Image:
    """Every pixel as bright as its hue can be."""
    pixels = np.asarray(picture, np.float32)
    brightest = np.maximum(pixels.max(axis=-1, keepdims=True), 24)
    return Image.fromarray((pixels * (255 / brightest)).clip(0, 255).astype(np.uint8))


def _hatching(size: tuple[int, int], dx: int, dy: int, gap: int) -> Image.Image:
    """Parallel lines across the picture, ``gap`` pixels apart."""
    rows, columns = np.ogrid[: size[1], : size[0]]
    lines = (columns * dx + rows * dy) % gap < max(1.0, gap * 0.26)
    return Image.fromarray(np.where(lines, np.uint8(165), np.uint8(0)))


def _dots(size: tuple[int, int], gap: int) -> Image.Image:
    """A printer's screen: round dots in a turned grid."""
    cell = Image.new("L", (gap * 4, gap * 4))
    draw = ImageDraw.Draw(cell)
    radius = gap * 0.62
    for x, y in ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2)):
        draw.ellipse(
            (
                x * gap - radius * 2,
                y * gap - radius * 2,
                x * gap + radius * 2,
                y * gap + radius * 2,
            ),
            fill=255,
        )
    cell = cell.reduce(4) if gap >= 4 else cell
    tiled = Image.new("L", size)
    for y in range(0, size[1], cell.height):
        for x in range(0, size[0], cell.width):
            tiled.paste(cell, (x, y))
    return tiled


def _noise(size: tuple[int, int], chance: Random, low: float, high: float) -> Image.Image:
    """Grain between two levels, 0 to 1."""
    random = np.random.default_rng(chance.getrandbits(32))
    levels: NDArray[np.float64] = random.uniform(low * 255, high * 255, (size[1], size[0]))
    return Image.fromarray(levels.astype(np.uint8))


def _lit(subject: Image.Image, amount: float) -> Image.Image:
    """Highlights on edges that face up and left, shade on those that face away."""
    size = _work_size(subject.size)
    alpha = subject.getchannel("A").resize(size, Image.Resampling.BOX)
    grey = subject.convert("L").resize(size, Image.Resampling.BOX)
    height = Image.blend(alpha, ImageChops.darker(grey, alpha), 0.3)
    height = height.filter(ImageFilter.GaussianBlur(max(1.0, size[0] * 0.006)))
    step = max(1, round(size[0] * 0.005))
    up = ImageChops.offset(height, step, step)
    down = ImageChops.offset(height, -step, -step)
    lit = subject
    for slope, colour in (
        (ImageChops.subtract(down, up), "#ffffff"),
        (ImageChops.subtract(up, down), "#0a0a14"),
    ):
        strength = (0.7 + 0.9 * amount) * (1.0 if colour == "#ffffff" else 0.8)
        level = slope.point(lambda v, s=strength: min(225, round(v * s)))
        wash = Image.new("RGBA", subject.size, colour)
        wide = level.resize(subject.size, Image.Resampling.BILINEAR)
        wash.putalpha(ImageChops.darker(wide, subject.getchannel("A")))
        lit = Image.alpha_composite(lit, wash)
    return lit


def _cut_out(layers: Layers) -> Layers:
    """The layers themselves, or the whole picture as a plate where it has no ground."""
    if layers.found and layers.ground is not None:
        return layers
    if layers.found:
        return layers.over(Ground.plain(light_of(main_of(layers))))
    return in_frame(layers, 0.82)


def _fitted(layers: Layers, share: float) -> Layers:
    """The subject in the middle, so large that it takes this share of the picture."""
    if not layers.found:
        layers = _cut_out(layers)
    left, top, right, bottom = layers.box()
    factor = share * min(layers.size) / max(right - left, bottom - top)
    return placed(layers, factor, (0.5, 0.5))


def _shrunk(mask: Image.Image, pixels: int) -> Image.Image:
    size = (mask.width - 2 * pixels, mask.height - 2 * pixels)
    small = Image.new("L", mask.size)
    small.paste(mask.resize(size, Image.Resampling.BILINEAR), (pixels, pixels))
    return small


def _soft_shadow(
    shape: Image.Image, size: tuple[int, int], place: tuple[int, int], colour: str, opacity: float
) -> Image.Image:
    soft = Image.new("L", size)
    soft.paste(shape, (place[0], place[1] + size[1] // 40))
    small = soft.reduce(4).filter(ImageFilter.GaussianBlur(size[0] / 4 * 0.03))
    shadow = Image.new("RGBA", size, colour)
    shadow.putalpha(
        small.resize(size, Image.Resampling.BILINEAR).point(lambda v: round(v * opacity))
    )
    return shadow
