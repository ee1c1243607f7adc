"""How good a detector is on images whose cells are known, or at least known to be there."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.annotations.label_masks import VocBoxDataset
from mrcnn.data.dataset import Dataset
from mrcnn.data.images import read_image
from mrcnn.data.masks import extract_bboxes
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError
from mrcnn.files.progress import Bar
from mrcnn.metrics import (
    box_iou_matrix,
    detection_rate,
    match_detections,
    mean_average_precision,
    precision_recall_at_score,
)
from mrcnn.model import MaskRCNN

log = logging.getLogger(__name__)


def evaluate_masks(
    detector: MaskRCNN,
    datasets: Sequence[Dataset],
    score_threshold: float,
    *,
    batch_size: int = 8,
    description: str = "evaluate",
) -> dict[str, Any]:
    """Compare detections with instance masks.

    Args:
        detector: opened with a low `DETECTION_MIN_CONFIDENCE`, so that the precision-recall curve has its tail.
        datasets: images with masks; what is found on images without a cell is wrong.
        score_threshold: the operating score, for precision, recall and the detection rate.
        batch_size: images in a batch.
        description: of the bar.

    Returns:
        `box_ap50`, `box_map`, `mask_ap50`, `mask_map` (IoU 0.5:0.95; None without cells), `precision`, `recall`
        (boxes at IoU 0.5),
        `detection_rate` (share of the images with a cell that have a detection at the operating score), `num_images`,
        `num_cells`, `score_threshold`.

    Raises:
        InputError: naming the image, if one cannot be read, or is of a size or type that the detector does not take.
    """
    truth: dict[str, list] = {"gt_boxes": [], "gt_masks": []}
    found: dict[str, list] = {"pred_boxes": [], "scores": [], "pred_masks": []}
    samples = [(dataset, image_id) for dataset in datasets for image_id in dataset.image_ids]
    for batch in _batches(samples, batch_size, description):
        images = [dataset.load_image(image_id) for dataset, image_id in batch]
        names = [image_name(dataset, image_id) for dataset, image_id in batch]
        results = detect_each(detector, images, names)
        for (dataset, image_id), result in zip(batch, results, strict=True):
            if isinstance(result, InputError):
                raise result
            masks, _ = dataset.load_mask(image_id)
            truth["gt_boxes"].append(extract_bboxes(masks))
            truth["gt_masks"].append(masks)
            found["pred_boxes"].append(result["rois"])
            found["scores"].append(result["scores"])
            found["pred_masks"].append(result["masks"])
    boxes = (truth["gt_boxes"], found["pred_boxes"], found["scores"])
    scores = _box_scores(*boxes, score_threshold)
    mask_scores = mean_average_precision(*boxes, gt_masks=truth["gt_masks"], pred_masks=found["pred_masks"])
    return {**scores, "mask_ap50": _measured(mask_scores["AP50"]), "mask_map": _measured(mask_scores["mAP"])}


def evaluate_boxes(
    detector: MaskRCNN,
    dataset: VocBoxDataset,
    score_threshold: float,
    *,
    batch_size: int = 8,
    description: str = "evaluate",
) -> dict[str, Any]:
    """Compare detections with boxes; arguments and result as of `evaluate_masks`, less the masks.

    Images or annotations that cannot be read, and images that the detector does not take, are counted as
    `num_unreadable`, with a warning for each.
    """
    truth, found, scores, unreadable = [], [], [], 0
    for batch in _batches(list(dataset.image_ids), batch_size, description):
        images, known, names = [], [], []
        for image_id in batch:
            try:
                image, boxes = dataset.load_image(image_id), dataset.load_boxes(image_id)
            except InputError as error:
                log.warning("%s", error)
                unreadable += 1
                continue
            images.append(image)
            known.append(boxes)
            names.append(image_name(dataset, image_id))
        for boxes, result in zip(known, detect_each(detector, images, names, masks=False), strict=True):
            if isinstance(result, InputError):
                log.warning("%s", result)
                unreadable += 1
                continue
            truth.append(boxes)
            found.append(result["rois"])
            scores.append(result["scores"])
    return {**_box_scores(truth, found, scores, score_threshold), "num_unreadable": unreadable}


def evaluate_presence(
    detector: MaskRCNN,
    records: Sequence[ImageRecord],
    score_threshold: float,
    *,
    batch_size: int = 8,
    description: str = "evaluate",
) -> dict[str, Any]:
    """Share of images with a detection, for images that are known to show a cell and nothing more.

    Returns:
        `detection_rate`, `num_images` (readable ones that the detector takes), `num_unreadable` (the others, with a
        warning for each), `score_threshold`.
    """
    hits, unreadable = [], 0
    for batch in _batches(list(records), batch_size, description):
        images, names = [], []
        for record in batch:
            try:
                images.append(read_image(record.path))
                names.append(str(record.path))
            except InputError as error:
                log.warning("%s", error)
                unreadable += 1
        for result in detect_each(detector, images, names, masks=False):
            if isinstance(result, InputError):
                log.warning("%s", result)
                unreadable += 1
            else:
                hits.append(bool((result["scores"] >= score_threshold).any()))
    return {
        "detection_rate": float(np.mean(hits)) if hits else 0.0,
        "num_images": len(hits),
        "num_unreadable": unreadable,
        "score_threshold": score_threshold,
    }


def detect_each(
    detector: MaskRCNN, images: Sequence[np.ndarray], names: Sequence[str], **options: bool
) -> list[dict[str, np.ndarray] | InputError]:
    """Detect, and go on where the detector does not take an image.

    Args:
        detector: for inference.
        images: as of `MaskRCNN.detect`.
        names: of the images, for messages.
        **options: further arguments of `MaskRCNN.detect`.

    Returns:
        For each image what `MaskRCNN.detect` gives, or the error that says why it was not taken, with its name.
    """
    if not images:
        return []
    try:
        return detector.detect(images, **options)
    except InputError as error:
        if len(images) == 1:
            return [InputError(f"{names[0]}: {error}")]
    # One of them; the message does not know its name.
    return [detect_each(detector, [image], [name], **options)[0] for image, name in zip(images, names, strict=True)]


def image_name(dataset: Dataset, image_id: int) -> str:
    """What to call an image in a message: its file, where it is one."""
    return str(dataset.image_info[image_id].get("path") or dataset.image_reference(image_id))


def _box_scores(truth: list, found: list, scores: list, score_threshold: float) -> dict[str, Any]:
    precision = mean_average_precision(truth, found, scores)
    operating = precision_recall_at_score(truth, found, scores, score_threshold=score_threshold)
    rate = detection_rate(truth, found, scores, score_threshold=score_threshold)
    return {
        "box_ap50": _measured(precision["AP50"]),
        "box_map": _measured(precision["mAP"]),
        "precision": operating["precision"],
        "recall": operating["recall"],
        "detection_rate": rate["images"],
        "num_images": len(truth),
        "num_cells": int(operating["num_cells"]),
        "score_threshold": score_threshold,
    }


def _measured(value: float) -> float | None:
    """None where there was no cell to measure on, since JSON has no NaN."""
    return None if math.isnan(value) else value


def _batches(items: list, size: int, description: str):
    with Bar(total=len(items), desc=description, unit="image") as bar:
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            yield batch
            bar.update(len(batch))


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
