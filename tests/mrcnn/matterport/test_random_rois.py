import numpy as np
import pytest

from mrcnn.matterport.generator import generate_random_rois
from mrcnn.metrics import box_iou_matrix

SHAPE = (120, 200, 3)
TRUTH = np.array([[10, 20, 40, 60], [70, 100, 110, 190]])
IDS = np.array([1, 2])


def make(count=400, ids=IDS, truth=TRUTH, seed=0, shape=SHAPE) -> np.ndarray:
    return generate_random_rois(shape, count, ids, truth, np.random.default_rng(seed))


@pytest.mark.parametrize("count", [1, 7, 400])
def test_generate_random_rois_lie_in_the_image_and_have_area(count):
    rois = make(count)
    assert rois.shape == (count, 4) and rois.dtype == np.int32
    assert (rois[:, 2:] > rois[:, :2]).all() and (rois >= 0).all()
    assert (rois[:, 2] <= 120).all() and (rois[:, 3] <= 200).all()


def within_one_size(rois, truth) -> np.ndarray:
    """Whether both corners of each box lie within one box size of those of a true one, cut at the border."""
    size = np.tile(truth[2:] - truth[:2], 2)
    low = np.concatenate([truth[:2], truth[:2]]) - size
    high = np.concatenate([truth[2:], truth[2:]]) + size
    return ((rois >= np.maximum(low, 0)) & (rois <= high)).all(axis=1)


def test_generate_random_rois_lie_around_each_cell_and_some_anywhere():
    rois = make(1000)
    near = np.stack([within_one_size(rois, truth) for truth in TRUTH])
    assert near[:, :900].any(axis=0).all()
    assert (near.sum(axis=1) >= 450).all()
    assert (~near.any(axis=0)).sum() > 10


def test_generate_random_rois_hold_positives_and_negatives_of_every_cell():
    overlaps = box_iou_matrix(make(1000), TRUTH)
    assert ((overlaps >= 0.5).sum(axis=0) >= 10).all()
    assert (overlaps.max(axis=1) < 0.5).sum() >= 300


def test_generate_random_rois_without_cells_lie_anywhere():
    rois = make(2000, IDS[:0], TRUTH[:0])
    centres = (rois[:, :2] + rois[:, 2:]) / 2
    np.testing.assert_allclose(centres.mean(axis=0), [60, 100], atol=5)
    assert (rois[:, :2].min(axis=0) <= 2).all() and rois[:, 2].max() > 115 and rois[:, 3].max() > 195


@pytest.mark.parametrize(
    ("ids", "truth"),
    [
        (np.array([1, 0, 0]), np.array([[10, 20, 40, 60], [0, 0, 0, 0], [0, 0, 0, 0]])),  # padding
        (np.array([1, -1]), np.array([[10, 20, 40, 60], [70, 100, 110, 190]])),  # a crowd
    ],
)
def test_generate_random_rois_leave_padding_and_crowds_out(ids, truth):
    np.testing.assert_array_equal(make(300, ids, truth), make(300, IDS[:1], TRUTH[:1]))


def test_generate_random_rois_of_a_cell_of_one_pixel_have_area():
    rois = make(300, IDS[:1], np.array([[119, 199, 120, 200]]))
    assert (rois[:, 2:] > rois[:, :2]).all() and (rois[:, 2] <= 120).all() and (rois[:, 3] <= 200).all()


def test_generate_random_rois_follow_their_seed():
    np.testing.assert_array_equal(make(seed=1), make(seed=1))
    assert not np.array_equal(make(seed=1), make(seed=2))
