"""Pictures of detections as arrays: overlays of boxes, scores and outlines, and sheets of many images."""

from collections.abc import Sequence

import cv2
import numpy as np

from mrcnn.data.resizing import resize

# RGB. Light enough to show on dark nuclei, saturated enough to show on pale background.
OVERLAY_COLORS = ((0, 230, 51), (255, 51, 51), (26, 153, 255), (255, 153, 0), (230, 51, 255), (0, 230, 230))
# Of the nucleus, whatever the cell's: yellow, which no dye has, on a dark rim, which shows on pale cytoplasm.
NUCLEUS_COLOR, NUCLEUS_RIM = (255, 240, 0), (40, 20, 60)
FONT = cv2.FONT_HERSHEY_SIMPLEX
# px; no picture is enlarged beyond it, or thin strips would fill the memory.
MAX_ENLARGED_SIDE = 4000


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    nuclei: np.ndarray | None = None,
    *,
    min_side: int = 0,
) -> np.ndarray:
    """Draw boxes, scores and outlines of masks over a copy of an image, uint8 (height, width, 3).

    Args:
        image: uint8 array of shape (height, width, 3), RGB.
        boxes: array of shape (num_boxes, 4), `(y1, x1, y2, x2)` pixels.
        scores: array of shape (num_boxes,), written beside the boxes, or None.
        masks: bool array of shape (height, width, num_boxes), or None.
        nuclei: the same of their nuclei, outlined more thinly in `NUCLEUS_COLOR`.
        min_side: the picture is enlarged until its shorter side has so many pixels, which keeps the numbers
            on small images readable, or its longer side has `MAX_ENLARGED_SIDE`.
    """
    shorter, longer = sorted(image.shape[:2])
    scale = max(1.0, min(min_side / shorter, MAX_ENLARGED_SIDE / longer))
    height, width = (round(side * scale) for side in image.shape[:2])
    canvas = np.ascontiguousarray(resize(image, (height, width))).copy()
    thickness = max(1, round(min(height, width) / 150))
    thin = max(1, thickness // 2)
    boxes = np.round(scale * np.asarray(boxes, np.float64).reshape(-1, 4)).astype(int).tolist()
    for i, (y1, x1, y2, x2) in enumerate(boxes):
        if masks is not None:
            _draw_outline(canvas, masks[..., i], _color(i), thickness)
        if nuclei is not None:
            for color, width in ((NUCLEUS_RIM, thin + 2), (NUCLEUS_COLOR, thin)):
                _draw_outline(canvas, nuclei[..., i], color, width)
        # Exclusive ends: the last pixel inside is one before.
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), _color(i), thickness)
    if scores is not None:  # after all boxes, so that no line crosses a number
        for i, ((y1, x1, _, _), score) in enumerate(zip(boxes, scores, strict=True)):
            _draw_label(canvas, f"{score:.2f}", y1, x1, _color(i))
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
        images: uint8 arrays of shape (height, width, 3), of any sizes, at least one.
        columns: tiles in a row.
        captions: a line of ASCII text under each image, shortened where it is too long.
        tile_size, gap: side of a tile and white space between tiles, pixels.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    step_x, step_y = tile_size + gap, tile_size + gap + (18 if captions is not None else 0)
    page = np.full((rows * step_y + gap, columns * step_x + gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * step_y, gap + (i % columns) * step_x
        tile = _fitted(image, tile_size)
        y, x = top + (tile_size - tile.shape[0]) // 2, left + (tile_size - tile.shape[1]) // 2
        page[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        if captions is not None:
            text = _fit_text(captions[i], tile_size)
            cv2.putText(page, text, (left, top + tile_size + 13), FONT, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return page


def augmentation_sheet(
    images: Sequence[np.ndarray], masks: Sequence[np.ndarray], columns: int = 8, tile_size: int = 160
) -> np.ndarray:
    """Lay samples on a `sheet` with the outlines of their masks, each bool (height, width, num_instances)."""
    tiles = [_fitted(image, tile_size).copy() for image in images]
    for tile, instance_masks in zip(tiles, masks, strict=True):
        for i in range(instance_masks.shape[-1]):
            _draw_outline(tile, instance_masks[..., i], _color(i), thickness=max(1, tile_size // 100))
    return sheet(tiles, columns, tile_size=tile_size)


def _color(index: int) -> tuple[int, int, int]:
    return OVERLAY_COLORS[index % len(OVERLAY_COLORS)]


def _fitted(image: np.ndarray, size: int) -> np.ndarray:
    """The image with its longer side at `size` pixels."""
    scale = size / max(image.shape[:2])
    return resize(image, [max(1, round(side * scale)) for side in image.shape[:2]])


def _draw_outline(canvas: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], thickness: int) -> None:
    """Outline a mask of any size on a canvas of the same aspect ratio."""
    inside = cv2.resize(mask.astype(np.uint8), canvas.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, color, thickness)


def _draw_label(canvas: np.ndarray, text: str, y1: int, x1: int, color: tuple[int, int, int]) -> None:
    """Write black text on a patch of the box's colour, above the box or, without room there, inside it."""
    font_scale = max(0.35, min(canvas.shape[:2]) / 500)
    (text_width, text_height), _ = cv2.getTextSize(text, FONT, font_scale, 1)
    patch_height, patch_width = text_height + 6, text_width + 4
    top = y1 - patch_height if y1 >= patch_height else max(y1, 0)
    left = min(max(x1, 0), max(0, canvas.shape[1] - patch_width))
    cv2.rectangle(canvas, (left, top), (left + patch_width - 1, top + patch_height - 1), color, cv2.FILLED)
    cv2.putText(canvas, text, (left + 2, top + text_height + 3), FONT, font_scale, (0, 0, 0), 1, cv2.LINE_AA)


def _fit_text(text: str, width: int) -> str:
    """Shorten text until it fits into `width` pixels, in what OpenCV's fonts can write."""
    text = text.encode("ascii", "replace").decode()
    shorter = [text, *(f"{text[:end]}.." for end in range(len(text) - 1, 0, -1))]
    return next((each for each in shorter if cv2.getTextSize(each, FONT, 0.4, 1)[0][0] <= width), "..")
