import numpy as np
import pytest
import tensorflow as tf

from mrcnn.network.boxes import normalized_boxes
from mrcnn.network.roi_align import PyramidROIAlign, assign_levels, crop_bins

SIZE = 512


def slow_bilinear(feature_map: np.ndarray, y: float, x: float) -> np.ndarray:
    """Value at a point of `(height, width, channels)`, cell i centred on i + 0.5, the border repeated."""
    height, width = feature_map.shape[:2]
    y, x = np.clip(y - 0.5, 0, height - 1), np.clip(x - 0.5, 0, width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = (1 - dx) * feature_map[top, left] + dx * feature_map[top, right]
    lower = (1 - dx) * feature_map[bottom, left] + dx * feature_map[bottom, right]
    return (1 - dy) * upper + dy * lower


def slow_align(feature_map: np.ndarray, box: np.ndarray, pool: int) -> np.ndarray:
    y1, x1, y2, x2 = box
    ys = y1 + (np.arange(pool) + 0.5) * (y2 - y1) / pool
    xs = x1 + (np.arange(pool) + 0.5) * (x2 - x1) / pool
    return np.array([[slow_bilinear(feature_map, y, x) for x in xs] for y in ys])


def slow_level(box: np.ndarray) -> int:
    """Lin et al. 2017, eq. 1, to the nearest level."""
    side = np.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    return int(np.clip(np.round(4 + np.log2(side / 224)), 2, 5))


@pytest.fixture(scope="module")
def feature_maps():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, SIZE // s, SIZE // s, 3)).astype(np.float32) for s in (4, 8, 16, 32)]


@pytest.mark.parametrize(
    ("side", "level"),
    [(1, 2), (28, 2), (56, 2), (112, 3), (224, 4), (448, 5), (2000, 5), (158, 3), (159, 4), (0, 2)],
)
def test_assign_levels_known_answers(side, level):
    assert int(assign_levels(tf.constant([[0.0, 0.0, side, side]]))[0]) == level


def test_roi_align_equals_a_plain_sampler(feature_maps):
    rng = np.random.default_rng(1)
    sides = np.array([[20, 30], [60, 200], [100, 120], [250, 200], [500, 500], [30, 500]], np.float32)
    corners = rng.uniform(0, 1, sides.shape) * (SIZE - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    images = np.array([0, 1, 1, 0, 1, 0], np.int32)
    layer = PyramidROIAlign(7, (SIZE, SIZE))
    crops = layer(normalized_boxes(boxes, (SIZE, SIZE)), batch_index=images, feature_maps=feature_maps).numpy()
    levels = [slow_level(box) for box in boxes]
    assert set(levels) == {2, 3, 4, 5}
    for crop, box, level, image in zip(crops, boxes, levels, images, strict=True):
        expected = slow_align(feature_maps[level - 2][image], box / 2**level, 7)
        np.testing.assert_allclose(crop, expected, atol=2e-3)


def test_roi_align_of_the_whole_image_reaches_the_border(feature_maps):
    whole = np.array([[0, 0, 1, 1]], np.float32)
    crop = PyramidROIAlign(14, (SIZE, SIZE))(whole, batch_index=np.zeros(1, np.int32), feature_maps=feature_maps)
    np.testing.assert_allclose(crop[0], slow_align(feature_maps[3][0], np.array([0, 0, 16, 16]), 14), atol=1e-4)


def test_crop_bins_on_whole_cells_copies_them():
    feature_map = np.arange(48, dtype=np.float32).reshape(1, 6, 8, 1)
    crop = crop_bins(feature_map, tf.constant([[1.0, 2.0, 4.0, 5.0]]), tf.constant([0]), 3)
    np.testing.assert_allclose(crop[0], feature_map[0, 1:4, 2:5], atol=1e-4)


def test_crop_bins_repeats_the_border():
    feature_map = np.array([[[[1.0], [5.0]], [[1.0], [5.0]]]], np.float32)
    crop = crop_bins(feature_map, tf.constant([[0.0, 0.0, 2.0, 2.0]]), tf.constant([0]), 8).numpy()
    np.testing.assert_allclose(crop[0, 0, :, 0], [1, 1, 1.5, 2.5, 3.5, 4.5, 5, 5], atol=1e-5)


def test_roi_align_without_rois_is_empty(feature_maps):
    layer = PyramidROIAlign(7, (SIZE, SIZE))
    crops = layer(np.zeros((0, 4), np.float32), batch_index=np.zeros(0, np.int32), feature_maps=feature_maps)
    assert crops.shape == (0, 7, 7, 3)


def test_roi_align_gives_gradients_to_the_map_and_none_to_the_boxes(feature_maps):
    maps = [tf.constant(m) for m in feature_maps]
    rois = tf.constant([[0.1, 0.1, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch([rois, *maps])
        crops = PyramidROIAlign(7, (SIZE, SIZE))(rois, batch_index=tf.constant([0, 1]), feature_maps=maps)
        total = tf.reduce_sum(crops)
    to_rois, to_finest, *_ = tape.gradient(total, [rois, *maps])
    assert to_rois is None
    assert np.isfinite(to_finest).all()
    np.testing.assert_allclose(tf.reduce_sum(to_finest), 2 * 49 * 3, rtol=1e-4)


def test_roi_align_round_trip():
    layer = PyramidROIAlign(7, (64, 96), name="align")
    assert PyramidROIAlign.from_config(layer.get_config()).get_config() == layer.get_config()
    assert layer.compute_output_shape((9, 4), (9,), [(2, 16, 24, 5)]) == (9, 7, 7, 5)
