"""The pictures of a job on a terminal: drawn with their palettes, or by name where nothing can be drawn."""

from __future__ import annotations

__all__ = ["Gallery", "open_stored"]

import base64
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from uvian_worker.events.job_view import Picture, WatchedJob

if TYPE_CHECKING:
    from PIL import Image

#: Columns of a picture on the terminal; it has half as many lines.
_LARGE, _MIDDLE, _SMALL = 28, 14, 12
_WIDE = 96  # columns from which the base image stands beside its variations


class Gallery:
    """The base image and its palette variations, as many as there are by now."""

    def __init__(
        self,
        console: Console,
        job: WatchedJob,
        *,
        open_picture: Callable[[Picture], Image.Image] | None = None,
        original: Callable[[], Image.Image] | None = None,
    ) -> None:
        """``open_picture`` and ``original`` are those of a ``JobView``."""
        self._console = console
        self._job = job
        self._open = open_picture or _open_preview
        self._original = original
        self._bitmaps: dict[tuple[str, int], Text] = {}

    def drawn(self) -> RenderableType:
        """All pictures, the base image first and largest."""
        pictures = [picture for _, picture in sorted(self._job.pictures.items())]
        if not self._can_draw:
            return self.names(len(pictures))
        if self._original is not None and pictures[0].kind == "base":
            return self._compared(self._original, pictures)
        if not self._is_wide or pictures[0].kind != "base":
            return self._tiles(pictures)
        beside = Table.grid(padding=(0, 3, 0, 0))
        base = Group(self._bitmap(pictures[0], _LARGE), Text("Base image", style="bold"))
        beside.add_row(base, self._tiles(pictures[1:]))
        return beside

    @property
    def height(self) -> int:
        """The lines that ``drawn`` takes."""
        count = len(self._job.pictures)
        if not self._can_draw:
            return count
        rows = -(-(count - self._is_wide) // self._columns)
        return max(rows * (self._tile_side // 2 + 3), (_LARGE // 2 + 1) * self._is_wide)

    def names(self, room: int) -> RenderableType:
        """One line per variation, the latest ones when there is little room."""
        pictures = [p for _, p in sorted(self._job.pictures.items()) if p.palette]
        return Group(*(Text.assemble("  ", self.named(p)) for p in pictures[-room:]))

    def named(self, picture: Picture) -> Text:
        """One picture in one line: its number, palette and name."""
        number = Text(f"{picture.place:02d}  ", style="dim")
        if self._can_draw:
            return Text.assemble(number, _swatches(picture.palette, 20), f"  {picture.name}")
        return Text.assemble(number, f"{picture.name}  ", (" ".join(picture.palette), "dim"))

    def _compared(
        self, original: Callable[[], Image.Image], pictures: list[Picture]
    ) -> RenderableType:
        """The original, and the refined image beside it where there is room."""
        from uvian_worker.cli.terminal.pixels import draw

        before = Group(draw(original(), _LARGE), Text("Original", style="bold"))
        after = Group(self._bitmap(pictures[0], _LARGE), Text("Refined", style="bold"))
        pair = Table.grid(padding=(0, 3, 0, 0))
        if self._console.width >= 2 * _LARGE + 3:
            pair.add_row(before, after)
        else:
            pair.add_row(before)
            pair.add_row(after)
        if len(pictures) == 1:
            return pair
        return Group(pair, Text(), self._tiles(pictures[1:]))

    def _tiles(self, pictures: list[Picture]) -> Table:
        grid = Table.grid(padding=(0, 2, 0, 0))
        columns = self._columns
        for at in range(0, len(pictures), columns):
            if at:
                grid.add_row()
            grid.add_row(*(self._tile(picture) for picture in pictures[at : at + columns]))
        return grid

    def _tile(self, picture: Picture) -> Group:
        side = self._tile_side
        name = Text(picture.name or "Base image", no_wrap=True)
        name.truncate(side, overflow="ellipsis")
        return Group(self._bitmap(picture, side), _swatches(picture.palette, side), name)

    @property
    def _is_wide(self) -> bool:
        """Whether the base image stands beside its variations."""
        return self._console.width >= _WIDE

    @property
    def _tile_side(self) -> int:
        return _MIDDLE if self._is_wide else _SMALL

    @property
    def _columns(self) -> int:
        room = self._console.width - (_LARGE + 3 if self._is_wide else 0) + 2
        return max(room // (self._tile_side + 2), 1)

    @property
    def _can_draw(self) -> bool:
        return self._console.color_system in {"truecolor", "256"} and not self._console.no_color

    def _bitmap(self, picture: Picture, side: int) -> Text:
        key = (picture.path, side)
        if key not in self._bitmaps:
            from uvian_worker.cli.terminal.pixels import draw

            self._bitmaps[key] = draw(self._open(picture), side)
        return self._bitmaps[key]


def _swatches(palette: tuple[str, ...], width: int) -> Text:
    """The colours side by side, ``width`` cells in all."""
    text = Text(no_wrap=True)
    for at, colour in enumerate(palette):
        cells = width * (at + 1) // len(palette) - width * at // len(palette)
        text.append(" " * cells, Style(bgcolor=colour))
    return text


def open_stored(folder: Path, picture: Picture) -> Image.Image:
    """The picture itself where the image store is a folder of this machine, else its preview."""
    from executors.imaging.codec import UnsafeImageError, decode
    from repositories.images import is_image_path

    try:
        if is_image_path(picture.path):
            return decode((folder / picture.path).read_bytes()).convert("RGB")
    except (OSError, UnsafeImageError):
        pass  # it is stored elsewhere, or is no picture
    return _open_preview(picture)


def _open_preview(picture: Picture) -> Image.Image:
    """The tiny picture that came with the event; a blank one when it cannot be read."""
    from PIL import Image

    from executors.imaging.codec import decode

    try:
        content = base64.b64decode(picture.preview.partition(",")[2])
        return decode(content).convert("RGB")
    except ValueError:  # no base64, or an UnsafeImageError
        return Image.new("RGB", (1, 1))
