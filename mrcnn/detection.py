"""Running the detection network on images, in batches of one size each."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.data.molding import DetectionFrame, mold_for_detection, unmold_detections
from mrcnn.files.errors import InputError
from mrcnn.files.progress import Bar
from mrcnn.network.assembly import DetectorParts, FeatureNetwork
from mrcnn.network.boxes import normalized_boxes

log = logging.getLogger(__name__)

Result = dict[str, np.ndarray]
Sample, Loaded = TypeVar("Sample"), TypeVar("Loaded")
# Settings that bound the cells of an image: each comes from a proposal of its own.
LIMITS = ("DETECTION_MAX_INSTANCES", "POST_NMS_ROIS_INFERENCE")


class DetectionRun:
    """The detection network, compiled with and without masks.

    Attributes:
        last_shape: (height, width) of the last batch, as the network took it; None before the first.
    """

    def __init__(self, parts: DetectorParts, config: Config):
        self.parts, self.config = parts, config
        self.last_shape: tuple[int, int] | None = None
        self._compiled: dict[tuple[bool, str], tf.types.experimental.PolymorphicFunction] = {}

    def on_images(self, images: Sequence[np.ndarray], masks: bool, paste: bool) -> list[Result]:
        """Detect on images of any sizes; arguments, results and errors as of `MaskRCNN.detect`."""
        molded = [mold_for_detection(image, self.config) for image in images]
        results: list[Result] = [{} for _ in molded]
        for shape in dict.fromkeys(each.image.shape for each in molded):
            rows = [i for i, each in enumerate(molded) if each.image.shape == shape]
            batch = np.stack([molded[i].image for i in rows])
            self.last_shape = batch.shape[1:3]
            windows = np.array([molded[i].window for i in rows], np.float32)
            frames = [DetectionFrame(batch.shape[1:3], molded[i].window, np.shape(images[i])[:2]) for i in rows]
            for i, result in zip(rows, self.on_batch(batch, windows, frames, masks, paste), strict=True):
                results[i] = result
        return results

    def on_batch(
        self, batch: np.ndarray, windows: np.ndarray, frames: Sequence[DetectionFrame], masks: bool, paste: bool
    ) -> list[Result]:
        """Detect on a batch of the network's size: uint8 or float32 `(batch, height, width, channels)`, 0 to 255.

        `windows`, float `(batch, 4)` in pixels, are the parts that are image; `frames` bring results back to them.
        """
        outputs = self._network(masks, batch.dtype.name)(batch, normalized_boxes(windows, batch.shape[1:3]))
        outputs = {name: value.numpy() for name, value in outputs.items()}
        found = [rows[rows[:, 5] > 0.0] for rows in outputs["detections"]]
        # Features and masks come one after the other, image by image.
        ends = np.cumsum([len(rows) for rows in found])[:-1]
        features = np.split(outputs["features"], ends)
        names = [name for name in outputs if name.endswith("masks")]
        small = [np.split(outputs[name], ends) for name in names]
        small = [dict(zip(names, arrays, strict=True)) for arrays in zip(*small, strict=True)] or [{}] * len(found)
        parts = zip(found, frames, features, small, strict=True)
        return [unmold_detections(rows, frame, feats, drawn, paste=paste) for rows, frame, feats, drawn in parts]

    def _network(self, with_masks: bool, dtype: str) -> tf.types.experimental.PolymorphicFunction:
        """The network, traced once for all batch sizes, and for all image sizes where they differ."""
        key = (with_masks, dtype)
        if key not in self._compiled:
            network = FeatureNetwork(self.parts, self.config, with_masks)
            fixed = self.config.IMAGE_RESIZE_MODE == "square"
            sides = tuple(int(v) for v in self.config.IMAGE_SHAPE[:2]) if fixed else (None, None)
            images = tf.TensorSpec((None, *sides, self.config.IMAGE_CHANNEL_COUNT), dtype)
            self._compiled[key] = tf.function(
                lambda images, windows: network(images, windows=windows),
                input_signature=[images, tf.TensorSpec((None, 4), tf.float32)],
            )
        return self._compiled[key]


def detect_each(
    detector: Any, images: Sequence[np.ndarray | InputError], names: Sequence[str], **options: bool
) -> list[Result | InputError]:
    """Detect on a batch by a `mrcnn.model.MaskRCNN`, and where it does not take that, on the images one by one.

    An image may be the error of reading it instead. `options` go to `MaskRCNN.detect`. Returned is for each image what
    that gives, or the error that says by its name why it was not taken.
    """
    readable = [i for i, image in enumerate(images) if not isinstance(image, InputError)]
    results: list[Result | InputError] = [image if isinstance(image, InputError) else {} for image in images]
    try:
        found = detector.detect([images[i] for i in readable], **options) if readable else []
    except InputError as error:
        if len(readable) == 1:
            found = [InputError(f"{names[readable[0]]}: {error}")]
        else:  # one of them; the message does not know its name
            found = [detect_each(detector, [images[i]], [names[i]], **options)[0] for i in readable]
    for i, result in zip(readable, found, strict=True):
        results[i] = result
    return results


def detect_samples(
    detector: Any,
    samples: Sequence[Sample],
    load: Callable[[Sample], np.ndarray],
    name: Callable[[Sample], str],
    batch_size: int,
    description: str,
    **options: bool,
) -> Iterator[tuple[Sample, np.ndarray | InputError, Result | InputError]]:
    """Each sample with its image and what is found on it, or what is wrong with either, batch by batch.

    `load` gives the image of a sample, `name` what to call it in a message, `description` stands before the bar.
    """
    with Bar(total=len(samples), desc=description, unit="image") as bar:
        for start in range(0, len(samples), batch_size):
            batch = samples[start : start + batch_size]
            images = [attempt(load, sample) for sample in batch]
            yield from zip(batch, images, detect_each(detector, images, [*map(name, batch)], **options), strict=True)
            bar.update(len(batch))


def attempt(load: Callable[[Sample], Loaded], sample: Sample) -> Loaded | InputError:
    """What is loaded, or what is wrong with it."""
    try:
        return load(sample)
    except InputError as error:
        return error


def detection_limit(config: Config) -> int:
    """The maximum of cells that a detector gives for one image."""
    return min(getattr(config, name) for name in LIMITS)


def with_detections(config: Config, max_detections: int) -> Config:
    """The same settings for `max_detections` cells of an image; the number of proposals is raised where too small.

    Raises:
        InputError: if `max_detections` is below 1.
    """
    if max_detections < 1:
        raise InputError(f"the number of detections must be at least 1; got {max_detections}")
    changed = copy.copy(config)
    changed.DETECTION_MAX_INSTANCES = max_detections
    changed.POST_NMS_ROIS_INFERENCE = max(config.POST_NMS_ROIS_INFERENCE, max_detections)
    changed.PRE_NMS_LIMIT = max(config.PRE_NMS_LIMIT, changed.POST_NMS_ROIS_INFERENCE)
    return changed


def warn_of_full(keys: Sequence[str], config: Config) -> None:
    """Warn of the images, by name, on which as many cells were found as the detector gives: there may be more."""
    if keys:
        named = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        limits = ", ".join(f"{name} {getattr(config, name)}" for name in LIMITS)
        log.warning(
            "%d images have %d cells, the most that this detector gives, and perhaps others that were left out: %s "
            "(limits: %s)",
            *(len(keys), detection_limit(config), named, limits),
        )
