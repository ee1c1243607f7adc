import numpy as np
import pytest

from mrcnn.matterport.generator import generate_random_rois

SHAPE = (120, 200, 3)
TRUTH = np.array([[10, 20, 40, 60], [70, 100, 110, 190]])
IDS = np.array([1, 2])


def make(count=400, ids=IDS, truth=TRUTH, seed=0) -> np.ndarray:
    return generate_random_rois(SHAPE, count, ids, truth, np.random.default_rng(seed))


@pytest.mark.parametrize("truth", [TRUTH, np.array([[119, 199, 120, 200], [0, 0, 1, 1]])])
@pytest.mark.parametrize("count", [1, 400])
def test_random_rois_lie_in_the_image_and_have_area(count, truth):
    rois = make(count, truth=truth)
    assert rois.shape == (count, 4) and rois.dtype == np.int32
    assert (rois[:, 2:] > rois[:, :2]).all() and (rois >= 0).all() and (rois[:, 2:] <= SHAPE[:2]).all()


def test_random_rois_lie_around_each_cell_and_some_anywhere():
    rois = make(1000)
    size = np.tile(TRUTH[:, 2:] - TRUTH[:, :2], 2)
    low, high = np.tile(TRUTH[:, :2], 2) - size, np.tile(TRUTH[:, 2:], 2) + size
    near = ((rois >= np.maximum(low, 0)[:, np.newaxis]) & (rois <= high[:, np.newaxis])).all(axis=2)
    assert near[:, :900].any(axis=0).all() and (near.sum(axis=1) >= 450).all()
    assert (~near.any(axis=0)).sum() > 10


def test_random_rois_without_cells_lie_anywhere():
    rois = make(2000, IDS[:0], TRUTH[:0])
    np.testing.assert_allclose((rois[:, :2] + rois[:, 2:]).mean(axis=0) / 2, [60, 100], atol=5)


@pytest.mark.parametrize("second", [0, -1])
def test_random_rois_leave_padding_and_crowds_out_and_follow_their_seed(second):
    np.testing.assert_array_equal(make(300, np.array([1, second])), make(300, IDS[:1], TRUTH[:1]))
    assert not np.array_equal(make(seed=1), make(seed=2))
