"""Colours, and the marks that the displays put on images and on matplotlib's axes."""

import colorsys
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Color = tuple[float, ...]


def random_colors(N: int, bright: bool = True) -> list[Color]:  # noqa: N803 (Matterport's argument name)
    """Return `N` RGB colours in [0, 1], spread over the hues, in a shuffled order that depends on N alone."""
    colors = [colorsys.hsv_to_rgb(i / max(1, N), 1.0, 1.0 if bright else 0.7) for i in range(N)]
    random.Random(N).shuffle(colors)
    return colors


def apply_mask(image: np.ndarray, mask: np.ndarray, color: Color, alpha: float = 0.5) -> np.ndarray:
    """Blend a colour into the masked part of an image, in place, and return the image.

    Args:
        image: array of shape (height, width, 3), values 0 to 255; a fourth channel stays as it is.
        mask: array of shape (height, width), non-zero inside.
        color: RGB in [0, 1]; what follows, such as an alpha, is not used.
        alpha: weight of the colour, 0 to 1.
    """
    inside, colors = mask.astype(bool), image[..., :3]
    blended = colors[inside] * (1 - alpha) + alpha * 255 * np.asarray(color[:3])
    colors[inside] = blended.astype(image.dtype)
    return image


def draw_box(image: np.ndarray, box: np.ndarray, color: Sequence[int]) -> np.ndarray:
    """Draw a frame of 2 px on an image, in place, and return the image.

    Args:
        image: array of shape (height, width, 3).
        box: `(y1, x1, y2, x2)` in whole pixels; the frame lies inside it at the top and on the left, and begins
            at its exclusive end at the bottom and on the right.
        color: the value of the frame's pixels, in the range of `image`.
    """
    y1, x1, y2, x2 = (int(v) for v in box)
    for rows, columns in (
        (slice(y1, y1 + 2), slice(x1, x2)),
        (slice(y2, y2 + 2), slice(x1, x2)),
        (slice(y1, y2), slice(x1, x1 + 2)),
        (slice(y1, y2), slice(x2, x2 + 2)),
    ):
        image[rows, columns] = color
    return image


def frame_axes(ax: "Axes", image: np.ndarray, title: str, margin: int) -> None:
    """Set limits that leave a margin around the image, rows growing downwards, and the title."""
    ax.set_xlim(-margin, image.shape[1] + margin)
    ax.set_ylim(image.shape[0] + margin, -margin)
    ax.axis("off")
    ax.set_title(title)


def add_rectangle(ax: "Axes", box: np.ndarray, **style: object) -> None:
    """Draw the border of a box `(y1, x1, y2, x2)`; `style` goes to matplotlib's Rectangle."""
    from matplotlib.patches import Rectangle

    y1, x1, y2, x2 = box[:4]
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=2, **style))


def add_link(ax: "Axes", box: np.ndarray, refined_box: np.ndarray, color: Color | str) -> None:
    """Join the first corners of a box and of what it was refined to."""
    ax.plot([box[1], refined_box[1]], [box[0], refined_box[0]], color=color, scalex=False, scaley=False)


def add_outline(ax: "Axes", mask: np.ndarray, color: Color) -> None:
    """Outline a mask of shape (height, width), if there is anything in it."""
    if not np.any(mask):
        return  # matplotlib warns of contours that do not exist
    # A frame of zeros closes the outlines of masks that touch the border.
    height, width = mask.shape
    rows, columns = np.arange(-1, height + 1), np.arange(-1, width + 1)
    ax.contour(columns, rows, np.pad(mask.astype(float), 1), levels=[0.5], colors=[color])
