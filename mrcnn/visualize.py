"""Pictures of detections: overlays and sheets as arrays, and Matterport's matplotlib displays."""

import colorsys
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mrcnn.data.resizing import resize
from mrcnn.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Color = tuple[float, float, float]
# Light enough to show on dark nuclei, saturated enough to show on pale background.
OVERLAY_COLORS: tuple[Color, ...] = (
    (0.0, 0.9, 0.2),
    (1.0, 0.2, 0.2),
    (0.1, 0.6, 1.0),
    (1.0, 0.6, 0.0),
    (0.9, 0.2, 1.0),
    (0.0, 0.9, 0.9),
)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    *,
    colors: Sequence[Color] = OVERLAY_COLORS,
    min_side: int = 0,
) -> np.ndarray:
    """Draw boxes, scores and mask outlines over an image.

    Args:
        image: uint8 array of shape (height, width, 3), RGB; it is not changed.
        boxes: array of shape (num_boxes, 4), `(y1, x1, y2, x2)` pixels.
        scores: array of shape (num_boxes,), written beside the boxes, or None.
        masks: bool array of shape (height, width, num_boxes), or None.
        colors: RGB colours in [0, 1], used in turn.
        min_side: the picture is enlarged until its shorter side has so many pixels, which keeps the numbers
            on small images readable.

    Returns:
        uint8 array of shape (height, width, 3), larger than `image` if `min_side` asks for it.

    Raises:
        ValueError: if boxes, scores and masks differ in number.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    for name, number in (("scores", scores), ("masks", masks)):
        count = len(boxes) if number is None else np.shape(number)[-1]
        if count != len(boxes):
            raise ValueError(f"got {len(boxes)} boxes and {count} {name}")
    scale = max(1.0, min_side / min(image.shape[:2]))
    height, width = (round(side * scale) for side in image.shape[:2])
    canvas = np.ascontiguousarray(resize(image, (height, width))).copy()
    thickness = max(1, round(min(height, width) / 150))
    for i, box in enumerate(boxes * scale):
        color = _to_rgb8(colors[i % len(colors)])
        if masks is not None:
            _draw_outline(canvas, masks[..., i], color, thickness)
        # Exclusive ends: the last pixel inside is one before.
        y1, x1, y2, x2 = (int(round(v)) for v in box)
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), color, thickness)
    if scores is not None:  # after all boxes, so that no line crosses a number
        for i, (box, score) in enumerate(zip(boxes * scale, scores, strict=True)):
            _draw_label(canvas, f"{score:.2f}", box, _to_rgb8(colors[i % len(colors)]))
    return canvas


def sheet(
    images: Sequence[np.ndarray],
    columns: int = 4,
    captions: Sequence[str] | None = None,
    *,
    tile_size: int = 192,
    gap: int = 6,
) -> np.ndarray:
    """Lay images on a white sheet, row by row, each fitted into a square tile with its aspect ratio kept.

    Args:
        images: uint8 arrays of shape (height, width, 3), of any sizes.
        columns: tiles in a row.
        captions: a line of ASCII text under each image, shortened where it is too long.
        tile_size: side of a tile in pixels.
        gap: white space between tiles in pixels.

    Returns:
        uint8 array of shape (sheet height, sheet width, 3).

    Raises:
        InputError: if there is no image.
        ValueError: if captions and images differ in number, or columns is below 1.
    """
    if len(images) == 0:
        raise InputError("no images to make a sheet of")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"got {len(images)} images and {len(captions)} captions")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    step_x, step_y = tile_size + gap, tile_size + gap + (18 if captions is not None else 0)
    page = np.full((rows * step_y + gap, columns * step_x + gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * step_y, gap + (i % columns) * step_x
        scale = tile_size / max(image.shape[:2])
        tile = resize(image, [max(1, round(side * scale)) for side in image.shape[:2]])
        y, x = top + (tile_size - tile.shape[0]) // 2, left + (tile_size - tile.shape[1]) // 2
        page[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        if captions is not None:
            text = _fit_text(captions[i], tile_size)
            cv2.putText(page, text, (left, top + tile_size + 13), FONT, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return page


def augmentation_sheet(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray] | None = None,
    *,
    columns: int = 8,
    tile_size: int = 160,
) -> np.ndarray:
    """Lay augmented samples on a sheet, with the outlines of their masks.

    Args:
        images: uint8 arrays of shape (height, width, 3).
        masks: per image a bool array of shape (height, width, num_instances), or None.
        columns: tiles in a row.
        tile_size: side of a tile in pixels.

    Returns:
        uint8 array of shape (sheet height, sheet width, 3).

    Raises:
        InputError: if there is no image.
        ValueError: if masks and images differ in number.
    """
    if masks is None:
        return sheet(images, columns, tile_size=tile_size)
    outlined = []
    for image, instance_masks in zip(images, masks, strict=True):
        scale = tile_size / max(image.shape[:2])
        tile = resize(image, [max(1, round(side * scale)) for side in image.shape[:2]]).copy()
        for i in range(instance_masks.shape[-1]):
            color = _to_rgb8(OVERLAY_COLORS[i % len(OVERLAY_COLORS)])
            _draw_outline(tile, instance_masks[..., i], color, thickness=max(1, tile_size // 100))
        outlined.append(tile)
    return sheet(outlined, columns, tile_size=tile_size)


def random_colors(N: int, bright: bool = True) -> list[Color]:  # noqa: N803 (Matterport's argument name)
    """Return `N` RGB colours in [0, 1], spread over the hues, in a shuffled order that depends on N alone."""
    colors = [colorsys.hsv_to_rgb(i / max(1, N), 1.0, 1.0 if bright else 0.7) for i in range(N)]
    random.Random(N).shuffle(colors)
    return colors


def apply_mask(image: np.ndarray, mask: np.ndarray, color: Color, alpha: float = 0.5) -> np.ndarray:
    """Blend a colour into the masked part of an image, in place, and return the image.

    Args:
        image: array of shape (height, width, 3), values 0 to 255.
        mask: array of shape (height, width), non-zero inside.
        color: RGB in [0, 1].
        alpha: weight of the colour, 0 to 1.
    """
    inside = mask.astype(bool)
    blended = image[inside] * (1 - alpha) + alpha * 255 * np.asarray(color)
    image[inside] = blended.astype(image.dtype)
    return image


def display_images(
    images: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    cols: int = 4,
    cmap: str | None = None,
    norm: object = None,
    interpolation: str | None = None,
) -> None:
    """Show images side by side with matplotlib, `cols` in a row; the last three go to `imshow`."""
    import matplotlib.pyplot as plt

    titles = [""] * len(images) if titles is None else titles
    rows = -(-len(images) // cols)
    plt.figure(figsize=(14, 14 * rows / cols))
    for i, (image, title) in enumerate(zip(images, titles, strict=True)):
        plt.subplot(rows, cols, i + 1)
        plt.title(title, fontsize=9)
        plt.axis("off")
        plt.imshow(image, cmap=cmap, norm=norm, interpolation=interpolation)
    plt.show()


def display_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray,
    class_ids: np.ndarray,
    class_names: Sequence[str],
    scores: np.ndarray | None = None,
    title: str = "",
    figsize: tuple[float, float] = (16, 16),
    ax: "Axes | None" = None,
    show_mask: bool = True,
    show_bbox: bool = True,
    colors: Sequence[Color] | None = None,
    captions: Sequence[str] | None = None,
) -> None:
    """Draw instances with matplotlib (Matterport's name and arguments).

    Args:
        image: array of shape (height, width, 3).
        boxes: array of shape (num_instances, 4), pixels.
        masks: array of shape (height, width, num_instances).
        class_ids: array of shape (num_instances,).
        class_names: names by class id.
        scores: array of shape (num_instances,), or None.
        title: title of the figure.
        figsize: size of the figure in inches, if one is made.
        ax: axes to draw on; without them a figure is made and shown.
        show_mask: whether masks are filled and outlined.
        show_bbox: whether boxes are drawn.
        colors: RGB in [0, 1] per instance; random ones if None.
        captions: text per instance instead of class name and score.

    Raises:
        ValueError: if boxes, masks and class_ids differ in number.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    num_instances = len(boxes)
    if not num_instances == masks.shape[-1] == len(class_ids):
        raise ValueError(f"got {num_instances} boxes, {masks.shape[-1]} masks and {len(class_ids)} class ids")
    auto_show = ax is None
    if ax is None:
        _, ax = plt.subplots(1, figsize=figsize)
    colors = random_colors(num_instances) if colors is None else colors
    ax.set_xlim(-10, image.shape[1] + 10)
    ax.set_ylim(image.shape[0] + 10, -10)
    ax.axis("off")
    ax.set_title(title)
    picture = np.array(image, np.uint8)
    for i in range(num_instances):
        y1, x1, y2, x2 = boxes[i]
        if not np.any(boxes[i]):
            continue  # padding
        if show_bbox:
            ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=2, edgecolor=colors[i]))
        if captions is not None:
            caption = captions[i]
        else:
            caption = class_names[class_ids[i]] + (f" {scores[i]:.3f}" if scores is not None else "")
        patch = {"facecolor": colors[i], "alpha": 0.7, "pad": 2, "edgecolor": "none"}
        ax.text(x1, y1, caption, color="black", size=11, verticalalignment="bottom", bbox=patch)
        if show_mask:
            picture = apply_mask(picture, masks[..., i], colors[i])
            # A frame of zeros closes the outlines of masks that touch the border.
            ax.contour(
                np.arange(-1, image.shape[1] + 1),
                np.arange(-1, image.shape[0] + 1),
                np.pad(masks[..., i].astype(float), 1),
                levels=[0.5],
                colors=[colors[i]],
            )
    ax.imshow(picture)
    if auto_show:
        plt.show()


def _draw_outline(canvas: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], thickness: int) -> None:
    """Outline a mask of any size on a canvas of the same aspect ratio."""
    height, width = canvas.shape[:2]
    inside = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, color, thickness)


def _draw_label(canvas: np.ndarray, text: str, box: np.ndarray, color: tuple[int, int, int]) -> None:
    """Write black text on a patch of the box's colour, above the box or, without room there, inside it."""
    font_scale = max(0.35, min(canvas.shape[:2]) / 500)
    (text_width, text_height), _ = cv2.getTextSize(text, FONT, font_scale, 1)
    patch_height, patch_width = text_height + 6, text_width + 4
    y1, x1 = int(round(box[0])), int(round(box[1]))
    top = y1 - patch_height if y1 >= patch_height else max(y1, 0)
    left = min(max(x1, 0), max(0, canvas.shape[1] - patch_width))
    cv2.rectangle(canvas, (left, top), (left + patch_width - 1, top + patch_height - 1), color, cv2.FILLED)
    cv2.putText(canvas, text, (left + 2, top + text_height + 3), FONT, font_scale, (0, 0, 0), 1, cv2.LINE_AA)


def _fit_text(text: str, width: int) -> str:
    """Shorten text until it fits into `width` pixels, in what OpenCV's fonts can write."""
    text = text.encode("ascii", "replace").decode()
    if cv2.getTextSize(text, FONT, 0.4, 1)[0][0] <= width:
        return text
    while text and cv2.getTextSize(f"{text}..", FONT, 0.4, 1)[0][0] > width:
        text = text[:-1]
    return f"{text}.."


def _to_rgb8(color: Color) -> tuple[int, int, int]:
    red, green, blue = (int(round(255 * v)) for v in color)
    return red, green, blue
