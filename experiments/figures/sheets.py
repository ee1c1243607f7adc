"""Figures of what the centres hold, for a printed page: photos, outlines, reconstructions, cells of each class.

Pictures are placed by hand on one pair of axes whose unit is the inch, with y downwards: a sheet of 18 classes has
hundreds of them, and as many axes would take minutes to lay out.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from experiments.figures.style import GREY, INK, PALETTE, name_rows, style_axes, tint

PAGE_WIDTH = 7.0  # inches of text on A4 or letter paper, as are all lengths here
PAGE_HEIGHT = 8.9  # leaves room for the caption
TEXT_SIZE = 7.5  # points
LINE_HEIGHT = 1.2 * TEXT_SIZE / 72
MAX_TILE, MIN_TILE = 1.1, 0.3
MAX_PICTURE = 3.4
MAX_LABEL = 1.15  # wider labels are broken into lines
GAP = 0.04
BLOCK_GAP = 0.25
# Told apart without colour; one for each of the palette's colours.
HATCHES = ("", "//////", "......", "xxxxxx", "\\\\\\\\\\\\", "++++++", "oooo", "------")
LEAST = 0.75  # where bars begin on the logarithmic axis, so that a single cell has a bar and none has not

Photos = Sequence[np.ndarray]


def draw_photo_sheet(rows: Sequence[tuple[str, Photos]], captions: Sequence[str] = ()) -> Figure:
    """Draw rows of photos, each row's name at its left (thesis Figures 2.6 and 3.1 to 3.3).

    Many short rows are set side by side in two or three blocks, read downwards, where that makes the photos larger.
    The figure is as wide as the page at most, and no higher than it unless photos or names would become unreadable.

    Args:
        rows: name and photos of each row, at least one photo in all: uint8 arrays of shape (height, width, 3), of any
            sizes. A row without photos says so.
        captions: name of each column, written above the first row.
    """
    return _draw_rows(rows, captions, max_blocks=3)


def draw_reconstruction_grid(originals: np.ndarray, reconstructions: Mapping[str, np.ndarray]) -> Figure:
    """Draw crops of cells and, in a row for each bottleneck, what came back (thesis Figures 3.6 to 3.13).

    Args:
        originals: float array of shape (k, side, side, 3), in [0, 1].
        reconstructions: by the row's name, as "BN 5", arrays of the same shape and range.
    """
    images = {"Original": originals, **reconstructions}
    rows = [(name, np.round(255 * np.clip(each, 0, 1)).astype(np.uint8)) for name, each in images.items()]
    return _draw_rows(rows, first_apart=True)


def draw_segmentations(pictures: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """Draw pictures large, four in a row, each with its name below (thesis Figure 3.5).

    Args:
        pictures: name and picture, uint8 of shape (height, width, 3), with outlines drawn already, as by
            `mrcnn.overlays.draw_detections`.
    """
    columns = min(4, len(pictures))
    width = min(MAX_PICTURE, (PAGE_WIDTH + GAP) / columns - GAP)
    names = [wrap_text(name, width - 2 * GAP) for name, _ in pictures]
    rows = [slice(start, start + columns) for start in range(0, len(pictures), columns)]
    # No picture is higher than twice its width, or one thin strip would take the page.
    heights = [width * min(2.0, max(p.shape[0] / p.shape[1] for _, p in pictures[row])) for row in rows]
    tops = np.cumsum([0.0, *(height + _height(names[row]) + 0.12 for height, row in zip(heights, rows, strict=True))])
    figure, axes = _page(columns * (width + GAP) - GAP, tops[-1])
    for i, (name, (_, picture)) in enumerate(zip(names, pictures, strict=True)):
        x, y, height = (i % columns) * (width + GAP), tops[i // columns], heights[i // columns]
        _place(axes, picture, x, y, width, height)
        _write(axes, x + width / 2, y + height + 0.03, name, ha="center", va="top")
    return figure


def draw_class_distribution(counts: Mapping[str, Mapping[str, int]], classes: Sequence[str]) -> Figure:
    """Draw how many cells of each class each centre holds, on a logarithmic axis (thesis Figure 3.4).

    Args:
        counts: by centre, up to `len(HATCHES)` of them, the cells of each class; a class that is not there has none.
        classes: in their order from above.
    """
    thickness = 0.14 if len(counts) < 4 else 0.105  # inches of a bar
    step = len(counts) * thickness + 0.1  # and of a class
    figure = Figure(figsize=(PAGE_WIDTH, 0.75 + len(classes) * step), layout="constrained")
    axes = figure.subplots()
    style_axes(axes, "x", TEXT_SIZE)
    for i, (centre, of_class) in enumerate(counts.items()):
        values = np.array([of_class.get(name, 0) for name in classes], int)
        y = np.arange(len(classes)) + (i - (len(counts) - 1) / 2) * thickness / step
        color = tint(PALETTE[i], 0.55) if HATCHES[i] else PALETTE[i]
        look = {"facecolor": color, "edgecolor": PALETTE[i], "hatch": HATCHES[i], "linewidth": 0.6}
        widths, label = np.maximum(values, LEAST) - LEAST, f"{centre} ({values.sum():,} cells)"
        bars = axes.barh(y, widths, thickness / step, left=LEAST, label=label, **look)
        axes.bar_label(bars, [f"{value:,}" for value in values], padding=2, size=6, color=INK)
    axes.set_xscale("log")
    axes.set_xlim(LEAST, 2.2 * max(1, max(max(of_class.values(), default=0) for of_class in counts.values())))
    axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else ""))
    axes.xaxis.set_minor_locator(NullLocator())
    name_rows(axes, classes)
    axes.set_xlabel("cells (logarithmic)", fontsize=TEXT_SIZE)
    figure.legend(loc="outside upper left", ncols=3, fontsize=TEXT_SIZE, frameon=False)
    return figure


def wrap_text(text: str, width: float, size: float = TEXT_SIZE) -> str:
    """Break text of `size` points at spaces into lines of at most `width` inches, as far as its words allow."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        lines.append("")
        for word in paragraph.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and text_width(longer, size) > width:
                lines.append(word)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def text_width(text: str, size: float = TEXT_SIZE) -> float:
    """Width in inches of the longest line of text of `size` points."""
    font = FontProperties(size=size)
    lines = [line.replace("$", "S") for line in text.split("\n") if line.strip()]
    return max((TextPath((0, 0), line, prop=font).get_extents().x1 / 72 for line in lines), default=0.0)


def _draw_rows(
    rows: Sequence[tuple[str, Photos]], captions: Sequence[str] = (), *, max_blocks: int = 1, first_apart: bool = False
) -> Figure:
    """Lay rows out in as many blocks, of those allowed, as make the photos largest."""
    columns = max(len(photos) for _, photos in rows)
    names = [wrap_text(name.replace("_", " "), MAX_LABEL) for name, _ in rows]
    label = max(text_width(name) for name in names) + 0.1
    row_height = _height(names)
    apart = 2 * GAP if first_apart else 0.0

    def tile_of(count: int) -> float:
        width = (PAGE_WIDTH - (count - 1) * BLOCK_GAP) / count - label
        height = PAGE_HEIGHT - apart - (0.4 if captions else 0.0)
        return min(MAX_TILE, width / columns - GAP, height / -(-len(rows) // count) - GAP)

    count = max(range(1, min(max_blocks, len(rows)) + 1), key=tile_of)  # the fewest of equals
    tile = max(MIN_TILE, tile_of(count))
    heads = [wrap_text(caption, tile - GAP) for caption in captions]
    head = _height(heads) + GAP if heads else 0.0
    per_block = -(-len(rows) // count)
    step_x, step_y = tile + GAP, max(tile, row_height) + GAP
    block_width = label + columns * step_x - GAP
    width = count * block_width + (count - 1) * BLOCK_GAP
    figure, axes = _page(width, head + apart + per_block * step_y)
    for block in range(-(-len(rows) // per_block)):
        left = block * (block_width + BLOCK_GAP)
        for i, caption in enumerate(heads):
            _write(axes, left + label + i * step_x + tile / 2, head - 0.03, caption, ha="center", va="bottom")
        for i in range(block * per_block, min((block + 1) * per_block, len(rows))):
            middle = head + (i - block * per_block) * step_y + (apart if i else 0.0) + (step_y - GAP) / 2
            _write(axes, left, middle, names[i], va="center")
            for k, photo in enumerate(rows[i][1]):
                _place(axes, photo, left + label + k * step_x, middle - tile / 2, tile, tile)
            if not len(rows[i][1]):
                _write(axes, left + label, middle, "no photos", va="center", color=GREY)
    return figure


def _page(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches, and axes over all of it whose unit is the inch, y downwards."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.set_axis_off()
    return figure, axes


def _place(axes: Axes, photo: np.ndarray, x: float, y: float, width: float, height: float) -> None:
    """Fit a photo into a rectangle, its aspect ratio kept."""
    scale = min(width / photo.shape[1], height / photo.shape[0])
    wide, high = scale * photo.shape[1], scale * photo.shape[0]
    left, top = x + (width - wide) / 2, y + (height - high) / 2
    axes.imshow(photo, extent=(left, left + wide, top + high, top), aspect="auto")


def _write(axes: Axes, x: float, y: float, text: str, **style) -> None:
    # Names are no formulas, though they may hold a dollar sign.
    axes.text(x, y, text, **{"size": TEXT_SIZE, "color": INK, "parse_math": False, "linespacing": 1.1, **style})


def _height(texts: Sequence[str]) -> float:
    """Height in inches of the text that has the most lines."""
    return LINE_HEIGHT * max(text.count("\n") + 1 for text in texts)
