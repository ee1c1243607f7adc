"""Masks that a detector draws itself."""

import cv2
import numpy as np
import pytest

from experiments.cells.self_training import draw_cells, write_pseudo_masks
from mrcnn.data.records import ImageRecord

SIDE = 60


class Thresholds:
    """Stands in for a detector: what is darker than 200 is cell, darker than 100 nucleus."""

    def __init__(self, doubts: int = 0):
        self.doubts = doubts  # views with a further, unsure detection

    def detect(self, images):
        """One detection for each dark part."""
        return [self._detect(image, number < self.doubts) for number, image in enumerate(images)]

    def _detect(self, image, doubts):
        count, labels = cv2.connectedComponents((image[..., 0] < 200).astype(np.uint8))
        masks = [labels == number for number in range(1, count)]
        scores = [0.9] * len(masks)
        if doubts:
            masks.append(np.pad(np.ones((8, 8), bool), ((0, SIDE - 8), (0, SIDE - 8))))
            scores.append(0.4)
        masks = np.stack(masks, axis=-1) if masks else np.zeros((SIDE, SIDE, 0), bool)
        nuclei = masks & (image[..., :1] < 100)
        return {"scores": np.array(scores, np.float32), "masks": masks, "nucleus_masks": nuclei}


def drawn(*middles):
    image = np.full((SIDE, SIDE, 3), 240, np.uint8)
    for y, x in middles:
        cv2.circle(image, (x, y), 9, (150, 150, 150), -1)
        cv2.circle(image, (x, y), 4, (60, 60, 60), -1)
    return image


@pytest.fixture
def records(tmp_path):
    """Images with a cell in the middle, with none there, and with two."""
    images = {"middle": drawn((30, 31)), "aside": drawn((14, 15)), "two": drawn((30, 30), (12, 12))}
    (tmp_path / "centre" / "images").mkdir(parents=True)
    for name, image in images.items():
        cv2.imwrite(str(tmp_path / "centre" / "images" / f"{name}.png"), image)
    root = tmp_path / "centre"
    return {name: ImageRecord(f"images/{name}.png", root / "images" / f"{name}.png") for name in images}


def test_draw_cells_gives_what_all_views_show():
    image = drawn((20, 38), (45, 15))
    cells = draw_cells(Thresholds(), image)
    assert len(cells) == 2
    together = np.any([cell.cell for cell in cells], axis=0)
    np.testing.assert_array_equal(together, image[..., 0] < 200)
    np.testing.assert_array_equal(np.any([cell.nucleus for cell in cells], axis=0), image[..., 0] < 100)


@pytest.mark.parametrize("views", [1, 4])
def test_draw_cells_gives_nothing_where_it_is_unsure(views):
    assert draw_cells(Thresholds(doubts=views), drawn((40, 40))) is None


def test_pseudo_masks_of_single_cells_are_those_of_a_cell_in_the_middle(records, tmp_path):
    taken = write_pseudo_masks(Thresholds(), [*records.values()], tmp_path / "out", None)
    assert taken == [records["middle"], records["two"]]
    labels = cv2.imread(str(tmp_path / "out" / "masks" / "images" / "two.png"), cv2.IMREAD_UNCHANGED)
    assert sorted(np.unique(labels)) == [0, 1, 2]
    assert not (tmp_path / "out" / "masks" / "images" / "aside.png").exists()


def test_pseudo_masks_of_fields_fit_the_boxes_of_their_cells(records, tmp_path):
    boxes = {
        "images/middle.png": np.array([[21, 22, 40, 41]]),
        "images/aside.png": np.array([[5, 6, 24, 25], [30, 30, 50, 50]]),  # one that is not found
        "images/two.png": np.array([[21, 21, 40, 40]]),  # one too many is found
    }
    assert write_pseudo_masks(Thresholds(), [*records.values()], tmp_path / "out", boxes) == [records["middle"]]


def test_images_known_to_be_empty_have_empty_masks(records, tmp_path):
    taken = write_pseudo_masks(Thresholds(), [], tmp_path / "out", None, empty=[records["aside"]])
    assert taken == [records["aside"]]
    for part in ("masks", "nuclei"):
        written = cv2.imread(str(tmp_path / "out" / part / "images" / "aside.png"), cv2.IMREAD_UNCHANGED)
        assert written.shape == (SIDE, SIDE)
        assert not written.any()
