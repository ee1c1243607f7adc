"""`MaskRCNN`, Matterport's class: train, detect, load and save."""

import hashlib
import json
import logging
import os
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mrcnn.atomic import atomic_path, write_json
from mrcnn.config import Config, make_config
from mrcnn.data.augmentation import Augmentation
from mrcnn.data.batches import make_augmentation, mold_inputs
from mrcnn.data.dataset import Dataset
from mrcnn.data.masks import unmold_mask
from mrcnn.errors import InputError
from mrcnn.network.assembly import DetectorParts, FeatureNetwork, TrainingNetwork
from mrcnn.training import fit_detector
from mrcnn.utils import norm_boxes

log = logging.getLogger(__name__)

WEIGHTS_NAME = "weights.weights.h5"
CONFIG_NAME = "config.json"
# Matterport's short names for "which layers learn".
LAYER_PATTERNS = {
    "heads": r"(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "3+": r"(res3.*)|(bn3.*)|(res4.*)|(bn4.*)|(res5.*)|(bn5.*)|(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "4+": r"(res4.*)|(bn4.*)|(res5.*)|(bn5.*)|(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "5+": r"(res5.*)|(bn5.*)|(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "all": ".*",
}


class MaskRCNN:
    """A detector of single cells, with Matterport's public methods.

    Args:
        mode: "training" or "inference".
        config: its settings; their SEED also fixes the initial weights.
        model_dir: folder of the run, which takes checkpoints, logs and the trained model.

    Attributes:
        parts: the layers with weights.
        keras_model: the network of the mode.

    Raises:
        InputError: for another mode.
    """

    def __init__(self, mode: str, config: Config, model_dir: str | os.PathLike):
        if mode not in ("training", "inference"):
            raise InputError(f"mode must be training or inference; got {mode!r}")
        self.mode, self.config, self.model_dir = mode, config, Path(model_dir)
        self.parts = _seeded_parts(config)
        self._networks: dict[bool, Callable] = {}
        if mode == "training":
            self.keras_model: keras.Model = TrainingNetwork(self.parts, config)
        else:
            self.keras_model = FeatureNetwork(self.parts, config, with_masks=True)

    def train(
        self,
        train_dataset: Dataset | Sequence[Dataset],
        val_dataset: Dataset | Sequence[Dataset],
        learning_rate: float,
        epochs: int,
        layers: str,
        augmentation: Augmentation | None = None,
        custom_callbacks: Sequence[keras.callbacks.Callback] | None = None,
        *,
        progress: bool = True,
    ) -> list[dict[str, Any]]:
        """Train, or go on with an interrupted training in the same `model_dir`, and save the model there.

        Args:
            train_dataset: one dataset or several.
            val_dataset: the same, for validation losses; may be empty.
            learning_rate: peak of the schedule.
            epochs: in all.
            layers: "heads", "3+", "4+", "5+", "all" or a regular expression over layer names.
            augmentation: None takes what `config.AUGMENTATION` names; any imgaug augmenter works too.
            custom_callbacks: further Keras callbacks.
            progress: show a bar with the time left.

        Returns:
            One dictionary of losses for each epoch.

        Raises:
            InputError: if the mode is not "training", there are no images, or a loss is not finite.
        """
        if self.mode != "training":
            raise InputError("train needs a MaskRCNN made with mode='training'")
        self.set_trainable(LAYER_PATTERNS.get(layers, layers))
        rows = fit_detector(
            self.parts,
            self.config,
            _as_list(train_dataset),
            _as_list(val_dataset),
            epochs=epochs,
            learning_rate=learning_rate,
            folder=self.model_dir,
            augmentation=augmentation or make_augmentation(self.config),
            callbacks=custom_callbacks or (),
            progress=progress,
        )
        self.save()
        return rows

    def set_trainable(self, layer_regex: str) -> None:
        """Let the layers learn whose whole name matches; freeze the others."""
        for layer in self.parts.named_layers():
            layer.trainable = re.fullmatch(layer_regex, layer.name) is not None

    def detect(self, images: Sequence[np.ndarray], verbose: int = 0, masks: bool = True) -> list[dict[str, np.ndarray]]:
        """Find the cells of some images, all in one batch.

        Args:
            images: uint8 arrays of shape (height, width, 3), of any sizes.
            verbose: 1 logs what came in.
            masks: False skips the mask head, most of the time, and leaves "masks" out.

        Returns:
            For each image a dictionary: "rois" int32 (n, 4), pixels of the image; "class_ids" int32 (n,);
            "scores" float32 (n,) in [0, 1], best first; "masks" bool (height, width, n); "small_masks" float32
            (n, 28, 28), probabilities over the box; "feats" float32 (n, 14, 14, channels).
        """
        if verbose:
            log.info("detecting cells in %d images", len(images))
        if not len(images):
            return []
        molded, windows, scales = mold_inputs(images, self.config)
        outputs = self._network(masks)(molded, norm_boxes(windows, self.config.IMAGE_SHAPE))
        outputs = {name: value.numpy() for name, value in outputs.items()}
        results, first = [], 0
        for i, image in enumerate(images):
            rows = outputs["detections"][i]
            rows = rows[rows[:, 5] > 0.0]
            last = first + len(rows)
            small_masks = outputs["masks"][first:last] if masks else None
            results.append(
                self._unmold(rows, outputs["features"][first:last], small_masks, image.shape, windows[i], scales[i])
            )
            first = last
        return results

    def _network(self, with_masks: bool) -> Callable:
        """The compiled network, traced once for all batch sizes."""
        if with_masks not in self._networks:
            network = FeatureNetwork(self.parts, self.config, with_masks)
            shape = tuple(int(v) for v in self.config.IMAGE_SHAPE)
            self._networks[with_masks] = tf.function(
                lambda images, windows: network(images, windows=windows),
                input_signature=[
                    tf.TensorSpec((None, *shape), tf.uint8),
                    tf.TensorSpec((None, 4), tf.float32),
                ],
            )
        return self._networks[with_masks]

    def _unmold(self, rows, features, small_masks, image_shape, window, scale) -> dict[str, np.ndarray]:
        """Bring detections from the network's frame to the image's."""
        height, width = image_shape[:2]
        side = np.array([self.config.IMAGE_SHAPE[0], self.config.IMAGE_SHAPE[1]] * 2, np.float32)
        boxes = rows[:, :4] * (side - 1.0) + np.array([0, 0, 1, 1], np.float32)
        boxes = (boxes - np.tile(window[:2], 2)) / scale
        boxes = np.clip(np.round(boxes), 0, [height, width, height, width]).astype(np.int32)
        keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        boxes = boxes[keep]
        result = {
            "rois": boxes,
            "class_ids": rows[keep, 4].astype(np.int32),
            "scores": rows[keep, 5].astype(np.float32),
            "feats": features[keep],
        }
        if small_masks is not None:
            result["small_masks"] = small_masks[keep]
            whole = [unmold_mask(m, b, image_shape) for m, b in zip(result["small_masks"], boxes, strict=True)]
            result["masks"] = np.stack(whole, axis=-1) if whole else np.zeros((height, width, 0), bool)
        return result

    def save(self, folder: str | os.PathLike | None = None) -> None:
        """Write `config.json` and the weights to `folder` (default: `model_dir`), the weights last."""
        folder = Path(folder or self.model_dir)
        write_json(folder / CONFIG_NAME, self.config.to_dict())
        with atomic_path(folder / WEIGHTS_NAME) as temporary:
            self.parts.save_weights(temporary)

    def load_weights(self, filepath: str | os.PathLike) -> None:
        """Load weights that `save` wrote, for the same configuration.

        Raises:
            InputError: if the file is missing, cut short or of another architecture.
        """
        path = Path(filepath)
        if not path.is_file():
            raise InputError(f"{path}: no such weights file")
        try:
            self.parts.load_weights(path)
        except (ValueError, OSError, KeyError) as error:
            raise InputError(
                f"{path}: these weights do not fit the configuration ({str(error).splitlines()[0]})"
            ) from error


def load_detector(folder: str | os.PathLike, overrides: dict[str, Any] | None = None) -> MaskRCNN:
    """Open a trained detector's folder for inference.

    Args:
        folder: what `MaskRCNN.save` wrote.
        overrides: settings to change, such as a lower DETECTION_MIN_CONFIDENCE.

    Raises:
        InputError: if the folder holds no finished detector.
    """
    folder = Path(folder)
    path = folder / CONFIG_NAME
    if not path.is_file() or not (folder / WEIGHTS_NAME).is_file():
        raise InputError(f"{folder}: no trained detector there ({CONFIG_NAME} and {WEIGHTS_NAME} expected)")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    model = MaskRCNN("inference", make_config({**settings, **(overrides or {})}, Config), folder)
    model.load_weights(folder / WEIGHTS_NAME)
    return model


def detector_hash(folder: str | os.PathLike) -> str:
    """SHA-256 of a trained detector's configuration and weights, which names the features that it gives."""
    digest = hashlib.sha256()
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        with open(Path(folder) / name, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _seeded_parts(config: Config) -> DetectorParts:
    """Build the parts with initial kernels that SEED and each layer's name fix, whatever the global random state."""
    parts = DetectorParts(config)
    for layer in parts.named_layers():
        if hasattr(layer, "kernel"):
            settings = layer.kernel_initializer.get_config()
            settings["seed"] = zlib.crc32(f"{config.SEED}/{layer.name}".encode())
            layer.kernel.assign(type(layer.kernel_initializer).from_config(settings)(layer.kernel.shape))
    return parts


def _as_list(datasets: Dataset | Sequence[Dataset]) -> list[Dataset]:
    return [datasets] if isinstance(datasets, Dataset) else list(datasets)
