"""What refining does to pixels: seen, measured, the same every time, and never nothing."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from executors.errors import ProviderRejected
from executors.imaging.codec import decode, encode_png
from executors.imaging.colour import delta_e_2000, hex_srgb, oklab_to_oklch, srgb_to_oklab
from executors.providers.base import GeneratedImage, ImageModel
from executors.providers.offline.images import LocalImageModel
from executors.providers.offline.marks.draw import draw_mark
from executors.providers.offline.refining.refine import Refined, refine_picture

SIDE = 192
#: One prompt for every operation there is.
PROMPTS = [
    *("warmer", "cooler", "brighter", "darker", "more saturated", "muted", "monochrome", "sepia"),
    *("pastel", "more contrast", "less contrast", "invert", "dark mode", "other colours"),
    *("in the colours of autumn", "change the red to blue", "gold accents", "duotone", "minimal"),
    *("flat", "sketch", "line art", "blueprint", "neon", "glass", "3d", "comic", "gradient"),
    *(
        "gold metal",
        "chrome",
        "rose gold",
        "vintage",
        "watercolour",
        "pixel art",
        "blur",
        "sharper",
    ),
    *("rounded corners", "circle", "rotate", "tilt", "mirror", "smaller", "larger", "outline"),
    *("sticker", "shadow", "white background", "dark background", "a gradient background"),
    *("transparent background", 'text "North & Co"', 'text "Top" above', "frobnicate the widget"),
]


@functools.cache
def logo(subject: str = "fox trail running", theme: str = "rust and pine") -> Image.Image:
    """A mark on its ground."""
    return draw_mark(subject, theme, size=SIDE, seed=4)


def scene() -> Image.Image:
    """A photograph, as far as arithmetic has them: a gradient with grain, and a pale sun in it."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    sky = np.stack([80 + 120 * y, 120 + 60 * x, 200 - 90 * y], axis=-1)
    sky += np.random.default_rng(1).normal(0, 2, sky.shape)
    picture = Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8))
    ImageDraw.Draw(picture).ellipse((60, 60, 130, 130), fill="#ffe9a8")
    return picture


def cut_out() -> Image.Image:
    """A disc with a hole on nothing."""
    picture = Image.new("RGBA", (SIDE, SIDE))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((40, 40, 150, 150), fill="#d7263d")
    draw.ellipse((80, 80, 110, 110), fill=(0, 0, 0, 0))
    return picture


def noise() -> Image.Image:
    """Nothing to hold on to."""
    random = np.random.default_rng(2)
    return Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "light logo": lambda: logo("mountain lodge", "alpine lake and larch"),
    "dark logo": logo,
    "scene": scene,
    "cut out": cut_out,
    "noise": noise,
    "white": lambda: Image.new("RGB", (SIDE, SIDE), "#ffffff"),
    "black": lambda: Image.new("RGB", (SIDE, SIDE), "#000000"),
    "transparent": lambda: Image.new("RGBA", (SIDE, SIDE)),
    "wide": lambda: logo().resize((200, 60)),
    "tall": lambda: cut_out().resize((40, 160)),
    "tiny": lambda: logo().resize((16, 16)),
}


#: On two of these everything is tried, on the others a part of it.
USUAL = ("light logo", "dark logo", "scene", "cut out")


def refined(
    image: Image.Image, prompt: str, strength: float | None = None, seed: int = 1
) -> Refined:
    """A refinement."""
    return refine_picture(image, prompt, strength=strength, seed=seed)


def rgba(image: Image.Image) -> NDArray[np.int16]:
    """Its pixels."""
    return np.asarray(image.convert("RGBA"), np.int16)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        *((prompt, USUAL[at % 2]) for at, prompt in enumerate(PROMPTS)),  # flat, light and dark
        *((prompt, USUAL[2 + at % 2]) for at, prompt in enumerate(PROMPTS)),  # grain, and holes
        *product(PROMPTS[::12], PICTURES),
    ],
)
def test_every_operation_on_every_picture(prompt: str, name: str) -> None:
    """It can be seen, it is said, the size stays: whatever the picture is."""
    image = PICTURES[name]()
    image = image.reduce(2) if min(image.size) >= 100 else image
    result = refined(image, prompt)
    assert result.image.size == image.size
    assert result.image.mode in ("RGB", "RGBA")
    assert result.operations
    assert all(operation and len(operation) < 200 for operation in result.operations)
    before, after = rgba(image), rgba(result.image)
    # What is transparent before and after has no colour that anybody could see.
    before[before[..., 3] == 0] = after[after[..., 3] == 0] = 0
    assert np.abs(before - after).max() > 8


@pytest.mark.parametrize("prompt", ["sketch", "vintage", "watercolour", "other colours", "grain"])
def test_the_same_seed_does_the_same(prompt: str) -> None:
    """And another seed something else, where chance has a part in it."""
    first, again = (rgba(refined(logo(), prompt, seed=7).image) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, rgba(refined(logo(), prompt, seed=8).image))


def lch(image: Image.Image) -> NDArray[np.float32]:
    """Mean lightness, chroma, and b of OKLab, which is blue below and yellow above."""
    lab = srgb_to_oklab(np.asarray(image.convert("RGB"), np.float32) / 255)
    chroma = oklab_to_oklch(lab)[..., 1]
    return np.array([lab[..., 0].mean(), chroma.mean(), lab[..., 2].mean(), lab[..., 0].std()])


@pytest.mark.parametrize("name", ["dark logo", "scene"])
@pytest.mark.parametrize(
    ("prompt", "what", "direction"),
    [
        ("warmer", 2, 1),
        ("cooler", 2, -1),
        ("brighter", 0, 1),
        ("darker", 0, -1),
        ("more saturated", 1, 1),
        ("muted", 1, -1),
        ("black and white", 1, -1),
        ("more contrast", 3, 1),
        ("less contrast", 3, -1),
        ("pastel", 0, 1),
    ],
)
def test_tones_go_where_they_say(name: str, prompt: str, what: int, direction: int) -> None:
    """And further with more strength."""
    image = PICTURES[name]()
    measured = [float(lch(image)[what])]
    measured += [float(lch(refined(image, prompt, s).image)[what]) for s in (0.0, 0.5, 1.0)]
    steps = np.diff(measured) * direction
    assert steps[0] > 0
    assert (steps >= -1e-3).all(), measured


def test_degrees_are_heard() -> None:
    """A little is less than much, at the same strength."""
    plain = float(lch(logo())[2])
    little, some, much = (
        float(lch(refined(logo(), f"{how} warmer").image)[2]) - plain
        for how in ("slightly", "", "much")
    )
    assert 0 < little < some < much


def test_steps_are_done_together() -> None:
    """Everything that is asked for is there, whatever the order of the words."""
    prompt = 'rounded corners, shadow, white background, text "Hello", warmer, sketch'
    done = refined(logo(), prompt).operations
    assert [operation.split()[0] for operation in done] == [
        "warmer",
        "sketch",
        "background",
        "shadow",
        "text",
        "rounded",
    ]


# --- colours -------------------------------------------------------------------------------------


def flag() -> Image.Image:
    """Three flat regions, smooth at their edges."""
    large = Image.new("RGB", (SIDE * 4, SIDE * 4), "#f4f1ea")
    draw = ImageDraw.Draw(large)
    draw.ellipse((100, 100, 440, 640), fill="#d7263d")
    draw.ellipse((380, 200, 690, 600), fill="#2456d6")
    return large.reduce(4)


def apart(image: Image.Image, place: tuple[int, int], colour: str) -> float:
    """ΔE2000 between a pixel and a colour."""
    pixel = np.asarray(image.convert("RGB").getpixel(place), np.float32) / 255
    return float(delta_e_2000(pixel, hex_srgb([colour])[0]))


def test_one_colour_becomes_another() -> None:
    """Exactly, and the others stay; between them no seam appears."""
    result = refined(flag(), "change the red to #2a9d4a").image
    assert apart(result, (60, 90), "#2a9d4a") < 1
    assert apart(result, (150, 100), "#2456d6") < 1
    assert apart(result, (5, 5), "#f4f1ea") < 1
    red = np.asarray(result, np.int16)
    assert not ((red[..., 0] > 150) & (red[..., 1] < 100)).any(), "some of the red is left"


def test_a_colour_that_is_not_there_is_said() -> None:
    """The new one becomes an accent instead of nothing."""
    (done,) = refined(flag(), "change the green to purple").operations
    assert "nothing like" in done


def test_colours_of_a_palette_are_exact() -> None:
    """Whoever names a colour finds it in the picture."""
    result = refined(flag(), "make it #0b6e99, #f4a261 and #fff8ee").image
    colours = {colour for _, colour in result.getcolors(1 << 20) or []}
    assert {(0x0B, 0x6E, 0x99), (0xF4, 0xA2, 0x61), (0xFF, 0xF8, 0xEE)} <= colours


@pytest.mark.parametrize("prompt", ["warmer", "pastel", "in the colours of autumn", "gold accents"])
def test_colours_leave_alpha_alone(prompt: str) -> None:
    """What was cut out stays cut out, to the last level."""
    image = cut_out()
    assert np.array_equal(rgba(refined(image, prompt).image)[..., 3], rgba(image)[..., 3])


# --- grounds -------------------------------------------------------------------------------------


def disc(ground: str = "#f4c430") -> Image.Image:
    """A navy ring on a ground, with the ground's colour inside of it."""
    large = Image.new("RGB", (SIDE * 4, SIDE * 4), ground)
    draw = ImageDraw.Draw(large)
    draw.ellipse((160, 160, 608, 608), fill="#1f3566")
    draw.ellipse((300, 300, 468, 468), fill=ground)
    return large.reduce(4)


def test_a_new_ground_leaves_no_fringe_of_the_old_one() -> None:
    """Edge pixels are mixes of the subject and the new ground, and of nothing else."""
    result = np.asarray(refined(disc(), "white background").image, np.float32)[..., :3]
    assert (result[0, 0] == 255).all()
    navy, white = np.array([31, 53, 102], np.float32), np.full(3, 255, np.float32)
    outside = result.copy()
    outside[70:122, 70:122] = 255  # the hole, which keeps the old colour
    way = white - navy
    t = np.clip((outside - navy) @ way / (way @ way), 0, 1)
    distance = np.linalg.norm(outside - navy - t[..., None] * way, axis=-1)
    assert distance.max() < 8


def test_what_is_enclosed_belongs_to_the_subject() -> None:
    """The hole of the ring keeps its colour: it was reached from nowhere."""
    result = rgba(refined(disc(), "remove the background").image)
    assert result[0, 0, 3] == 0
    assert result[96, 96].tolist() == [0xF4, 0xC4, 0x30, 255]
    assert result[96, 50].tolist() == [0x1F, 0x35, 0x66, 255]
    levels = np.unique(result[..., 3])
    assert len(levels) > 10, "the edge is smooth"


def test_a_subject_is_not_lost_on_its_new_ground() -> None:
    """Navy on navy is lifted until it can be seen."""
    result = refined(disc(), "background #1f3566").image
    assert apart(result, (5, 5), "#1f3566") < 1
    assert apart(result, (50, 96), "#1f3566") > 10


def test_a_picture_without_a_ground_becomes_a_plate() -> None:
    """And that is said."""
    result = refined(noise(), "transparent background")
    assert "no background was found" in result.operations[0]
    assert rgba(result.image)[0, 0, 3] == 0
    assert rgba(result.image)[96, 96, 3] == 255


def test_a_gradient_is_a_ground() -> None:
    """A sky is flooded like a wall."""
    result = refined(scene(), "white background").image
    assert np.asarray(result)[2, 2].tolist() == [255, 255, 255]
    assert apart(result, (95, 95), "#ffffff") > 3


# --- shape, place, letters -----------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["circle", "rounded corners"])
def test_cuts(prompt: str) -> None:
    """Corners are transparent, the middles of the sides are not, and the line is smooth."""
    alpha = rgba(refined(logo(), prompt).image)[..., 3]
    assert {int(alpha[y, x]) for y in (0, -1) for x in (0, -1)} == {0}
    assert alpha[1, 96] == alpha[96, 1] == alpha[96, 96] == 255
    assert len(np.unique(alpha)) > 8


def test_turning_by_a_quarter() -> None:
    """To the right, pixel for pixel but for the last shade of an edge."""
    turned = rgba(refined(flag(), "rotate by 90 degrees").image)
    expected = rgba(flag().transpose(Image.Transpose.ROTATE_270))
    assert np.abs(turned - expected).max() < 12


def test_mirrored() -> None:
    """Left is right, and above is below when that is said."""
    image = flag()
    across = refined(image, "mirror it").image
    assert apart(across, (SIDE - 1 - 60, 90), "#d7263d") < 2
    down = refined(image, "flip it upside down").image
    assert apart(down, (60, SIDE - 1 - 90), "#d7263d") < 2


@pytest.mark.parametrize(
    ("where", "rows"), [("at the bottom", slice(150, 192)), ("at the top", slice(0, 40))]
)
def test_letters_stand_where_they_are_asked_for(where: str, rows: slice) -> None:
    """In the subject's colour, with the subject out of their way."""
    result = refined(disc(), f'add the text "NORTH" {where}')
    ground = np.array([0xF4, 0xC4, 0x30])
    inked = np.abs(np.asarray(result.image, np.int16)[rows] - ground).max(axis=-1) > 60
    assert inked.any(axis=0).sum() > 80, "letters across"
    navy = np.abs(np.asarray(result.image, np.int16)[rows] - [0x1F, 0x35, 0x66]).max(axis=-1) < 12
    assert navy.sum() > 200


@pytest.mark.parametrize(
    "text", ["Grüße", "Café Ñandú", "Çà et là", "Łódź", "ß", "50% & more!", "x" * 200]
)
def test_letters_with_accents(text: str) -> None:
    """Written, though the font has none."""
    assert refined(disc(), f'add the text "{text}"').operations[0].startswith("text")


def test_an_accent_is_ink_above_its_letter() -> None:
    """Not a letter without it."""
    plain, accented = (refined(disc(), f'add the text "{text}"').image for text in ("EEE", "ÉÉÉ"))
    assert not np.array_equal(rgba(plain), rgba(accented))


# --- the provider --------------------------------------------------------------------------------


async def ask(image: Image.Image, prompt: str, **more: int) -> GeneratedImage:
    """The local model's answer."""
    model: ImageModel = LocalImageModel()
    size = {"width": image.width, "height": image.height, **more}
    return await model.refine(original=encode_png(image).content, prompt=prompt, **size)  # type: ignore[arg-type]


async def test_the_local_model_refines() -> None:
    """A PNG of the size that was asked for, with what was done to it."""
    made = await ask(logo(), "warmer, rounded corners")
    assert (made.provider, made.model) == ("local", "refining-1")
    assert made.operations == ("warmer 70 %", "rounded corners")
    assert decode(made.content).size == (SIDE, SIDE)
    assert decode((await ask(logo(), "warmer", width=100, height=50)).content).size == (100, 50)


async def test_the_seed_follows_from_the_words() -> None:
    """Whoever gives none gets the same picture for the same prompt."""
    first, again = [await ask(logo(), prompt) for prompt in ("a sketch", " A  Sketch")]
    assert (first.seed, first.content) == (again.seed, again.content)


@pytest.mark.parametrize("text", ["Привет", "日本", "🦊"])
async def test_letters_that_the_font_lacks_are_refused(text: str) -> None:
    """In a sentence: a picture without the words would be of no use."""
    with pytest.raises(ProviderRejected, match="Latin letters"):
        await ask(logo(), f'add the text "{text}"')


@pytest.mark.parametrize("side", [15, 4097])
async def test_sizes_have_limits(side: int) -> None:
    """Those of the pictures that it draws."""
    with pytest.raises(ProviderRejected, match="16 to 4096"):
        await ask(logo(), "warmer", width=side)


async def test_the_loop_goes_on_meanwhile() -> None:
    """Work on pixels is done in a thread."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await ask(logo().resize((1024, 1024)), "neon")
    ticking.cancel()
    assert ticks > 5
