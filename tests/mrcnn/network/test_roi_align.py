import numpy as np
import pytest
import tensorflow as tf

from mrcnn.network.boxes import normalized_boxes
from mrcnn.network.roi_align import PyramidROIAlign, assign_levels, crop_bins

SHAPE = (768, 512)
LEVELS = (2, 3, 4, 5)


def slow_bilinear(feature_map: np.ndarray, row: float, column: float) -> np.ndarray:
    """Value of `(height, width, channels)` between the cells around (row, column), cell 0 lying at 0."""
    height, width = feature_map.shape[:2]
    top, left = int(np.floor(row)), int(np.floor(column))
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = row - top, column - left
    upper = (1 - dx) * feature_map[top, left] + dx * feature_map[top, right]
    lower = (1 - dx) * feature_map[bottom, left] + dx * feature_map[bottom, right]
    return (1 - dy) * upper + dy * lower


def slow_bins(feature_map: np.ndarray, box: np.ndarray, pool: int) -> np.ndarray:
    """The centres of `pool` x `pool` bins of a box in cells, cell i reaching from i to i + 1; the border repeated."""
    height, width = feature_map.shape[:2]
    y1, x1, y2, x2 = box
    rows = y1 + (np.arange(pool) + 0.5) * (y2 - y1) / pool - 0.5
    columns = x1 + (np.arange(pool) + 0.5) * (x2 - x1) / pool - 0.5
    rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    return np.array([[slow_bilinear(feature_map, y, x) for x in columns] for y in rows])


def slow_grid(feature_map: np.ndarray, box: np.ndarray, pool: int) -> np.ndarray:
    """The grid whose outer points lie on a normalised box, 0 to 1 going from the first to the last cell."""
    height, width = feature_map.shape[:2]
    y1, x1, y2, x2 = box
    rows = y1 * (height - 1) + np.arange(pool) * (y2 - y1) * (height - 1) / (pool - 1)
    columns = x1 * (width - 1) + np.arange(pool) * (x2 - x1) * (width - 1) / (pool - 1)
    return np.array([[slow_bilinear(feature_map, y, x) for x in columns] for y in rows])


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
    [
        (0, 2, 2),
        (1, 2, 2),
        (28, 2, 2),
        (56, 2, 2),
        (79, 2, 2),
        (80, 2, 3),
        (111, 2, 3),
        (112, 3, 3),
        (158, 3, 3),
        (159, 3, 4),
        (223, 3, 4),
        (224, 4, 4),
        (316, 4, 4),
        (317, 4, 5),
        (447, 4, 5),
        (448, 5, 5),
        (2000, 5, 5),
    ],
)
def test_assign_levels_known_answers(side, paper, matterport):
    box = tf.constant([[0.0, 0.0, side, side]])
    assert int(assign_levels(box, "paper")[0]) == paper
    assert int(assign_levels(box, "matterport")[0]) == matterport


def test_assign_levels_go_by_the_area():
    boxes = tf.constant([[0.0, 0.0, 112.0, 448.0], [10.0, 10.0, 10.0, 500.0], [0.0, 0.0, 56.0, 224.0]])
    np.testing.assert_array_equal(assign_levels(boxes), [4, 2, 3])


def test_roi_align_of_the_paper_equals_a_plain_sampler(feature_maps, pixel_rois):
    boxes, images = pixel_rois
    layer = PyramidROIAlign(7, "paper")
    crops = layer(normalized_boxes(boxes, SHAPE), images, feature_maps, image_shape=SHAPE).numpy()
    levels = [slow_level(box[2:] - box[:2], "paper") for box in boxes]
    assert set(levels) == set(LEVELS)
    for crop, box, level, image in zip(crops, boxes, levels, images, strict=True):
        np.testing.assert_allclose(crop, slow_bins(feature_maps[level - 2][image], box / 2**level, 7), atol=1e-3)


@pytest.mark.parametrize("pool", [7, 14])
def test_roi_align_of_matterport_equals_a_plain_sampler(feature_maps, pixel_rois, pool):
    boxes, images = pixel_rois
    rois = normalized_boxes(boxes, SHAPE).numpy()
    crops = PyramidROIAlign(pool, "matterport")(rois, images, feature_maps, image_shape=SHAPE).numpy()
    # Its boxes are measured by their normalised size.
    levels = [slow_level((roi[2:] - roi[:2]) * SHAPE, "matterport") for roi in rois]
    assert set(levels) == set(LEVELS)
    for crop, roi, level, image in zip(crops, rois, levels, images, strict=True):
        np.testing.assert_allclose(crop, slow_grid(feature_maps[level - 2][image], roi, pool), atol=1e-3)


def test_roi_align_rules_differ(feature_maps, pixel_rois):
    boxes, images = pixel_rois
    rois = normalized_boxes(boxes, SHAPE)
    crops = [
        PyramidROIAlign(7, rule)(rois, images, feature_maps, image_shape=SHAPE) for rule in ("paper", "matterport")
    ]
    assert all(not np.allclose(a, b, atol=0.1) for a, b in zip(*crops, strict=True))


@pytest.mark.parametrize("rule", ["paper", "matterport"])
def test_roi_align_takes_sizes_that_are_known_at_run_time_only(feature_maps, pixel_rois, rule):
    boxes, images = pixel_rois
    rois, layer = normalized_boxes(boxes, SHAPE), PyramidROIAlign(7, rule)
    signature = [
        tf.TensorSpec((None, 4), tf.float32),
        tf.TensorSpec((None,), tf.int32),
        [tf.TensorSpec((None, None, None, 3), tf.float32)] * 4,
        tf.TensorSpec((2,), tf.int32),
    ]
    compiled = tf.function(lambda *arguments: layer(*arguments), input_signature=signature)
    expected = layer(rois, images, feature_maps, image_shape=SHAPE)
    np.testing.assert_allclose(compiled(rois, images, feature_maps, tf.constant(SHAPE)), expected, atol=1e-4)


def test_roi_align_of_the_whole_image_reaches_the_border(feature_maps):
    whole = np.array([[0, 0, 1, 1]], np.float32)
    crop = PyramidROIAlign(14, "paper")(whole, np.zeros(1, np.int32), feature_maps, image_shape=SHAPE)
    np.testing.assert_allclose(crop[0], slow_bins(feature_maps[3][0], np.array([0, 0, 24, 16]), 14), atol=1e-4)
    crop = PyramidROIAlign(14, "matterport")(whole, np.zeros(1, np.int32), feature_maps, image_shape=SHAPE)
    corners = crop.numpy()[0][[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(corners, feature_maps[3][0][[0, 0, -1, -1], [0, -1, 0, -1]], atol=1e-4)


def test_crop_bins_on_whole_cells_copies_them():
    feature_map = np.arange(48, dtype=np.float32).reshape(1, 6, 8, 1)
    crop = crop_bins(feature_map, tf.constant([[1.0, 2.0, 4.0, 5.0]]), tf.constant([0]), 3)
    np.testing.assert_allclose(crop[0], feature_map[0, 1:4, 2:5], atol=1e-4)


def test_crop_bins_repeats_the_border():
    feature_map = np.array([[[[1.0], [5.0]], [[1.0], [5.0]]]], np.float32)
    crop = crop_bins(feature_map, tf.constant([[0.0, 0.0, 2.0, 2.0]]), tf.constant([0]), 8).numpy()
    np.testing.assert_allclose(crop[0, 0, :, 0], [1, 1, 1.5, 2.5, 3.5, 4.5, 5, 5], atol=1e-5)


@pytest.mark.parametrize("rule", ["paper", "matterport"])
def test_roi_align_without_rois_is_empty(feature_maps, rule):
    layer = PyramidROIAlign(7, rule)
    crops = layer(np.zeros((0, 4), np.float32), np.zeros(0, np.int32), feature_maps, image_shape=SHAPE)
    assert crops.shape == (0, 7, 7, 3)


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


def test_roi_align_round_trip():
    layer = PyramidROIAlign(7, "matterport", name="align")
    again = PyramidROIAlign.from_config(layer.get_config())
    assert again.get_config() == layer.get_config() and again.rule == "matterport"
    maps = [tf.zeros((2, 16, 24, 5))]
    assert layer.compute_output_spec(tf.zeros((9, 4)), tf.zeros(9), maps, (64, 96)).shape == (9, 7, 7, 5)


def test_roi_align_refuses_another_rule():
    with pytest.raises(ValueError, match="matterport, paper; got 'torch'"):
        PyramidROIAlign(7, "torch")
