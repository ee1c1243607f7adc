"""Self-training on centres without masks: a detector draws them, and they are kept where views of an image agree."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mrcnn.data.images import read_image
from mrcnn.data.records import ImageRecord
from mrcnn.files.atomic import atomic_path
from mrcnn.files.progress import Bar
from mrcnn.model import MaskRCNN

log = logging.getLogger(__name__)

# From this score on a detection may be a cell; from the second on, in this share of the views, it is taken for one.
LEAST_SCORE, SURE_SCORE, SURE_SHARE = 0.2, 0.6, 0.75
# Mean IoU of the views with their vote, from which masks of a cell and of its nucleus are believed.
CELL_AGREEMENT, NUCLEUS_AGREEMENT = 0.88, 0.85
MATCH_IOU = 0.5
# Views of an image: each is undone on the masks that are found on it.
_VIEWS: tuple[tuple[Callable, Callable], ...] = (
    (lambda a: a, lambda a: a),
    (lambda a: a[:, ::-1], lambda a: a[:, ::-1]),
    (lambda a: a[::-1], lambda a: a[::-1]),
    (lambda a: np.rot90(a), lambda a: np.rot90(a, -1)),
)


class DrawnCell(NamedTuple):
    """A cell on which the views of an image agree."""

    cell: np.ndarray  # bool (height, width)
    nucleus: np.ndarray  # bool (height, width)


def write_pseudo_masks(
    detector: MaskRCNN,
    records: Sequence[ImageRecord],
    folder: str | os.PathLike,
    boxes: Mapping[str, np.ndarray] | None,
    *,
    empty: Sequence[ImageRecord] = (),
) -> list[ImageRecord]:
    """Write masks of the cells and nuclei of images that nobody has annotated, for training.

    An image is taken if the detector is sure of every detection on it, and these are what is known of the image: the
    cells of `boxes`, each and no other, or else one in the middle of the image.

    Args:
        detector: draws cell and nucleus.
        records: the images.
        folder: gets `masks/` (a number for each cell) and `nuclei/` (255 in their nuclei), by image_id.
        boxes: image_id -> boxes `(n, 4)` in pixels of its cells; None for images with a cell in the middle.
        empty: images that show no white cell; their masks are 0.

    Returns:
        The images taken, `empty` among them.
    """
    taken = []
    for record in Bar(records, desc="pseudo masks", unit="image"):
        image = read_image(record.path)
        cells = draw_cells(detector, image)
        if cells is not None and _fits(cells, None if boxes is None else boxes[record.image_id], image.shape):
            _write(Path(folder), record, image.shape, cells)
            taken.append(record)
    for record in empty:
        _write(Path(folder), record, read_image(record.path).shape, [])
    log.info("pseudo masks of %d of %d images", len(taken), len(records))
    return [*taken, *empty]


def draw_cells(detector: MaskRCNN, image: np.ndarray) -> list[DrawnCell] | None:
    """The cells that four views of an image, turned and mirrored, agree on; None if they disagree on any detection."""
    found = []
    for result, (_, undo) in zip(
        detector.detect([np.ascontiguousarray(view(image)) for view, _ in _VIEWS]), _VIEWS, strict=True
    ):
        kept = result["scores"] >= LEAST_SCORE
        names = ("masks", "nucleus_masks")
        masks = [np.ascontiguousarray(undo(result[name][..., kept])) for name in names]
        found += [(float(s), *(m[..., i] for m in masks)) for i, s in enumerate(result["scores"][kept])]
    cells = []
    for group in _groups(found):
        sure = [each for each in group if each[0] >= SURE_SCORE]
        if len(sure) < SURE_SHARE * len(_VIEWS) or len(group) > len(_VIEWS):
            return None
        cell, cell_agreement = _vote([each[1] for each in sure])
        nucleus, nucleus_agreement = _vote([each[2] for each in sure])
        if cell_agreement < CELL_AGREEMENT or nucleus_agreement < NUCLEUS_AGREEMENT:
            return None
        cells.append(DrawnCell(cell, nucleus & cell))
    return cells


def _groups(found: list) -> list[list]:
    """Detections of all views by the cell that they are of, the best first."""
    groups: list[list] = []
    for each in sorted(found, key=lambda detection: -detection[0]):
        group = next((g for g in groups if _iou(g[0][1], each[1]) >= MATCH_IOU), None)
        if group is None:
            groups.append([each])
        else:
            group.append(each)
    return groups


def _vote(masks: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """The pixels that at least half of the masks have, and their mean IoU with these."""
    vote = np.mean(masks, axis=0) >= 0.5
    return vote, float(np.mean([_iou(mask, vote) for mask in masks]))


def _fits(cells: Sequence[DrawnCell], boxes: np.ndarray | None, image_shape: Sequence[int]) -> bool:
    if boxes is None:
        y, x = image_shape[0] // 2, image_shape[1] // 2
        return any(cell.cell[y - 3 : y + 4, x - 3 : x + 4].any() for cell in cells)
    drawn = [cv2.boundingRect(cell.cell.astype(np.uint8)) for cell in cells]
    overlap = np.zeros((len(boxes), len(drawn)))
    for row, (y1, x1, y2, x2) in enumerate(boxes):
        for column, (left, top, width, height) in enumerate(drawn):
            inner = max(0, min(y2, top + height) - max(y1, top)) * max(0, min(x2, left + width) - max(x1, left))
            overlap[row, column] = inner / ((y2 - y1) * (x2 - x1) + width * height - inner)
    matched = overlap >= MATCH_IOU
    return bool(matched.shape[0] == matched.shape[1] and (matched.sum(0) == 1).all() and (matched.sum(1) == 1).all())


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def _write(folder: Path, record: ImageRecord, image_shape: Sequence[int], cells: Sequence[DrawnCell]) -> None:
    labels, nuclei = (np.zeros(image_shape[:2], np.uint8) for _ in range(2))
    for number, drawn in enumerate(cells, 1):
        labels[drawn.cell] = number
        nuclei[drawn.nucleus] = 255
    for name, values in (("masks", labels), ("nuclei", nuclei)):
        path = folder / name / Path(record.image_id).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(cv2.imencode(".png", values)[1].tobytes())
