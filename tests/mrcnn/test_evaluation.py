import numpy as np
import pytest

from mrcnn.annotations.voc import VocBoxDataset
from mrcnn.data.images import read_image
from mrcnn.data.masks import extract_bboxes
from mrcnn.evaluation import (
    choose_operating_score,
    evaluate_boxes,
    evaluate_masks,
    evaluate_presence,
    measure_operating_score,
)
from mrcnn.files.errors import InputError

XML = """<annotation><object><name>WBC</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>
<xmax>{x2}</xmax><ymax>{y2}</ymax>
</bndbox></object></annotation>"""


class Oracle:
    """Finds the masks that it is told, in the order that images come in; takes no image that is `refused`."""

    class config:
        DETECTION_MIN_CONFIDENCE = 0.05
        MASK_PARTS = ("cell",)

    def __init__(self, masks, score=0.95, refused=None):
        self.masks, self.score, self.refused = iter(masks), score, refused

    def detect(self, images, masks=True, paste=True):
        if self.refused is not None and any(np.array_equal(image, self.refused) for image in images):
            raise InputError("an image of this size is not taken")
        results = []
        for image in images:
            mask = next(self.masks)
            assert mask.shape[:2] == image.shape[:2]
            result = {"rois": extract_bboxes(mask), "scores": np.full(mask.shape[-1], self.score, np.float32)}
            results.append(result | ({"masks": mask} if masks else {}))
        return results


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr("mrcnn.evaluation.BATCH_SIZE", 2)


@pytest.fixture
def datasets(cell_dataset):
    return [cell_dataset(3), cell_dataset(2, first_seed=20, size=48)]


def true_masks(datasets):
    return [dataset.load_mask(i)[0] for dataset in datasets for i in dataset.image_ids]


def changed(dataset, change):
    """The dataset with `change(image id, masks, class ids)` in the place of its masks."""
    load_mask = dataset.load_mask
    dataset.load_mask = lambda image_id: change(image_id, *load_mask(image_id))
    return dataset


def test_evaluate_masks_of_a_perfect_detector(datasets):
    measured = evaluate_masks(Oracle(true_masks(datasets)), datasets, 0.7)
    ones = ("box_ap50", "box_map", "mask_ap50", "mask_map", "precision", "recall", "detection_rate", "cell_dice")
    assert measured == {**dict.fromkeys(ones, 1.0), "num_images": 5, "num_cells": 5, "score_threshold": 0.7}


def test_evaluate_masks_looks_at_masks_not_at_boxes_alone(datasets):
    hollow = []
    for mask in true_masks(datasets):
        frame = np.zeros_like(mask)
        y1, x1, y2, x2 = extract_bboxes(mask)[0]
        frame[y1:y2, [x1, x2 - 1]] = frame[[y1, y2 - 1], x1:x2] = True
        hollow.append(frame)
    measured = evaluate_masks(Oracle(hollow), datasets, 0.7)
    assert measured["box_map"] == 1.0 and measured["mask_ap50"] == 0.0


def test_evaluate_masks_measures_the_parts_that_detector_and_dataset_know(cell_dataset):
    dataset = cell_dataset(3)
    cells = true_masks([dataset])
    nuclei = [np.where(np.arange(64)[:, np.newaxis, np.newaxis] % 2 == 0, cell, False) for cell in cells]

    class WithNuclei(Oracle):
        class config(Oracle.config):
            MASK_PARTS = ("cell", "nucleus")

        def detect(self, images, masks=True, paste=True):
            return [result | {"nucleus_masks": result["masks"]} for result in super().detect(images)]

    measured = evaluate_masks(WithNuclei(cells), [dataset], 0.7)
    assert measured["cell_dice"] == 1.0 and not any(name.startswith(("nucleus", "both")) for name in measured)
    dataset.load_parts = lambda image_id: {"nucleus": nuclei[image_id]}
    measured = evaluate_masks(WithNuclei(cells), [dataset], 0.7)
    ious = [np.count_nonzero(nucleus) / np.count_nonzero(cell) for nucleus, cell in zip(nuclei, cells, strict=True)]
    assert measured["nucleus_dice"] == pytest.approx(np.mean([2 * iou / (1 + iou) for iou in ious]))
    assert measured["both_parts"] == pytest.approx(np.mean([iou >= 0.5 for iou in ious]))
    assert "nucleus_dice" not in evaluate_masks(Oracle(cells), [dataset], 0.7)


def test_evaluate_masks_counts_what_is_found_on_images_without_a_cell(cell_dataset):
    dataset = changed(cell_dataset(4), lambda i, masks, ids: (masks, ids) if i < 2 else (masks[..., :0], ids[:0]))
    drawn = true_masks([cell_dataset(4)])
    seen = evaluate_masks(Oracle([*drawn[:3], drawn[3][..., :0]]), [dataset], 0.7)
    assert (seen["num_images"], seen["num_cells"]) == (4, 2)
    assert seen["precision"] == pytest.approx(2 / 3) and seen["recall"] == 1.0 and seen["detection_rate"] == 1.0
    right = evaluate_masks(Oracle(true_masks([dataset])), [dataset], 0.7)
    assert right["precision"] == right["mask_map"] == right["detection_rate"] == 1.0


def test_evaluate_presence_is_the_share_of_images_with_a_detection(cell_records, draw_cell):
    masks = [draw_cell(i)[1] for i in (0, 1, 3, 4, 5)]
    masks[1] = masks[1][..., :0]
    measured = evaluate_presence(Oracle(masks), cell_records, 0.7)
    assert measured == {"detection_rate": 0.8, "num_images": 5, "num_unreadable": 1, "score_threshold": 0.7}


def test_what_is_found_on_a_crowd_does_not_count(cell_dataset):
    dataset = changed(cell_dataset(2), lambda i, masks, ids: (masks, ids if i else -ids))
    measured = evaluate_masks(Oracle(true_masks([dataset])), [dataset], 0.7)
    assert (measured["num_images"], measured["num_cells"]) == (2, 1)
    names = ("box_ap50", "mask_map", "precision", "recall", "detection_rate")
    assert all(measured[name] == 1.0 for name in names)


def test_images_with_masks_that_the_detector_does_not_take_are_named(datasets):
    choosy = Oracle(true_masks(datasets), refused=datasets[1].load_image(1))
    name = datasets[1].image_info[1]["path"] or datasets[1].image_reference(1)
    with pytest.raises(InputError, match=f"^{name}: an image of this size is not taken"):
        evaluate_masks(choosy, datasets, 0.7)


def test_evaluation_counts_and_names_what_the_detector_does_not_take(cell_records, draw_cell, tmp_path, caplog):
    drawn = [draw_cell(i) for i in range(6)]
    boxes = [extract_bboxes(mask)[0] for _, mask, *_ in drawn]
    for record, (y1, x1, y2, x2) in zip(cell_records, boxes, strict=True):
        text = "broken" if record.image_id == "4.png" else XML.format(y1=y1, x1=x1, y2=y2, x2=x2)
        (tmp_path / f"{record.path.stem}.xml").write_text(text)
    masks = [mask for _, mask, *_ in drawn]

    def choosy():
        return Oracle((masks[i] for i in (0, 1, 4, 5)), refused=read_image(cell_records[3].path))

    dataset = VocBoxDataset(cell_records, tmp_path)
    measured = evaluate_boxes(choosy(), dataset, 0.7)
    assert (measured["num_images"], measured["num_unreadable"], measured["box_ap50"]) == (3, 3, 1.0)
    assert measured["recall"] == 1.0 and "mask_map" not in measured
    assert f"{cell_records[3].path}: an image of this size is not taken" in caplog.text
    measured = evaluate_presence(choosy(), cell_records, 0.7)
    assert measured == {"detection_rate": 1.0, "num_images": 4, "num_unreadable": 2, "score_threshold": 0.7}


def f1_at(score, scores, correct, num_cells) -> float:
    kept = np.asarray(scores) >= score
    return 2 * np.asarray(correct)[kept].sum() / (kept.sum() + num_cells)


@pytest.mark.parametrize(
    ("scores", "correct", "num_cells", "expected"),
    [
        # Wrong ones end at 0.6, right ones begin at 0.9, in any order.
        ([0.3, 0.9, 0.6, 0.99], [False, True, False, True], 2, 0.75),
        # Nothing is wrong: from the lowest score that there could be on.
        ([0.9, 0.8], [True, True], 2, 0.42),
        # One wrong detection costs less than the right one below it brings.
        ([0.9, 0.8, 0.7, 0.2], [True, False, True, False], 2, 0.45),
        # Two equal scores count together.
        ([0.9, 0.5, 0.5], [True, True, False], 2, 0.27),
    ],
)
def test_choose_operating_score_known_answers(scores, correct, num_cells, expected):
    chosen = choose_operating_score(np.array(scores), np.array(correct), num_cells, lowest=0.04)
    assert chosen == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_choose_operating_score_has_the_highest_f1_of_all(seed):
    rng = np.random.default_rng(seed)
    scores, correct = rng.uniform(0.1, 1, 30).round(2), rng.random(30) < 0.6
    chosen = choose_operating_score(scores, correct, 25, lowest=0.05)
    best = max(f1_at(score, scores, correct, 25) for score in np.linspace(0, 1, 1001))
    assert f1_at(chosen, scores, correct, 25) == pytest.approx(best)


def test_measure_operating_score_matches_each_cell_once(cell_dataset):
    class Finder(Oracle):
        """Finds every cell twice, the second time with a lower score, and a spot where nothing is."""

        def detect(self, images, masks):
            results = super().detect(images)
            rois = [np.array([*result["rois"], *result["rois"], [0, 0, 2, 2]]) for result in results]
            return [{"rois": boxes, "scores": np.array([0.95, 0.75, 0.4])} for boxes in rois]

    dataset = cell_dataset(3)
    finder = Finder(true_masks([dataset]))
    assert measure_operating_score(finder, [dataset]) == pytest.approx(0.85)
