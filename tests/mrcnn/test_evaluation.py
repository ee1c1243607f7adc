import numpy as np
import pytest

from mrcnn.annotations.label_masks import VocBoxDataset
from mrcnn.data.images import read_image
from mrcnn.data.masks import extract_bboxes
from mrcnn.evaluation import evaluate_boxes, evaluate_masks, evaluate_presence
from mrcnn.files.errors import InputError

XML = """<annotation><object><name>WBC</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>
<xmax>{x2}</xmax><ymax>{y2}</ymax>
</bndbox></object></annotation>"""


class Oracle:
    """Answers with masks that it is told, in the order that images come in."""

    def __init__(self, masks, score=0.95):
        self.masks, self.score, self.seen = list(masks), score, 0

    def detect(self, images, masks=True, paste=True):
        results = []
        for image in images:
            mask = self.masks[self.seen]
            self.seen += 1
            assert mask.shape[:2] == image.shape[:2]
            count = mask.shape[-1]
            result = {"rois": extract_bboxes(mask), "scores": np.full(count, self.score, np.float32)}
            results.append(result | ({"masks": mask} if masks else {}))
        return results


@pytest.fixture
def datasets(cell_dataset):
    return [cell_dataset(3), cell_dataset(2, first_seed=20, size=48)]


def true_masks(datasets):
    return [dataset.load_mask(i)[0] for dataset in datasets for i in dataset.image_ids]


def evaluate(datasets, detector, **settings):
    return evaluate_masks(detector, datasets, 0.7, **{"batch_size": 2} | settings)


def test_evaluate_masks_of_a_perfect_detector(datasets):
    measured = evaluate(datasets, Oracle(true_masks(datasets)))
    ones = ("box_ap50", "box_map", "mask_ap50", "mask_map", "precision", "recall", "detection_rate")
    assert {name: measured.pop(name) for name in ones} == dict.fromkeys(ones, 1.0)
    assert measured == {"num_images": 5, "num_cells": 5, "score_threshold": 0.7}


def test_evaluate_masks_of_a_blind_detector(datasets):
    blind = Oracle(mask[..., :0] for mask in true_masks(datasets))
    measured = evaluate(datasets, blind)
    assert measured["box_map"] == measured["mask_map"] == measured["recall"] == measured["detection_rate"] == 0.0


def test_evaluate_masks_operating_point_ignores_weak_detections(datasets):
    measured = evaluate(datasets, Oracle(true_masks(datasets), score=0.3))
    assert measured["mask_map"] == 1.0 and measured["recall"] == 0.0 and measured["detection_rate"] == 0.0


def test_evaluate_masks_looks_at_masks_not_at_boxes_alone(datasets):
    hollow = []
    for mask in true_masks(datasets):
        frame = np.zeros_like(mask)
        y1, x1, y2, x2 = extract_bboxes(mask)[0]
        frame[y1:y2, x1], frame[y1:y2, x2 - 1], frame[y1, x1:x2], frame[y2 - 1, x1:x2] = (
            True,
            True,
            True,
            True,
        )
        hollow.append(frame)
    measured = evaluate(datasets, Oracle(hollow))
    assert measured["box_map"] == 1.0 and measured["mask_ap50"] == 0.0


def test_evaluate_masks_counts_what_is_found_on_images_without_a_cell(cell_dataset):
    class HalfEmpty(type(cell_dataset(1))):
        def load_mask(self, image_id):
            masks, class_ids = super().load_mask(image_id)
            return (masks, class_ids) if image_id < 2 else (masks[..., :0], class_ids[:0])

    dataset = HalfEmpty(4)
    drawn = true_masks([cell_dataset(4)])
    seen = evaluate([dataset], Oracle([*drawn[:3], drawn[3][..., :0]]))
    assert (seen["num_images"], seen["num_cells"]) == (4, 2)
    assert seen["precision"] == pytest.approx(2 / 3) and seen["recall"] == 1.0 and seen["detection_rate"] == 1.0
    right = evaluate([dataset], Oracle(true_masks([dataset])))
    assert right["precision"] == right["mask_map"] == right["detection_rate"] == 1.0


def test_evaluate_boxes_counts_what_it_cannot_read(cell_records, draw_cell, tmp_path):
    masks = [draw_cell(i)[1] for i in range(6)]
    for record, mask in zip(cell_records, masks, strict=True):
        y1, x1, y2, x2 = extract_bboxes(mask)[0]
        text = "broken" if record.key == "4.png" else XML.format(y1=y1, x1=x1, y2=y2, x2=x2)
        (tmp_path / f"{record.path.stem}.xml").write_text(text)
    dataset = VocBoxDataset(cell_records, tmp_path)
    oracle = Oracle(masks[i] for i in (0, 1, 3, 5))
    measured = evaluate_boxes(oracle, dataset, 0.7, batch_size=2)
    assert measured["box_ap50"] == 1.0 and measured["recall"] == 1.0
    assert measured["num_images"] == 4 and measured["num_unreadable"] == 2 and "mask_map" not in measured


def test_evaluate_presence_is_the_share_of_images_with_a_detection(cell_records, draw_cell):
    masks = [draw_cell(i)[1] for i in (0, 1, 3, 4, 5)]
    masks[1] = masks[1][..., :0]
    measured = evaluate_presence(Oracle(masks), cell_records, 0.7, batch_size=4)
    assert measured == {"detection_rate": 0.8, "num_images": 5, "num_unreadable": 1, "score_threshold": 0.7}


def test_evaluate_presence_without_images():
    assert evaluate_presence(Oracle([]), [], 0.7)["detection_rate"] == 0.0


class Choosy(Oracle):
    """Takes no image that is the fourth one drawn, as a network with fixed sides takes none of another size."""

    def __init__(self, masks, refused):
        super().__init__(masks)
        self.refused = refused

    def detect(self, images, masks=True, paste=True):
        if any(np.array_equal(image, self.refused) for image in images):
            raise InputError("an image of this size is not taken")
        return super().detect(images, masks=masks, paste=paste)


def test_evaluate_masks_names_the_image_that_the_detector_does_not_take(datasets):
    choosy = Choosy(true_masks(datasets), datasets[1].load_image(1))
    with pytest.raises(InputError, match="an image of this size is not taken") as caught:
        evaluate(datasets, choosy)
    name = datasets[1].image_info[1]["path"] or datasets[1].image_reference(1)
    assert str(caught.value).startswith(f"{name}: ")


def test_evaluation_counts_and_names_what_the_detector_does_not_take(cell_records, draw_cell, tmp_path, caplog):
    drawn = [draw_cell(i) for i in range(6)]
    boxes = [extract_bboxes(mask)[0] for _, mask, *_ in drawn]
    for record, (y1, x1, y2, x2) in zip(cell_records, boxes, strict=True):
        (tmp_path / f"{record.path.stem}.xml").write_text(XML.format(y1=y1, x1=x1, y2=y2, x2=x2))
    masks = [mask for _, mask, *_ in drawn]

    def choosy():
        return Choosy((masks[i] for i in (0, 1, 4, 5)), read_image(cell_records[3].path))

    dataset = VocBoxDataset(cell_records, tmp_path)
    measured = evaluate_boxes(choosy(), dataset, 0.7, batch_size=6)
    assert (measured["num_images"], measured["num_unreadable"], measured["box_ap50"]) == (4, 2, 1.0)
    assert f"{cell_records[3].path}: an image of this size is not taken" in caplog.text
    measured = evaluate_presence(choosy(), cell_records, 0.7, batch_size=6)
    assert measured == {"detection_rate": 1.0, "num_images": 4, "num_unreadable": 2, "score_threshold": 0.7}
