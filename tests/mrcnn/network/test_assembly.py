import numpy as np
import pytest
import tensorflow as tf

from mrcnn.config import make_config
from mrcnn.data.batches import load_example
from mrcnn.network.assembly import DetectionNetwork, FeatureNetwork, TrainingNetwork

LOSSES = {"rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"}


@pytest.fixture(scope="module")
def config(tiny_detector):
    return tiny_detector.config


@pytest.fixture(scope="module")
def parts(tiny_detector):
    return tiny_detector.parts


@pytest.fixture(scope="module")
def sums_and_gradients(parts, config, cell_dataset):
    """Compiled once for batches of any size: a batch -> loss sums, gradients of the sum of their means."""
    network = TrainingNetwork(parts, config)
    example = batch_of(cell_dataset(1), config)
    signature = {name: tf.TensorSpec((None, *values.shape[1:]), values.dtype) for name, values in example.items()}

    @tf.function(input_signature=[signature])
    def compute(batch):
        with tf.GradientTape() as tape:
            sums = network(batch)
            total = tf.add_n([loss.mean() for loss in sums.values()])
        gradients = tape.gradient(total, parts.trainable_variables)
        return sums, [tf.zeros(()) if g is None else g for g in gradients]

    return compute


def batch_of(dataset, config) -> dict[str, np.ndarray]:
    examples = [load_example(dataset, i, config, None, (0, 8 * i)) for i in dataset.image_ids]
    return {name: np.stack([e[name] for e in examples]) for name in examples[0]}


def test_training_network_losses_and_gradients_are_finite(sums_and_gradients, cell_dataset, config):
    sums, gradients = sums_and_gradients(batch_of(cell_dataset(2), config))
    assert set(sums) == LOSSES
    assert all(np.isfinite(loss.mean()) and loss.mean() > 0 for loss in sums.values())
    assert all(np.isfinite(g).all() for g in gradients)
    assert sum(bool(np.any(g)) for g in gradients) > 0.8 * len(gradients)


def test_training_network_sums_over_images_that_do_not_see_each_other(sums_and_gradients, cell_dataset, config):
    batch = batch_of(cell_dataset(3), config)
    whole = sums_and_gradients(batch)[0]
    alone = [sums_and_gradients({name: values[i : i + 1] for name, values in batch.items()})[0] for i in range(3)]
    for name in LOSSES:
        assert float(whole[name].count) == sum(float(sums[name].count) for sums in alone) > 0
        np.testing.assert_allclose(whole[name].total, sum(sums[name].total for sums in alone), rtol=1e-3)


def test_training_network_without_cells_has_finite_losses(sums_and_gradients, cell_dataset, config):
    batch = batch_of(cell_dataset(2), config)
    batch |= {name: np.zeros_like(batch[name]) for name in ("gt_class_ids", "gt_boxes", "gt_masks")}
    sums, gradients = sums_and_gradients(batch)
    assert sums["rpn_class_loss"].mean() > 0 and sums["mrcnn_class_loss"].mean() > 0
    for name in ("rpn_bbox_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"):
        assert float(sums[name].total) == 0 and float(sums[name].count) == 0 and float(sums[name].mean()) == 0
    assert all(np.isfinite(g).all() for g in gradients)


def test_feature_network_gives_a_row_for_each_detection_and_keeps_images_apart(parts, config, cell_dataset):
    images = np.stack([cell_dataset(2).load_image(i) for i in range(2)])
    windows = np.array([[0, 0, 1, 1], [0, 0, 0.5, 1]], np.float32)
    both = FeatureNetwork(parts, config, with_masks=True)(images, windows=windows)
    detections = both["detections"].numpy()
    counts = (detections[..., 5] > 0).sum(axis=1)
    assert counts.sum() > 0 and detections.shape == (2, 6, 6) and detections[1, :, 2].max() <= 0.5
    assert both["features"].shape == (counts.sum(), 14, 14, 32) and both["masks"].shape == (counts.sum(), 28, 28)
    alone = FeatureNetwork(parts, config, with_masks=False)(images[1:], windows=windows[1:])
    np.testing.assert_allclose(alone["detections"][0], both["detections"][1], atol=1e-4)
    np.testing.assert_allclose(alone["features"], both["features"][counts[0] :], atol=1e-3)
    assert "masks" not in alone


def test_nuclei_rescore_detections_and_what_belongs_to_each_stays_with_it(nucleus_detector, cell_dataset):
    parts, config = nucleus_detector.parts, nucleus_detector.config
    images = np.stack([cell_dataset(2).load_image(i) for i in range(2)])
    windows = np.array([[0, 0, 1, 1]] * 2, np.float32)
    found = FeatureNetwork(parts, config, with_masks=True)(images, windows=windows)
    found = {name: values.numpy() for name, values in found.items()}
    before = DetectionNetwork(parts, config)(images, windows=windows)[0].numpy()
    rows, first = found["detections"], 0
    counts = (rows[..., 5] > 0).sum(axis=1)
    assert counts.min() > 1 and (np.diff(rows[..., 5], axis=1) <= 0).all()
    masks = parts.mask_head(found["features"]).numpy()
    np.testing.assert_allclose(found["masks"], masks[..., 2], atol=1e-4)
    np.testing.assert_allclose(found["nucleus_masks"], masks[..., 3], atol=1e-4)
    for image, count in enumerate(counts):
        for row, nucleus in zip(rows[image], found["nucleus_masks"][first : first + count], strict=False):
            (old,) = (old for old in before[image] if np.array_equal(old[:4], row[:4]))
            clearest = np.sort(nucleus, axis=None)[-nucleus.size // 16 :]
            np.testing.assert_allclose(row[5], old[5] * clearest.mean(), rtol=1e-4)
        first += count
    assert len({round(float(score), 3) for score in rows[rows[..., 5] > 0][:, 5]}) > 2
    plain = FeatureNetwork(parts, config, with_masks=False)(images, windows=windows)
    np.testing.assert_allclose(plain["detections"], rows, atol=1e-4)
    assert set(plain) == {"detections", "features"}

    middle = float(np.median(rows[0, : counts[0], 5])) + 1e-4
    choosy = make_config({**config.to_dict(), "DETECTION_MIN_CONFIDENCE": middle}, type(config))
    kept = FeatureNetwork(parts, choosy, with_masks=True)(images, windows=windows)
    expected = [[score if score >= middle else 0.0 for score in of_image] for of_image in rows[..., 5]]
    np.testing.assert_allclose(kept["detections"][..., 5], expected, atol=1e-4)
    number = np.count_nonzero(expected)
    assert 0 < number < counts.sum() and len(kept["features"]) == len(kept["nucleus_masks"]) == number
