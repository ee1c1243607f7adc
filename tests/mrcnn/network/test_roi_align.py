import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import map_coordinates

from mrcnn.network.boxes import normalized_boxes
from mrcnn.network.roi_align import PyramidROIAlign, assign_levels

SHAPE = (768, 512)


def sample(feature_map: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear values between the cells of `(height, width, channels)`, cell 0 lying at 0; the border is repeated."""
    grid = np.meshgrid(rows, columns, indexing="ij")
    channels = [map_coordinates(channel, grid, order=1, mode="nearest") for channel in np.moveaxis(feature_map, -1, 0)]
    return np.stack(channels, axis=-1)


def slow_bins(feature_map: np.ndarray, box: np.ndarray, pool: int) -> np.ndarray:
    """The centres of `pool` x `pool` bins of a box in cells, cell i reaching from i to i + 1."""
    y1, x1, y2, x2 = box
    bins = (np.arange(pool) + 0.5) / pool
    return sample(feature_map, y1 + bins * (y2 - y1) - 0.5, x1 + bins * (x2 - x1) - 0.5)


def slow_grid(feature_map: np.ndarray, box: np.ndarray, pool: int) -> np.ndarray:
    """The grid whose outer points lie on a normalised box, 0 to 1 going from the first to the last cell."""
    height, width = feature_map.shape[:2]
    y1, x1, y2, x2 = box
    return sample(feature_map, np.linspace(y1, y2, pool) * (height - 1), np.linspace(x1, x2, pool) * (width - 1))


def slow_level(size: np.ndarray, rule: str) -> int:
    """Lin et al. 2017, eq. 1, for (height, width) in pixels."""
    level = 4 + np.log2(np.sqrt(size[0] * size[1]) / 224)
    return int(np.clip(np.floor(level) if rule == "paper" else np.round(level), 2, 5))


@pytest.fixture(scope="module")
def feature_maps():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, SHAPE[0] // s, SHAPE[1] // s, 3)).astype(np.float32) for s in (4, 8, 16, 32)]


@pytest.fixture(scope="module")
def pixel_rois():
    """Boxes of all sizes, some on the border between two levels, in no order, and the images they lie in."""
    rng = np.random.default_rng(1)
    sides = np.array([[20, 30], [760, 500], [60, 200], [100, 120], [250, 230], [30, 500], [159, 159], [80, 80], [9, 3]])
    sides = np.concatenate([sides, rng.uniform(5, 500, (24, 2))])
    corners = rng.uniform(0, 1, sides.shape) * (np.array(SHAPE) - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    return boxes, rng.integers(0, 2, len(boxes)).astype(np.int32)


@pytest.mark.parametrize(
    ("side", "paper", "matterport"),
    [(0, 2, 2), (79, 2, 2), (80, 2, 3), (111, 2, 3), (112, 3, 3), (223, 3, 4), (224, 4, 4), (447, 4, 5), (2000, 5, 5)],
)
def test_assign_levels_known_answers(side, paper, matterport):
    box = tf.constant([[0.0, 0.0, side, side]])
    assert int(assign_levels(box, "paper")[0]) == paper
    assert int(assign_levels(box, "matterport")[0]) == matterport


@pytest.mark.parametrize(("rule", "pool"), [("paper", 7), ("matterport", 14)])
def test_roi_align_equals_a_plain_sampler(feature_maps, pixel_rois, rule, pool):
    boxes, images = pixel_rois
    rois = normalized_boxes(boxes, SHAPE).numpy()
    crops = PyramidROIAlign(pool, rule)(rois, images, feature_maps, image_shape=SHAPE).numpy()
    # Matterport's boxes are measured by their normalised size.
    measured = boxes if rule == "paper" else rois * np.tile(SHAPE, 2)
    levels = [slow_level(box[2:] - box[:2], rule) for box in measured]
    assert set(levels) == {2, 3, 4, 5}
    for crop, box, roi, level, image in zip(crops, boxes, rois, levels, images, strict=True):
        feature_map = feature_maps[level - 2][image]
        expected = (
            slow_bins(feature_map, box / 2**level, pool) if rule == "paper" else slow_grid(feature_map, roi, pool)
        )
        np.testing.assert_allclose(crop, expected, atol=1e-3)


@pytest.mark.parametrize("rule", ["paper", "matterport"])
def test_roi_align_gives_gradients_to_the_map_and_none_to_the_boxes(feature_maps, rule):
    maps = [tf.constant(m) for m in feature_maps]
    rois = tf.constant([[0.1, 0.1, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch([rois, *maps])
        total = tf.reduce_sum(PyramidROIAlign(7, rule)(rois, tf.constant([0, 1]), maps, image_shape=SHAPE))
    to_rois, to_finest, *_ = tape.gradient(total, [rois, *maps])
    assert to_rois is None
    assert np.isfinite(to_finest).all()
    np.testing.assert_allclose(tf.reduce_sum(to_finest), 2 * 49 * 3, rtol=1e-4)
