"""The rows of JigsawStack."""

from __future__ import annotations

__all__ = ["JIGSAWSTACK_IMAGE"]

from functools import partial
from typing import Final

from tests.executors.providers.cases import (
    AGAIN,
    CANCELLED,
    DONE,
    DONE_LATER,
    GIVEN_UP,
    HASTY,
    REJECTED,
    Case,
    limit,
    limited,
)
from tests.executors.providers.lab.faults import (
    BrokenImage,
    Cut,
    Endless,
    Expired,
    Html,
    Mislabelled,
    Silence,
    Slow,
    Status,
)

_image = partial(Case, provider="jigsawstack", does="image")

JIGSAWSTACK_IMAGE: Final = (
    _image(fault="nothing", script=(None,), first=DONE),
    _image(fault="a slow answer", script=(Slow(0.3),), first=DONE),
    _image(fault="silence", script=(Silence(),), timeouts=HASTY, first=AGAIN, end=DONE_LATER),
    _image(
        fault="silence in the middle of the picture",
        script=(Silence(after=1),),
        timeouts=HASTY,
        first=AGAIN,
        end=DONE_LATER,
    ),
    _image(fault="cut before the answer", script=(Cut(),), asked=2, first=DONE),
    _image(fault="cut in the middle", script=(Cut(after=1),), first=AGAIN, end=DONE_LATER),
    _image(fault="500, then success", script=(Status(500),), asked=2, first=DONE),
    _image(
        fault="500, every time",
        script=(Status(500),),
        forever=True,
        asked=3,
        first=AGAIN,
        end=GIVEN_UP,
    ),
    _image(
        fault="429, `x-jigsaw-rate-limit-reset` in 40 s",
        script=(
            limit(
                date="Tue, 24 Nov 2026 12:00:00 GMT",
                x_jigsaw_rate_limit_remaining="0",
                x_jigsaw_rate_limit_reset="1795521640000",
            ),
        ),
        first=limited(40),
        end=DONE,
    ),
    _image(fault="401, a wrong key", script=(Status(401),), first=REJECTED),
    _image(fault="400, a wrong request", script=(Status(400),), first=REJECTED),
    _image(fault="HTML under 200", script=(Html(),), first=AGAIN, end=DONE_LATER),
    _image(
        fault="a picture without a name for its kind",
        script=(Mislabelled("application/octet-stream"),),
        first=DONE,
    ),
    _image(fault="an answer without an end", script=(Endless(),), first=AGAIN, end=DONE_LATER),
    _image(fault="an expired URL", script=(Expired(),), first=AGAIN, end=DONE_LATER),
    _image(fault="half a picture", script=(BrokenImage("truncated"),), first=AGAIN, end=DONE_LATER),
    _image(
        fault="a decompression bomb, every time",
        script=(BrokenImage("bomb"),),
        forever=True,
        first=AGAIN,
        end=GIVEN_UP,
    ),
    _image(
        fault="the user cancels while it is drawn",
        script=(Silence(),),
        cancel=True,
        first=CANCELLED,
    ),
)
