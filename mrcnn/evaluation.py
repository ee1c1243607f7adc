"""A detector measured on images by masks, by boxes or by the presence of a cell; its operating score."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.annotations.voc import VocBoxDataset
from mrcnn.data.colour_shifts import ColourShifted
from mrcnn.data.dataset import Dataset, image_name
from mrcnn.data.images import read_image
from mrcnn.data.masks import extract_bboxes
from mrcnn.data.records import ImageRecord
from mrcnn.detection import Result, attempt, detect_samples
from mrcnn.files.atomic import write_json
from mrcnn.files.errors import InputError
from mrcnn.metrics import Comparison, PartsComparison
from mrcnn.model import MaskRCNN, load_detector
from mrcnn.training.folder import CONFIG_NAME, read_settings

log = logging.getLogger(__name__)
BATCH_SIZE = 8
# Changes of colour of each image on which the score of a detector is chosen that saw many stains in training.
NUM_SHIFTS = 4


def evaluate_masks(
    detector: MaskRCNN, datasets: Sequence[Dataset], score_threshold: float, description: str = "evaluate"
) -> dict[str, Any]:
    """Compare detections with instance masks.

    Args:
        detector: opened with a low `DETECTION_MIN_CONFIDENCE`, so that the precision-recall curve has its tail.
        datasets: images with masks. What is found on images without a cell is wrong, what is found on crowds (of a
            negative class id) does not count.
        score_threshold: the operating score, for precision, recall and the detection rate.
        description: of the bar.

    Returns:
        `box_ap50`, `box_map`, `mask_ap50`, `mask_map` (IoU 0.5:0.95; None without cells), `precision`, `recall` (boxes
        at IoU 0.5), `detection_rate` (share of the images with a cell that have a detection at the operating score),
        `num_images`, `num_cells`, `score_threshold`; and what `PartsComparison.measures` gives.

    Raises:
        InputError: naming an image that cannot be read or that the detector does not take.
    """
    boxes, masks, found = Comparison("bbox"), Comparison("segm"), []
    parts = PartsComparison(detector.config.MASK_PARTS, score_threshold)
    for sample, result, truth, is_crowd in _on_masks(detector, datasets, description):
        boxes.add(extract_bboxes(truth), is_crowd, result["rois"], result["scores"])
        masks.add(truth, is_crowd, result["masks"], result["scores"])
        parts.add(truth, is_crowd, sample[0].load_parts(sample[1]) if len(parts.names) > 1 else {}, result)
        if not all(is_crowd):
            found.append(bool((result["scores"] >= score_threshold).any()))
    num_images = sum(len(dataset.image_ids) for dataset in datasets)
    measured = {**_box_scores(boxes, found, num_images, score_threshold), **_average_precision(masks, "mask")}
    return {**measured, **parts.measures()}


def evaluate_boxes(
    detector: MaskRCNN, dataset: VocBoxDataset, score_threshold: float, description: str = "evaluate"
) -> dict[str, Any]:
    """Compare detections with boxes; arguments and result as of `evaluate_masks`, less the masks.

    Images or annotations that cannot be read, and images that the detector does not take, are counted as
    `num_unreadable`, with a warning for each.
    """
    comparison, found, num_images = Comparison("bbox"), [], 0
    samples = list(dataset.image_ids)
    for image_id, _, result in detect_samples(
        detector, samples, dataset.load_image, lambda i: image_name(dataset, i), BATCH_SIZE, description, masks=False
    ):
        boxes = attempt(dataset.load_boxes, image_id)
        fault = next((each for each in (result, boxes) if isinstance(each, InputError)), None)
        if fault is not None:
            log.warning("%s", fault)
            continue
        num_images += 1
        comparison.add(boxes, [False] * len(boxes), result["rois"], result["scores"])
        if len(boxes):
            found.append(bool((result["scores"] >= score_threshold).any()))
    measured = _box_scores(comparison, found, num_images, score_threshold)
    return {**measured, "num_unreadable": len(samples) - num_images}


def evaluate_presence(
    detector: MaskRCNN, records: Sequence[ImageRecord], score_threshold: float, description: str = "evaluate"
) -> dict[str, Any]:
    """Share of images with a detection, for images that are known to show a cell and nothing more.

    The result has `detection_rate`, `num_images`, `num_unreadable` and `score_threshold`, as of `evaluate_boxes`.
    """
    found = []
    load, name = lambda record: read_image(record.path), lambda record: str(record.path)
    for _, _, result in detect_samples(detector, records, load, name, BATCH_SIZE, description, masks=False):
        if isinstance(result, InputError):
            log.warning("%s", result)
        else:
            found.append(bool((result["scores"] >= score_threshold).any()))
    return {
        "detection_rate": sum(found) / max(1, len(found)),
        "num_images": len(found),
        "num_unreadable": len(records) - len(found),
        "score_threshold": score_threshold,
    }


def choose_min_confidence(folder: Path, held_out: Sequence[Dataset], lowest: float) -> float:
    """Put the operating score, as of `choose_operating_score`, into a trained detector's settings, and return it.

    A detector trained with AUGMENTATION "strong" or "wide" is for stains that it did not see, where scores are lower:
    it is also shown each image under `NUM_SHIFTS` changes of colour.

    Args:
        folder: of the detector. Its DETECTION_MIN_CONFIDENCE stays as it is if no cell is found.
        held_out: images with masks that it was not trained on.
        lowest: score that detections must have to be looked at.
    """
    detector = load_detector(folder, {"DETECTION_MIN_CONFIDENCE": lowest})
    if detector.config.AUGMENTATION in ("strong", "wide"):
        held_out = [*held_out, *(ColourShifted(dataset, NUM_SHIFTS) for dataset in held_out)]
    chosen = measure_operating_score(detector, held_out)
    known = read_settings(folder)
    if chosen is None:
        log.warning("%s: no cell was found on the held-out images; DETECTION_MIN_CONFIDENCE stays as it is", folder)
        return known["DETECTION_MIN_CONFIDENCE"]
    chosen = round(chosen, 4)
    log.info("detections count from a score of %g on, chosen on the held-out images", chosen)
    write_json(folder / CONFIG_NAME, {**known, "DETECTION_MIN_CONFIDENCE": chosen})
    return chosen


def measure_operating_score(detector: MaskRCNN, datasets: Sequence[Dataset]) -> float | None:
    """The operating score, as of `choose_operating_score`, on images with masks that were not trained on.

    The detector has a low `DETECTION_MIN_CONFIDENCE`; boxes count as found from an IoU of 0.5 on. The InputError of an
    image that it does not take names it.
    """
    comparison = Comparison("bbox")
    for _, result, truth, is_crowd in _on_masks(detector, datasets, "operating score", masks=False):
        comparison.add(extract_bboxes(truth), is_crowd, result["rois"], result["scores"])
    return choose_operating_score(*comparison.matches(), float(detector.config.DETECTION_MIN_CONFIDENCE))


def choose_operating_score(
    scores: np.ndarray, correct: np.ndarray, num_cells: int, lowest: float = 0.0
) -> float | None:
    """The middle of the widest gap between scores in which F1, the harmonic mean of precision and recall, is highest.

    Args:
        scores: float64 array of shape (num_detections,), in [0, 1].
        correct: bool array of shape (num_detections,), whether each found a cell that no better one has found.
        num_cells: cells that there were to find.
        lowest: the score below which the detector gave nothing.

    Returns:
        The score, or None if no detection is correct.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(correct[order])
    if not len(hits) or not hits[-1]:
        return None
    f1 = 2.0 * hits / (np.arange(1, len(hits) + 1) + num_cells)
    gaps = ordered - np.append(ordered[1:], min(lowest, ordered[-1]))
    f1 = np.where(gaps > 0, f1, 0.0)  # equal scores count together or not at all
    best = np.flatnonzero(np.isclose(f1, f1.max(), rtol=1e-9, atol=0.0))
    last = best[np.argmax(gaps[best])]
    return float(ordered[last] - gaps[last] / 2)


def _on_masks(
    detector: MaskRCNN, datasets: Sequence[Dataset], description: str, **options: bool
) -> Iterator[tuple[tuple[Dataset, int], Result, np.ndarray, list[bool]]]:
    """For each image, a dataset and its image_id, what is found, its masks, and which of them are crowds."""
    samples = [(dataset, image_id) for dataset in datasets for image_id in dataset.image_ids]
    for (dataset, image_id), _, result in detect_samples(
        detector, samples, lambda s: s[0].load_image(s[1]), lambda s: image_name(*s), BATCH_SIZE, description, **options
    ):
        if isinstance(result, InputError):
            raise result
        masks, class_ids = dataset.load_mask(image_id)
        yield (dataset, image_id), result, masks, (np.asarray(class_ids) < 0).tolist()


def _box_scores(boxes: Comparison, found: list[bool], num_images: int, score_threshold: float) -> dict[str, Any]:
    precision, recall = boxes.precision_recall(score_threshold)
    return {
        **_average_precision(boxes, "box"),
        "precision": precision,
        "recall": recall,
        "detection_rate": sum(found) / max(1, len(found)),
        "num_images": num_images,
        "num_cells": boxes.matches()[2],
        "score_threshold": score_threshold,
    }


def _average_precision(comparison: Comparison, name: str) -> dict[str, float | None]:
    return {f"{name}_{measure}": value for measure, value in comparison.summary().items()}
