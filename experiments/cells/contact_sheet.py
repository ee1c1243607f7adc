"""Contact sheet: one picture of what the detector found on some of a centre's images, and of what it missed."""

import textwrap
from collections.abc import Mapping

import cv2
import numpy as np

from mrcnn.data.images import read_image
from mrcnn.data.masks import expand_mask
from mrcnn.data.records import ImageRecord
from mrcnn.data.resizing import resize
from mrcnn.feature_store import FeatureStore
from mrcnn.files.errors import InputError
from mrcnn.overlays import FONT, draw_detections, sheet

MAX_TILES, MAX_COLUMNS = 48, 8
SHEET_WIDTH, MAX_TILE, GAP = 2000, 480, 6  # px, the first about
LEAST_SHARE_LOST = 3  # at most one tile in so many is an image without a cell, where there are enough of the others
LINE_HEIGHT, CHARACTER_WIDTH, MAX_LINES = 16, 7, 8  # px of the font at the size of captions, and lines of a reason


def contact_sheet(store: FeatureStore, records: Mapping[str, ImageRecord], max_tiles: int = MAX_TILES) -> np.ndarray:
    """Draw the stored cells over some images, chosen evenly, and after them images without a cell with the reason.

    Images, `records` by image_id, are read one after the other and shrunk before anything is drawn, so that large ones
    take little memory. One that cannot be read is drawn as an empty tile with the reason. The sheet is uint8
    (height, width, 3).
    """
    image_ids, reasons = store.all_image_ids, store.image_column("reason")
    rows = choose_images(reasons == "", max_tiles)
    columns = min(MAX_COLUMNS, max(1, int(np.ceil(np.sqrt(4 / 3 * len(rows))))))
    side = min(MAX_TILE, SHEET_WIDTH // columns - GAP)
    kept, detected = store.image_column("num_cells"), store.image_column("num_detections")
    starts = np.cumsum(kept, dtype=np.int64) - kept
    tiles, captions = [], []
    for row in rows:
        image_id, cells = str(image_ids[row]), slice(int(starts[row]), int(starts[row] + kept[row]))
        tiles.append(_draw_image(store, records[image_id], cells, str(reasons[row]), side))
        captions.append(f"{kept[row]} of {detected[row]} cells: {image_id}" if kept[row] < detected[row] else image_id)
    return sheet(tiles, columns, captions, tile_size=side, gap=GAP)


def choose_images(is_found: np.ndarray, max_tiles: int) -> np.ndarray:
    """Rows of images with a cell (bool `is_found`) and then of images without one, evenly over each."""
    found, lost = np.flatnonzero(is_found), np.flatnonzero(~is_found)
    num_lost = min(len(lost), max(max_tiles // LEAST_SHARE_LOST, max_tiles - len(found)))
    chosen = []
    for rows, number in ((found, max_tiles - num_lost), (lost, num_lost)):
        # The first and the last of each are among them.
        chosen.append(rows[np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(np.int64)])
    return np.concatenate(chosen)


def _draw_image(store: FeatureStore, record: ImageRecord, cells: slice, reason: str, side: int) -> np.ndarray:
    """An image with its cells or the reason why it has none, its longer side `side` px."""
    try:
        image = read_image(record.path)
    except InputError as error:
        # The file may have gone since the cells were found.
        return _write_text(np.full((side, side, 3), 225, np.uint8), reason or str(error))
    scale = side / max(image.shape[:2])
    picture = resize(image, [max(1, round(length * scale)) for length in image.shape[:2]])
    if reason:
        return _write_text(picture, reason)
    boxes = store.read("box", cells.start, cells.stop) * scale
    scores = store.read("score", cells.start, cells.stop)
    masks = []
    for name in ("mask", "nucleus_mask"):
        small = store.read(name, cells.start, cells.stop) / 255.0 if name in store.fields else None
        masks.append(None if small is None else expand_mask(np.round(boxes), np.moveaxis(small, 0, -1), picture.shape))
    return draw_detections(picture, boxes, scores, *masks)


def _write_text(picture: np.ndarray, text: str) -> np.ndarray:
    """Write text on a white strip over the top of a picture, as many lines of it as there is room for."""
    picture = np.array(picture, order="C")
    text = text.encode("ascii", "replace").decode()
    room = min(MAX_LINES, picture.shape[0] // LINE_HEIGHT)
    lines = textwrap.wrap(text, max(1, picture.shape[1] // CHARACTER_WIDTH), max_lines=max(1, room), placeholder=" ..")
    picture[: len(lines) * LINE_HEIGHT + 4] = 255
    for number, line in enumerate(lines, 1):
        cv2.putText(picture, line, (3, number * LINE_HEIGHT - 3), FONT, 0.4, (160, 0, 0), 1, cv2.LINE_AA)
    return picture
