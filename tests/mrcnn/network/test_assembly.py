import numpy as np
import pytest
import tensorflow as tf

from mrcnn.config import make_config
from mrcnn.data.batches import load_example
from mrcnn.network.assembly import (
    DetectionNetwork,
    DetectorParts,
    FeatureNetwork,
    SubtractMean,
    TrainingNetwork,
    normalized_anchors,
)

LOSSES = {"rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"}


@pytest.fixture(scope="module")
def config(tiny_config_class):
    return make_config({"DETECTION_MIN_CONFIDENCE": 0.0}, tiny_config_class)


@pytest.fixture(scope="module")
def parts(config, small_resnet, see_cells):
    tf.keras.utils.set_random_seed(0)
    with small_resnet():
        parts = DetectorParts(config)
    see_cells(parts)
    return parts


@pytest.fixture(scope="module")
def losses_and_gradients(parts, config):
    """Compiled once: a batch -> losses, gradients."""
    network = TrainingNetwork(parts, config)

    @tf.function
    def compute(batch, seed):
        with tf.GradientTape() as tape:
            losses = network(batch, seed=seed)
            total = tf.add_n(list(losses.values()))
        gradients = tape.gradient(total, parts.trainable_variables)
        return losses, [tf.zeros(()) if g is None else g for g in gradients]

    return compute


def batch_of(dataset, config) -> dict[str, np.ndarray]:
    examples = [load_example(dataset, i, config, None, (0, i)) for i in range(2)]
    return {name: np.stack([e[name] for e in examples]) for name in examples[0]}


def test_training_network_losses_and_gradients_are_finite(losses_and_gradients, cell_dataset, config):
    losses, gradients = losses_and_gradients(batch_of(cell_dataset(2), config), tf.constant([0, 1]))
    assert set(losses) == LOSSES
    assert all(np.isfinite(v) and v > 0 for v in losses.values())
    assert all(np.isfinite(g).all() for g in gradients)
    assert sum(bool(np.any(g)) for g in gradients) > 0.8 * len(gradients)


def test_training_network_follows_its_seed(losses_and_gradients, cell_dataset, config):
    batch = batch_of(cell_dataset(2), config)
    first, again, other = (losses_and_gradients(batch, tf.constant([0, s]))[0] for s in (1, 1, 9))
    for name in LOSSES:
        np.testing.assert_allclose(first[name], again[name], rtol=1e-5)
    assert any(abs(float(first[name] - other[name])) > 1e-4 for name in LOSSES)


def test_training_network_without_cells_has_finite_losses(losses_and_gradients, cell_dataset, config):
    batch = batch_of(cell_dataset(2), config)
    batch |= {name: np.zeros_like(batch[name]) for name in ("gt_class_ids", "gt_boxes", "gt_masks")}
    losses, gradients = losses_and_gradients(batch, tf.constant([0, 1]))
    assert losses["rpn_class_loss"] > 0 and losses["mrcnn_class_loss"] > 0
    assert all(float(losses[name]) == 0 for name in ("rpn_bbox_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"))
    assert all(np.isfinite(g).all() for g in gradients)


def test_detector_parts_share_the_order_of_anchors_with_the_anchors(parts, config):
    levels = parts(np.zeros((1, 64, 64, 3), np.uint8))
    assert [tuple(level.shape) for level in levels] == [(1, s, s, 32) for s in (16, 8, 4, 2, 1)]
    logits, deltas = parts.score_anchors(levels)
    anchors = normalized_anchors(config)
    assert logits.shape == (1, len(anchors), 2) and deltas.shape == (1, len(anchors), 4)


def test_detector_parts_layer_names_are_unique(parts):
    names = [layer.name for layer in parts.named_layers()]
    assert len(names) == len(set(names))


@pytest.fixture(scope="module")
def images(cell_dataset):
    return np.stack([cell_dataset(2).load_image(i) for i in range(2)])


@pytest.fixture(scope="module")
def windows():
    return np.array([[0, 0, 1, 1], [0, 0, 0.5, 1]], np.float32)


def test_feature_network_gives_a_row_for_each_detection(parts, config, images, windows):
    outputs = FeatureNetwork(parts, config, with_masks=True)(images, windows=windows)
    detections = outputs["detections"].numpy()
    count = int((detections[..., 5] > 0).sum())
    assert count > 0 and detections.shape == (2, 6, 6)
    assert outputs["features"].shape == (count, 14, 14, 32)
    assert outputs["masks"].shape == (count, 28, 28)
    assert detections[1, :, 2].max() <= 0.5


def test_feature_network_keeps_images_apart(parts, config, images, windows):
    network = FeatureNetwork(parts, config, with_masks=False)
    both = network(images, windows=windows)
    counts = (both["detections"].numpy()[..., 5] > 0).sum(axis=1)
    alone = network(images[1:], windows=windows[1:])
    np.testing.assert_allclose(alone["detections"][0], both["detections"][1], atol=1e-4)
    np.testing.assert_allclose(alone["features"], both["features"][counts[0] :], atol=1e-3)
    assert "masks" not in both


def test_feature_network_without_a_detection_is_empty(parts, tiny_config_class, images, windows):
    config = make_config({"DETECTION_MIN_CONFIDENCE": 1.0}, tiny_config_class)
    outputs = FeatureNetwork(parts, config, with_masks=True)(images, windows=windows)
    assert not outputs["detections"].numpy().any()
    assert outputs["features"].shape == (0, 14, 14, 32) and outputs["masks"].shape == (0, 28, 28)


def test_detection_network_boxes_are_real(parts, config, images, windows):
    detections, levels = DetectionNetwork(parts, config)(images, windows=windows)
    rows = detections.numpy()[detections[..., 5] > 0]
    assert (rows[:, 2:4] > rows[:, :2]).all() and (rows[:, :4] >= 0).all() and (rows[:, :4] <= 1).all()
    assert len(levels) == 4


def test_subtract_mean_takes_bytes_and_round_trips():
    layer = SubtractMean((1, 2, 3), name="mold")
    out = layer(np.array([[[[10, 10, 10]]]], np.uint8))
    np.testing.assert_allclose(out, [[[[9, 8, 7]]]])
    assert SubtractMean.from_config(layer.get_config()).get_config() == layer.get_config()
