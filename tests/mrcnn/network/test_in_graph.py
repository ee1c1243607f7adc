import numpy as np
import pytest
import tensorflow as tf

from mrcnn.config import make_config
from mrcnn.data.masks import unmold_mask
from mrcnn.data.molding import DetectionFrame, mold_for_detection, unmold_detections
from mrcnn.network.in_graph import MoldedBatch, mold, paste_masks, unmold

GREY = {"IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": [120.0]}
MODES = {
    "square": {"IMAGE_RESIZE_MODE": "square", "IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 96},
    "square, minimum scale": {"IMAGE_RESIZE_MODE": "square", "IMAGE_MIN_SCALE": 1.3, "IMAGE_MIN_DIM": 0},
    "pad64 without minimum": {"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 0, "IMAGE_MIN_SCALE": 0.7},
    "grey": {"IMAGE_RESIZE_MODE": "square", **GREY},
}
SHAPES = [(64, 64, 3), (96, 96, 3), (1, 5, 3), (40, 70, 1), (131, 77, 4), (70, 40, 3), (200, 33, 1), (128, 64, 4)]


@pytest.mark.parametrize("settings", MODES.values(), ids=MODES.keys())
def test_mold_is_that_of_detect_to_a_grey_level(tiny_config_class, settings):
    config, rng = make_config(settings, tiny_config_class), np.random.default_rng(0)
    signature = [tf.TensorSpec((None, None, None, None), tf.uint8)]
    function = tf.function(lambda images: mold(images, config), input_signature=signature, autograph=False)
    for shape in SHAPES:
        image = rng.integers(0, 256, shape).astype(np.uint8)
        expected, batch = mold_for_detection(image, config), function(image[np.newaxis])
        assert batch.images.shape[1:] == expected.image.shape
        # Colours that become grey are rounded twice.
        assert np.abs(batch.images[0].numpy().astype(int) - expected.image).max() <= 1 + ("MEAN_PIXEL" in settings)
        assert batch.window.numpy().tolist() == list(expected.window)
        assert batch.image_shape.numpy().tolist() == list(image.shape[:2])


def test_mold_refuses_what_the_network_cannot_take(tiny_config_class):
    config = make_config({"IMAGE_RESIZE_MODE": "none"}, tiny_config_class)
    image = np.random.default_rng(1).integers(0, 256, (1, 64, 128, 3)).astype(np.uint8)
    np.testing.assert_array_equal(mold(tf.constant(image), config).images, image)
    with pytest.raises(tf.errors.InvalidArgumentError, match="multiples of 64"):
        mold(tf.constant(image[:, :60]), config)
    with pytest.raises(tf.errors.InvalidArgumentError, match="1, 3 or 4 channels"):
        mold(tf.constant(image[..., :2]), tiny_config_class())


NETWORK, WINDOW, IMAGE = (96, 96), (12, 0, 84, 96), (150, 200)
MAX_DETECTIONS = 8


@pytest.fixture(scope="module")
def molded():
    return MoldedBatch(tf.zeros((3, *NETWORK, 3), tf.uint8), tf.constant(WINDOW, tf.float32), tf.constant(IMAGE))


def test_unmold_gives_the_rows_of_detect_and_padding(molded):
    """Of three images: five detections, two of which do not touch the image; none; eight."""
    rng = np.random.default_rng(0)
    detections = np.zeros((3, MAX_DETECTIONS, 6), np.float32)
    for image, count in enumerate((5, 0, MAX_DETECTIONS)):
        corners = np.sort(rng.uniform(0.0, 1.0, (count, 2, 2)), axis=1).reshape(count, 4)
        classes, scores = rng.integers(1, 4, count), np.sort(rng.uniform(0.1, 1.0, count))[::-1]
        detections[image, :count] = np.column_stack([corners, classes, scores])
    detections[0, 1, :4] = [0.0, 0.2, 0.1, 0.6]  # in the padding above the image, and below it
    detections[0, 3, :4] = [0.95, 0.2, 1.0, 0.6]
    values = rng.normal(size=(13, 2, 3)).astype(np.float32)
    found = {name: v.numpy() for name, v in unmold(tf.constant(detections), molded, {"features": values}).items()}
    assert found["num_detections"].tolist() == [3, 0, 8] and found["boxes"].shape == (3, 8, 4)
    first = 0
    for image, rows in enumerate(detections):
        rows = rows[rows[:, 5] > 0]
        own = values[first : first + len(rows)]
        first += len(rows)
        result = unmold_detections(rows, DetectionFrame(NETWORK, WINDOW, IMAGE), own, {})
        count = len(result["scores"])
        np.testing.assert_array_equal(np.round(found["boxes"][image, :count]), result["rois"])
        np.testing.assert_array_equal(found["scores"][image, :count], result["scores"])
        np.testing.assert_array_equal(found["class_ids"][image, :count], result["class_ids"])
        np.testing.assert_array_equal(found["features"][image, :count], result["feats"])
        assert not any(found[name][image, count:].any() for name in ("boxes", "scores", "class_ids", "features"))


def test_paste_masks_is_unmold_mask():
    rng = np.random.default_rng(2)
    height, width = 60, 90
    small = rng.uniform(size=(2, 6, 28, 28)).astype(np.float32)
    boxes = np.zeros((2, 6, 4), np.float32)
    boxes[0] = [[0, 0, 60, 90], [5.4, 7.6, 33, 36], [59, 89, 60, 90], [10, 3, 24, 17], [0, 80, 60, 90], [2, 2, 30, 30]]
    pasted = paste_masks(tf.constant(boxes), tf.constant(small), tf.constant((height, width))).numpy()
    assert pasted.shape == (2, 6, height, width) and pasted.dtype == np.uint8
    assert not pasted[1].any()
    for box, mask, full in zip(boxes[0], small[0], pasted[0], strict=True):
        expected = unmold_mask(mask, np.round(box), (height, width))
        # Probabilities near the threshold may fall on either side; noise has more of them than any cell.
        assert (full != expected).sum() <= 2 and set(np.unique(full)) <= {0, 1}
