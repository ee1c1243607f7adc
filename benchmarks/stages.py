"""Parts that `bench.py` times: images, networks, and detection cut into stages."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments.synthetic.centre import CENTRES, synthetic_image
from mrcnn.config import NUM_GROUPS, Config, make_config
from mrcnn.data.batches import TrainingImages
from mrcnn.data.dataset import Dataset
from mrcnn.data.molding import mold_for_detection
from mrcnn.matterport.generator import generate_random_rois
from mrcnn.model import MaskRCNN
from mrcnn.network import backbone
from mrcnn.network.anchors import anchor_grid
from mrcnn.network.assembly import FeatureNetwork
from mrcnn.network.boxes import normalized_boxes
from mrcnn.network.normalization import GROUP_NORM_EPSILON
from mrcnn.training.loop import compile_detector

Call = Callable[[], Any]
# A field of a smear may show as many; heads run on real detections, so their time depends on it.
CELLS_PER_IMAGE = 4


class Smears(Dataset):
    """Synthetic smears with exact masks, kept in memory.

    Args:
        num_images: how many.
        side: of the images in pixels.
    """

    def __init__(self, num_images: int, side: int):
        super().__init__()
        self.add_class("drawn", 1, "cell")
        rng = np.random.default_rng(0)
        for i in range(num_images):
            sample = synthetic_image(CENTRES["north"], ("monocyte", "neutrophil_segmented")[i % 2], rng, side)
            self.add_image("drawn", i, f"{i}.png", sample=sample)
        self.prepare()

    def load_image(self, image_id: int) -> np.ndarray:
        """The picture."""
        return self.image_info[image_id]["sample"].image

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Its cells."""
        sample = self.image_info[image_id]["sample"]
        masks = sample.instances[..., np.newaxis] == np.arange(1, sample.instances.max() + 1)
        return masks, np.ones(masks.shape[-1], np.int32)


def in_turn(functions: dict[str, Call], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call of each function, one after the other and again, after one call that does not count."""
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - started)
    return times


def reference(batch: int, side: int) -> Call:
    """One forward pass of the unit network."""
    network = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(side, side, 3))
    images = tf.random.stateless_normal((batch, side, side, 3), (0, 0))
    compiled = tf.function(lambda x: network(x, training=False))
    return lambda: compiled(images).numpy()


def open_model(config: Config, images: Sequence[np.ndarray]) -> MaskRCNN:
    """A detector with random weights that finds `CELLS_PER_IMAGE` cells on each image, as far as it can."""
    open_config = make_config({**config.to_dict(), "DETECTION_MIN_CONFIDENCE": 0.0}, Config)
    lean = MaskRCNN("inference", open_config, "runs/bench")
    for layer in lean.parts.named_layers():
        # Random residual blocks would add up to huge numbers with frozen statistics.
        if layer.name.endswith("branch2c") and isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(layer.gamma * 0.1)
    # Anchors stay about where they are, as those of a trained network do; random ones would leave the image.
    regression = lean.parts.rpn.get_layer("rpn_bbox_pred")
    regression.kernel.assign(regression.kernel * 1e-2)
    # Untrained heads call most things background; lean them towards the cell, each region by a little more or less.
    logits = lean.parts.box_head.get_layer("mrcnn_class_logits")
    logits.kernel.assign(logits.kernel * 1e-3)
    logits.bias.assign(np.where(np.arange(config.NUM_CLASSES) == 1, 1.0, -1.0))
    scores = [np.sort(result["scores"])[::-1][:CELLS_PER_IMAGE].min() for result in lean.detect(images, masks=False)]
    settings = {**config.to_dict(), "DETECTION_MIN_CONFIDENCE": float(np.median(scores))}
    model = MaskRCNN("inference", make_config(settings, Config), "runs/bench")
    model.parts.set_weights(lean.parts.get_weights())
    return model


def count_proposals(model: MaskRCNN, images: Sequence[np.ndarray]) -> float:
    """Mean number of proposals of an image that have an area: the ones that the box head sees."""
    rois = model.run_graph(images, [("rois", model.keras_model.get_layer("ROI").output)])["rois"]
    has_area = (rois[..., 2] > rois[..., 0]) & (rois[..., 3] > rois[..., 1])
    return float(has_area.sum(axis=1).mean())


def stages_of_detection(model: MaskRCNN, images: Sequence[np.ndarray], masks: bool) -> dict[str, Call]:
    """Ever longer beginnings of detection; the difference of two is what a stage costs."""
    config, parts = model.config, model.parts
    molded = [mold_for_detection(image, config) for image in images]
    batch = tf.constant(np.stack([m.image for m in molded]))
    windows = np.array([m.window for m in molded], np.float32)
    normal = tf.constant(windows / (np.array([*batch.shape[1:3]] * 2, np.float32)))
    network = FeatureNetwork(parts, config, masks)
    detection = network.detection_network
    last_stage = keras.Model(parts.pyramid_network.input, parts.pyramid_network.get_layer("res5c_out").output)

    def corners(levels):
        # Little to copy, and nothing that a later stage needs is left out of an earlier one.
        return [level[:, :1, :1, :1] for level in levels[:4]]

    def scores(x):
        levels = parts(x)
        return corners(levels), parts.score_anchors(levels)

    def proposals(x):
        levels = parts(x)
        logits, deltas = parts.score_anchors(levels)
        anchors = anchor_grid(config, tf.shape(x)[1:3])
        return corners(levels), detection.proposal_layer([tf.nn.softmax(logits), deltas, anchors])

    def detections(x):
        rows, levels = detection(x, windows=normal)
        return corners(levels), rows

    steps = {
        "backbone": lambda x: last_stage(parts.subtract_mean(x), training=False),
        "feature pyramid": lambda x: corners(parts(x)),
        "scores of anchors": scores,
        "proposals": proposals,
        "box head, suppression": detections,
        "RoI features" + (", mask head" if masks else ""): lambda x: list(network(x, windows=normal).values()),
    }
    compiled = {name: tf.function(step) for name, step in steps.items()}
    calls: dict[str, Call] = {}
    for name, function in compiled.items():
        calls[name] = lambda function=function: tf.nest.map_structure(lambda t: t.numpy(), function(batch))
    calls["resizing, pasting"] = lambda: model.detect(images, masks=masks)
    return calls


def training_step(config: Config, dataset: Dataset, around_cells: bool) -> tuple[Call, int]:
    """One training step on a batch of `dataset`, and how many RoIs of its batch are positive.

    With `around_cells` random boxes around the cells take the place of the proposals.
    """
    model = MaskRCNN("training", config, "runs/bench")
    trainer = model.keras_model
    compile_detector(trainer, 1e-5, 100)
    batch = TrainingImages([dataset], config, config.BATCH_SIZE)[0]
    if around_cells:
        count, rng = config.POST_NMS_ROIS_TRAINING, np.random.default_rng(0)
        shape, truth = batch["images"].shape[1:], zip(batch["gt_class_ids"], batch["gt_boxes"], strict=True)
        boxes = np.stack([generate_random_rois(shape, count, *cells, rng) for cells in truth])
        rois = normalized_boxes(boxes.astype(np.float32), shape)
        trainer.training_network.proposal_layer = lambda _: rois
    positives = tf.function(lambda b: trainer.training_network(b, training=False)["mrcnn_mask_loss"].count)(batch)
    step = tf.function(trainer.train_step)
    return lambda: step(batch)["loss"].numpy(), int(positives)


def backbone_forward(kind: str, batch: int, side: int) -> Call:
    """One forward pass of our ResNet-50 with a normalisation; "keras_group" is Keras' own GroupNorm."""
    images = keras.Input((side, side, 3))
    with _keras_group_norm(kind == "keras_group"):
        stages = backbone.resnet(images, "resnet50", "group" if kind == "keras_group" else kind)
    network = keras.Model(images, stages[-1])
    values = tf.random.stateless_normal((batch, side, side, 3), (0, 0))
    compiled = tf.function(lambda x: network(x, training=False))
    return lambda: compiled(values).numpy()


@contextmanager
def _keras_group_norm(wanted: bool) -> Iterator[None]:
    ours = backbone.normalization
    if wanted:
        backbone.normalization = lambda kind, name: keras.layers.GroupNormalization(
            NUM_GROUPS, epsilon=GROUP_NORM_EPSILON, name=name
        )
    try:
        yield
    finally:
        backbone.normalization = ours
