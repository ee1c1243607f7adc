"""Average precision, precision and recall of detections, by COCO's own evaluation.

A crowd (COCO's `iscrowd`, a group that nobody took apart) is no cell to find, and what is found on it counts neither
as right nor as wrong. Unlike COCO's tables these take all detections of an image, not its 100 best.
"""

import contextlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


class Comparison:
    """Detections of one class beside the annotated cells, image by image.

    Args:
        iou_type: "bbox" compares boxes, arrays of shape (n, 4), `(y1, x1, y2, x2)` in pixels; "segm" compares masks,
            bool arrays of shape (height, width, n), of which the run lengths are kept.

    Example:
        Two cells; detections with scores 0.9 (right), 0.8 (wrong), 0.7 (right). Precision is 1 up to recall 1/2 and
        2/3 up to 1, so that AP is (51 * 1 + 50 * 2/3) / 101 = 0.835.

    Reference:
        Lin et al. 2014, Microsoft COCO.
    """

    def __init__(self, iou_type: str):
        self.iou_type = iou_type
        self._images: list[dict[str, Any]] = []
        self._cells: list[dict[str, Any]] = []
        self._detections: list[dict[str, Any]] = []

    def add(self, cells: np.ndarray, is_crowd: Sequence[bool], detections: np.ndarray, scores: Sequence[float]) -> None:
        """Add an image: its annotated boxes or masks, and those that were found, with their scores."""
        height, width = cells.shape[:2] if self.iou_type == "segm" else (None, None)
        self._images.append({"id": len(self._images) + 1, "height": height, "width": width})
        of_cells = [{"iscrowd": int(crowd)} for crowd in is_crowd]
        of_detections = [{"iscrowd": 0, "score": float(score)} for score in scores]
        for rows, shapes, values in ((self._cells, cells, of_cells), (self._detections, detections, of_detections)):
            for shape, more in zip(self._shapes(shapes), values, strict=True):
                # COCO's id 0 stands for no match.
                rows.append({"id": len(rows) + 1, "image_id": len(self._images), "category_id": 1, **shape, **more})

    def average_precision(self) -> dict[str, float]:
        """Average precision over all images, at recalls 0, 0.01, ..., 1.

        By the least IoU of a true positive it is "AP50", "AP55" ... "AP95", and their mean is "mAP": values in [0, 1],
        nan where there is no cell.
        """
        values = self._evaluation.eval["precision"].reshape(len(self._evaluation.params.iouThrs), -1).mean(axis=1)
        # -1 stands for no cell; COCO's divisions leave 0.9999999999999999 for 1.
        values = np.where(values < 0, np.nan, values.round(12))
        names = [f"AP{round(100 * threshold)}" for threshold in self._evaluation.params.iouThrs]
        return {"mAP": float(values.mean().round(12)), **dict(zip(names, values.tolist(), strict=True))}

    def summary(self) -> dict[str, float | None]:
        """`ap50` and `map` of `average_precision`; None where there is no cell, since JSON has no NaN."""
        measured = self.average_precision()
        return {n.lower(): None if math.isnan(measured[n]) else measured[n] for n in ("AP50", "mAP")}

    def matches(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Detections that count, matched at an IoU of 0.5: from the best score down each takes the best free cell.

        Returns:
            scores: float64 array of shape (num_detections,), without those on crowds.
            correct: bool array of shape (num_detections,), whether each found a cell.
            num_cells: cells that there were to find.
        """
        images = [image for image in self._evaluation.evalImgs if image is not None]
        counts = [~image["dtIgnore"][0].astype(bool) for image in images]
        scores = [np.asarray(image["dtScores"])[kept] for image, kept in zip(images, counts, strict=True)]
        correct = [image["dtMatches"][0][kept] > 0 for image, kept in zip(images, counts, strict=True)]
        num_cells = sum(1 for cell in self._cells if not cell["iscrowd"])
        return np.concatenate([np.zeros(0), *scores]), np.concatenate([np.zeros(0, bool), *correct]), num_cells

    def precision_recall(self, min_score: float) -> tuple[float, float]:
        """Precision (0 without detections) and recall (0 without cells) of what is found from `min_score` on."""
        scores, correct, num_cells = self.matches()
        seen = scores >= min_score
        num_right = float(correct[seen].sum())
        return num_right / max(1, seen.sum()), num_right / max(1, num_cells)

    def _shapes(self, shapes: np.ndarray) -> Iterator[dict[str, Any]]:
        """Boxes or masks as COCO writes them, with their areas."""
        if self.iou_type == "bbox":
            for y1, x1, y2, x2 in np.asarray(shapes, float).reshape(-1, 4).tolist():
                yield {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
        else:
            for lengths in run_lengths.encode(np.asfortranarray(shapes, np.uint8)):
                yield {"segmentation": lengths, "area": float(run_lengths.area(lengths))}

    @cached_property
    def _evaluation(self) -> COCOeval:
        """COCO's evaluation of all that was added; nothing can be added after it."""
        most = max(np.bincount([each["image_id"] for each in self._detections], minlength=1).max(), 1)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            evaluation = COCOeval(self._as_coco(self._cells), self._as_coco(self._detections), self.iou_type)
            evaluation.params.maxDets = [int(most)]
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation

    def _as_coco(self, annotations: list[dict[str, Any]]) -> COCO:
        coco = COCO()
        coco.dataset = {"images": self._images, "categories": [{"id": 1}], "annotations": annotations}
        coco.createIndex()
        return coco


class PartsComparison:
    """Masks of cells and of their parts beside the annotated ones, cell by cell.

    A cell's detection is the one at or above the operating score whose mask overlaps it best; without any its overlaps
    are 0. Cells of which a part is not known do not count for that part.

    Args:
        names: of the whole and of its parts, as `Config.MASK_PARTS`.
        min_score: the operating score.

    Example:
        The detection covers a cell of 100 px exactly, and 50 of the 100 px of its nucleus and nothing beside it: Dice
        is 1 for the cell and 2 * 50 / (100 + 50) = 2/3 for the nucleus, whose IoU of 1/2 makes both right.
    """

    def __init__(self, names: Sequence[str], min_score: float):
        self.names, self.min_score = tuple(names), min_score
        self._found = {part: Comparison("segm") for part in self.names[1:]}
        self._ious: dict[str, list[float]] = {name: [] for name in self.names}
        self._all_right: list[bool] = []

    def add(
        self,
        cells: np.ndarray,
        is_crowd: Sequence[bool],
        parts: Mapping[str, np.ndarray],
        result: Mapping[str, np.ndarray],
    ) -> None:
        """Add an image: its masks, what `Dataset.load_parts` knows of them, and a result of `MaskRCNN.detect`."""
        is_cell, seen = ~np.array(is_crowd, bool), result["scores"] >= self.min_score
        # The last column stands for no detection.
        ious = np.pad(_mask_ious(cells, result["masks"][..., seen]), ((0, 0), (0, 1)))
        rows, best = np.arange(len(ious)), ious[:, :-1].argmax(axis=1) if seen.any() else np.zeros(len(ious), int)
        ious = ious[rows, best]
        self._ious[self.names[0]] += ious[is_cell].tolist()
        is_right, is_known = ious >= 0.5, np.zeros(len(ious), bool)
        for part, comparison in self._found.items():
            masks = parts.get(part, np.zeros_like(cells))
            known = masks.any(axis=(0, 1)) & is_cell
            # What is found on a cell whose part is not known is neither right nor wrong, as on a crowd.
            comparison.add(np.where(known, masks, cells), ~known, result[f"{part}_masks"], result["scores"])
            part_ious = np.pad(_mask_ious(masks, result[f"{part}_masks"][..., seen]), ((0, 0), (0, 1)))
            part_ious = np.where(ious > 0, part_ious[rows, best], 0.0)
            self._ious[part] += part_ious[known].tolist()
            is_right &= ~known | (part_ious >= 0.5)
            is_known |= known
        self._all_right += is_right[is_known].tolist()

    def measures(self) -> dict[str, float | None]:
        """Dice and average precision, all in [0, 1].

        `cell_dice`, the mean over the annotated cells (None without any). Where the part "nucleus" of a cell is known
        also `nucleus_dice`, `nucleus_ap50` and `nucleus_map`, COCO's of its masks with the scores of their detections,
        and `both_parts`: the share of these cells that are found right, with their parts, at an IoU of 0.5.
        """
        measured = {f"{name}_dice": _mean_dice(ious) for name, ious in self._ious.items()}
        for part, comparison in self._found.items():
            if self._ious[part]:
                measured |= {f"{part}_{measure}": value for measure, value in comparison.summary().items()}
            else:
                del measured[f"{part}_dice"]
        if self._all_right:
            measured["both_parts"] = float(np.mean(self._all_right))
        return measured


def _mask_ious(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Overlaps of masks `(height, width, n)` and `(height, width, m)`: float (n, m)."""
    one, other = (run_lengths.encode(np.asfortranarray(each, np.uint8)) for each in (masks, others))
    return np.array(run_lengths.iou(one, other, [0] * len(other)), float).reshape(len(one), len(other))


def _mean_dice(ious: list[float]) -> float | None:
    return float(np.mean([2 * iou / (1 + iou) for iou in ious])) if ious else None
