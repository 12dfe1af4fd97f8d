"""A picture of what an augmentation does."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convlet.utils.files import write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST_TILE, MOST_TILE = 64, 256  # pixels of a tile's longer side
GAP, FIRST_GAP = 4, 14  # between tiles, and behind the originals
TITLE_WIDTH, LINE = 110, 14
PAPER, INK = (255, 255, 255), (0, 0, 0)


def write_contact_sheet(
    images: NDArray[Any],
    changed: Callable[[int], NDArray[Any]],
    path: str | PathLike[str],
    *,
    columns: int,
    value_range: tuple[float, float],
    caption: str,
    titles: Sequence[str] | None,
) -> None:
    """See Augmentation.contact_sheet. changed(column): the images as that column shows them."""
    if images.ndim != 4 or 0 in images.shape or images.shape[3] not in (1, 3):
        raise ValueError(
            f"contact_sheet: expected images (N,H,W,1 or 3), at least one, got {images.shape}"
        )
    if columns < 1:
        raise ValueError(f"contact_sheet: columns: expected at least 1, got {columns}")
    if titles is not None and len(titles) != len(images):
        raise ValueError(
            f"contact_sheet: titles: expected one for each of {len(images)} images, "
            f"got {len(titles)}"
        )
    low, high = value_range
    grids = [images, *(changed(column) for column in range(columns))]
    rows = [[_tile(grid[i], low, high) for grid in grids] for i in range(len(images))]
    data = io.BytesIO()
    _sheet(rows, titles, caption).save(data, "PNG")
    write_whole(Path(path), data.getvalue())


def _tile(image: NDArray[Any], low: float, high: float) -> Image:
    """A pixel image, enlarged by a whole factor or shrunk to a size that can be looked at."""
    from PIL import Image

    values = (image.astype(np.float32) - low) * (255 / (high - low))
    pixels = np.clip(np.nan_to_num(values) + 0.5, 0, 255).astype(np.uint8)
    tile = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    longer = max(tile.size)
    if longer < LEAST_TILE:
        factor = -(-LEAST_TILE // longer)
        tile = tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)
    else:
        tile.thumbnail((MOST_TILE, MOST_TILE))
    return tile


def _sheet(rows: list[list[Image]], titles: Sequence[str] | None, caption: str) -> Image:
    from PIL import Image, ImageDraw

    first = rows[0][0]
    tile_width = max(tile.width for tile in rows[0])
    tile_height = max(tile.height for tile in rows[0])
    left = GAP if titles is None else TITLE_WIDTH
    top = 2 * LINE + GAP
    width = left + FIRST_GAP + len(rows[0]) * (tile_width + GAP)
    sheet = Image.new("RGB", (width, top + len(rows) * (tile_height + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), _ascii(caption), fill=INK)
    draw.text((left, GAP + LINE), "as it is", fill=INK)
    draw.text((left + first.width + FIRST_GAP, GAP + LINE), "in training", fill=INK)
    for line, tiles in enumerate(rows):
        y = top + line * (tile_height + GAP)
        if titles is not None:
            draw.text((GAP, y + tile_height // 2 - LINE // 2), _ascii(titles[line])[:17], fill=INK)
        for column, tile in enumerate(tiles):
            x = left + column * (tile_width + GAP) + (FIRST_GAP if column else 0)
            sheet.paste(tile.convert("RGB"), (x, y))
    return sheet


def _ascii(text: str) -> str:
    """What Pillow's own font can draw."""
    return str(text).encode("ascii", "replace").decode()
