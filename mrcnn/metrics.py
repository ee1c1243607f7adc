"""Average precision, precision and recall of detections, by COCO's own evaluation.

A crowd (COCO's `iscrowd`, a group that nobody took apart) is no cell to find, and what is found on it counts neither
as right nor as wrong. Unlike COCO's tables these take all detections of an image, not its 100 best.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
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
