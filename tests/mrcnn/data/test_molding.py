"""Images as the network takes them, and what it finds in pixels of the image."""

import numpy as np
import pytest

from mrcnn.config import Config, make_config
from mrcnn.data.molding import (
    DetectionFrame,
    fit_channels,
    mold_for_detection,
    mold_image,
    unmold_detections,
    unmold_image,
)
from mrcnn.files.errors import InputError
from mrcnn.utils import denorm_boxes, norm_boxes


def config_of(**overrides) -> Config:
    return make_config({"IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 128, **overrides}, Config)


def random_image(*shape) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_fit_channels_weights_colours_to_grey_and_takes_other_numbers_as_they_are():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [80, 80, 80]]], np.uint8)
    grey = fit_channels(image, 1)
    assert grey.dtype == np.uint8 and grey.ravel().tolist() == [76, 150, 29, 80]  # ITU-R BT.601
    for dtype in ("float64", "uint16"):
        taken = fit_channels(image.astype(dtype), 3)
        assert taken.dtype == np.float32 and (taken == image).all()


def test_fit_channels_refuses_what_is_no_image():
    shapes = [(5, 7, 2), (5,), (0, 7, 3), (1, 5, 7, 3)]
    wrong = [np.full((5, 7, 3), np.nan), np.full((5, 7, 3), 1e300), np.zeros((5, 7, 3), "U1")]
    for image in (*(np.zeros(shape, np.uint8) for shape in shapes), *wrong):
        with pytest.raises(InputError, match="an image must"):
            fit_channels(image, 3)


def test_mold_for_detection_pads_images_of_any_size_to_a_square():
    config = config_of(IMAGE_MAX_DIM=64)
    images = [np.full((h, w, 3), value, np.uint8) for h, w, value in ((20, 40, 9), (64, 64, 7), (1, 90, 0))]
    molded = [mold_for_detection(image, config) for image in images]
    assert all(m.image.shape == (64, 64, 3) and m.image.dtype == np.uint8 for m in molded)
    np.testing.assert_allclose([m.scale for m in molded], [1.6, 1.0, 64 / 90], rtol=1e-6)
    assert [m.window for m in molded[:2]] == [(16, 0, 48, 64), (0, 0, 64, 64)]
    first = molded[0].image
    assert (first[16:48] == 9).all() and not first[:16].any() and not first[48:].any()


@pytest.mark.parametrize(
    ("mode", "shape", "window"),
    [
        ("pad64", (100, 150), (14, 21, 114, 171)),
        ("crop", (100, 150), (14, 21, 114, 171)),
        ("none", (128, 192), (0, 0, 128, 192)),
    ],
)
def test_mold_for_detection_pads_to_multiples_of_64_and_never_crops(mode, shape, window):
    image, config = random_image(*shape, 3), config_of(IMAGE_RESIZE_MODE=mode)
    molded = mold_for_detection(image, config)
    assert molded.image.shape == (128, 192, 3) and molded.scale == 1.0 and molded.window == window
    y1, x1, y2, x2 = window
    np.testing.assert_array_equal(molded.image[y1:y2, x1:x2], image)
    assert molded.image.sum() == image.sum()
    if mode == "none":
        with pytest.raises(InputError, match="multiples of 64; got 100x64 px; use 'pad64'"):
            mold_for_detection(random_image(64, 100, 3), config)


@pytest.mark.parametrize("overrides", [{}, {"IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": [100.3]}])
def test_unmold_image_undoes_mold_image(overrides):
    config = config_of(**overrides)
    image = random_image(9, 8, config.IMAGE_CHANNEL_COUNT)
    restored = unmold_image(mold_image(image, config), config)
    assert restored.dtype == np.uint8 and (restored == image).all()
    assert unmold_image(np.array([[[1e4] * 3, [-1e4] * 3]]), config)[0, :, 0].tolist() == [255, 0]


def rows_of(boxes, shape, class_ids, scores) -> np.ndarray:
    """Detections as the network gives them."""
    return np.concatenate([norm_boxes(boxes, shape), np.stack([class_ids, scores], axis=1)], axis=1).astype(np.float32)


def test_unmold_detections_drops_what_has_no_pixel_with_its_features_and_masks():
    # An image of 30 x 60 px, enlarged twice and padded to 128 x 128.
    frame = DetectionFrame((128, 128), (34, 4, 94, 124), (30, 60))
    boxes = np.array([[34, 4, 94, 124], [44, 14, 44.4, 34], [39, 100, 60, 124]], np.float32)
    features, masks = np.arange(3.0).reshape(3, 1, 1, 1), np.ones((3, 28, 28)) * [[[0.9]], [[0.8]], [[0.2]]]
    result = unmold_detections(
        rows_of(boxes, (128, 128), [1, 2, 3], [0.9, 0.8, 0.7]), frame, features, {"masks": masks}
    )
    np.testing.assert_array_equal(result["rois"], [[0, 0, 30, 60], [2, 48, 13, 60]])
    np.testing.assert_allclose(result["scores"], [0.9, 0.7])
    assert result["class_ids"].tolist() == [1, 3] and result["feats"].ravel().tolist() == [0.0, 2.0]
    assert result["small_masks"].shape == (2, 28, 28) and result["masks"].shape == (30, 60, 2)
    assert result["masks"].sum(axis=(0, 1)).tolist() == [1800, 0]
    types = {name: result[name].dtype for name in ("rois", "class_ids", "scores", "masks")}
    assert types == {"rois": np.int32, "class_ids": np.int32, "scores": np.float32, "masks": bool}


@pytest.mark.parametrize(
    ("overrides", "shape"),
    [
        ({"IMAGE_MIN_DIM": 128, "IMAGE_MAX_DIM": 256}, (100, 76)),
        ({"IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 128}, (300, 211)),
        ({"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 128}, (90, 145)),
    ],
    ids=["enlarged", "shrunk", "pad64"],
)
def test_boxes_round_trip_exactly(overrides, shape):
    config = make_config({"IMAGE_MAX_DIM": 256, **overrides}, Config)
    molded = mold_for_detection(np.zeros((*shape, 3), np.uint8), config)
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, np.array(shape) + 1, (60, 2, 2)), axis=1).reshape(-1, 4)
    boxes = np.concatenate([corners[(corners[:, 2:] > corners[:, :2]).all(axis=1)], [[0, 0, *shape]]])
    y1, x1, y2, x2 = molded.window
    scale = np.array([(y2 - y1) / shape[0], (x2 - x1) / shape[1]] * 2)
    inside = boxes * scale + [y1, x1, y1, x1]
    rows = rows_of(inside, molded.image.shape[:2], np.ones(len(boxes)), np.ones(len(boxes)))
    frame = DetectionFrame(molded.image.shape[:2], molded.window, shape)
    np.testing.assert_array_equal(unmold_detections(rows, frame, None, {})["rois"], boxes)


@pytest.mark.parametrize(
    ("shape", "side", "most"),
    [((3000, 4000), 1024, 3), ((3000, 4000), 256, 15), ((400, 400), 1024, 1)],
)
def test_boxes_differ_from_matterports_by_less_than_an_input_pixel_is_wide(shape, side, most):
    # Matterport takes boxes from the window to the image normalised, where the last row and column end at 1: it maps
    # the last pixel of the window to that of the image, as here its border to the image's border.
    config = make_config({"IMAGE_MIN_DIM": side, "IMAGE_MAX_DIM": side}, Config)
    molded = mold_for_detection(np.zeros((*shape, 3), np.uint8), config)
    y1, x1, y2, x2 = molded.window
    corners = np.sort(np.random.default_rng(0).uniform([y1, x1], [y2, x2], (5000, 2, 2)), axis=1)
    boxes = np.concatenate([corners[(corners[:, 1] > corners[:, 0] + 4).all(axis=1)].reshape(-1, 4), [molded.window]])
    rows = rows_of(boxes, molded.image.shape, np.ones(len(boxes)), np.ones(len(boxes)))
    ours = unmold_detections(rows, DetectionFrame(molded.image.shape[:2], molded.window, shape), None, {})["rois"]
    top, left, bottom, right = norm_boxes(np.array([molded.window]), molded.image.shape)[0].astype(float)
    theirs = denorm_boxes((rows[:, :4] - [top, left, top, left]) / ([bottom - top, right - left] * 2), shape)
    assert np.abs(ours - theirs).max() == most <= np.ceil(1 / molded.scale)
    np.testing.assert_array_equal(ours[-1], theirs[-1])
