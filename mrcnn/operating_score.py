"""Choosing the score from which detections count.

Scores of two trainings do not mean the same, not even of one configuration: what one calls 0.9 the other calls 0.97.
"""

from collections.abc import Sequence

import numpy as np

from mrcnn.data.dataset import Dataset
from mrcnn.data.masks import extract_bboxes
from mrcnn.errors import InputError
from mrcnn.evaluation import detect_each, image_name
from mrcnn.metrics import box_iou_matrix, match_detections
from mrcnn.model import MaskRCNN

IOU_THRESHOLD = 0.5


def choose_operating_score(
    scores: np.ndarray, correct: np.ndarray, num_cells: int, lowest: float = 0.0
) -> float | None:
    """The middle of the scores at which F1, the harmonic mean of precision and recall, is highest.

    Any score between the last detection that counts and the next one gives the same F1. Of several such gaps with the
    highest F1 the widest is taken.

    Args:
        scores: array of shape (num_detections,), in [0, 1].
        correct: bool array of shape (num_detections,), whether each found a cell that no better one has found.
        num_cells: cells that there were to find.
        lowest: the score below which the detector gave nothing.

    Returns:
        The score, or None if no detection is correct.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    ordered, hits = np.asarray(scores, np.float64)[order], np.cumsum(np.asarray(correct, bool)[order])
    if not len(hits) or not hits[-1]:
        return None
    f1 = 2.0 * hits / (np.arange(1, len(hits) + 1) + num_cells)
    gaps = ordered - np.append(ordered[1:], min(lowest, ordered[-1]))
    f1 = np.where(gaps > 0, f1, 0.0)  # equal scores count together or not at all
    best = np.flatnonzero(np.isclose(f1, f1.max(), rtol=1e-9, atol=0.0))
    last = best[np.argmax(gaps[best])]
    return float(ordered[last] - gaps[last] / 2)


def measure_operating_score(detector: MaskRCNN, datasets: Sequence[Dataset], *, batch_size: int = 8) -> float | None:
    """Choose the operating score of a detector on images that it did not learn from.

    Args:
        detector: opened with a low `DETECTION_MIN_CONFIDENCE`.
        datasets: images with masks; boxes count as found from an IoU of 0.5 on.
        batch_size: images in a batch.

    Returns:
        As of `choose_operating_score`.

    Raises:
        InputError: naming an image that the detector does not take.
    """
    samples = [(dataset, image_id) for dataset in datasets for image_id in dataset.image_ids]
    scores, correct, num_cells = [np.zeros(0)], [np.zeros(0, bool)], 0
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        images = [dataset.load_image(image_id) for dataset, image_id in batch]
        names = [image_name(dataset, image_id) for dataset, image_id in batch]
        results = detect_each(detector, images, names, masks=False)
        for (dataset, image_id), result in zip(batch, results, strict=True):
            if isinstance(result, InputError):
                raise result
            boxes = extract_bboxes(dataset.load_mask(image_id)[0])
            overlaps = box_iou_matrix(result["rois"], boxes)
            correct.append(match_detections(overlaps, result["scores"], IOU_THRESHOLD) >= 0)
            scores.append(result["scores"])
            num_cells += len(boxes)
    lowest = float(detector.config.DETECTION_MIN_CONFIDENCE)
    return choose_operating_score(np.concatenate(scores), np.concatenate(correct), num_cells, lowest)
