"""`MaskRCNN`, Matterport's class: train, detect, load and save."""

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mrcnn.config import Config, make_config
from mrcnn.data.augmentation import Augmentation
from mrcnn.data.batches import make_augmentation
from mrcnn.data.dataset import Dataset
from mrcnn.data.ground_truth import load_image_gt
from mrcnn.data.molding import compose_image_meta, mold_image, parse_image_meta, unmold_image
from mrcnn.detection import DetectionRun, with_detections
from mrcnn.files.devices import is_chief, mirrored_strategy
from mrcnn.files.errors import InputError
from mrcnn.matterport.generator import (
    build_detection_targets,
    build_rpn_targets,
    compute_backbone_shapes,
    data_generator,
    generate_random_rois,
)
from mrcnn.matterport.methods import MatterportMethods, log, log_images
from mrcnn.training.folder import (
    CONFIG_NAME,
    TENSORBOARD,
    WEIGHTS_NAME,
    check_can_hold,
    checkpoint_name,
    detector_hash,
    find_last,
    load_parts,
    read_settings,
    run_folder,
    save_detector,
)
from mrcnn.training.imagenet import imagenet_weights_path
from mrcnn.training.loop import fit_detector
from mrcnn.training.shipped import find_detector
from mrcnn.training.weights import (
    LoadReport,
    check_some_learn,
    choose_layers,
    load_by_name,
    seeded_parts,
)

__all__ = ["CONFIG_NAME", "WEIGHTS_NAME", "MaskRCNN", "detector_config", "detector_hash", "load_detector", "log"]
__all__ += ["build_detection_targets", "build_rpn_targets", "compute_backbone_shapes", "data_generator"]
__all__ += ["compose_image_meta", "generate_random_rois", "load_image_gt", "mold_image", "parse_image_meta"]
__all__ += ["unmold_image"]

logger = logging.getLogger(__name__)


class MaskRCNN(MatterportMethods):
    """A detector of single cells, with Matterport's public methods.

    Args:
        mode: "training" or "inference"; another one, or fewer GPUs than GPU_COUNT, is an InputError.
        config: its settings; their SEED also fixes the initial weights.
        model_dir: folder of runs: `train` makes a dated folder in it. For a detector that `save` wrote, its folder.
        strategy: how several devices share each batch of the training; None takes GPU_COUNT GPUs.

    Attributes:
        parts: the layers with weights.
        log_dir: folder of the run.
        epoch: epochs that the weights have had in this run.
    """

    def __init__(
        self, mode: str, config: Config, model_dir: str | os.PathLike, *, strategy: tf.distribute.Strategy | None = None
    ):
        if mode not in ("training", "inference"):
            raise InputError(f"mode must be training or inference; got {mode!r}")
        self.mode, self.config, self.model_dir = mode, config, str(model_dir)
        self.strategy = strategy or mirrored_strategy(config.GPU_COUNT if mode == "training" else 1)
        with self.strategy.scope():
            self.parts = seeded_parts(config)
        self._detection = DetectionRun(self.parts, config)
        self._anchor_shape = tuple(int(side) for side in config.IMAGE_SHAPE[:2])
        self.set_log_dir()

    def train(
        self,
        train_dataset: Dataset | Sequence[Dataset],
        val_dataset: Dataset | Sequence[Dataset],
        learning_rate: float,
        epochs: int,
        layers: str,
        augmentation: Augmentation | None = None,
        custom_callbacks: Sequence[keras.callbacks.Callback] | None = None,
        no_augmentation_sources: Collection[str] | None = None,
        *,
        folder: str | os.PathLike | None = None,
    ) -> None:
        """Train, and save the model.

        Weights of each epoch lie in `log_dir` in Matterport's layout, with `log.csv`, curves for TensorBoard, the
        optimiser's state and, at the end, what `load_detector` opens. Called again on the same object, it goes on with
        the weights and the optimiser as they are. Losses by epoch are in `keras_model.history.history`.

        Args:
            train_dataset: one dataset or several.
            val_dataset: the same, for validation losses; may be empty.
            learning_rate: peak of the schedule.
            epochs: in all, earlier ones included; also where an earlier call was ended early.
            layers: "heads", "3+", "4+", "5+", "all" or a regular expression over layer names.
            augmentation: None takes what `config.AUGMENTATION` names; any imgaug augmenter works too.
            custom_callbacks: further Keras callbacks; their `model` is `keras_model`.
            no_augmentation_sources: sources of the datasets whose images are not augmented.
            folder: train in this very folder instead of `log_dir`, resume what was interrupted there, and keep no
                weights but the last.

        Raises:
            InputError: in another mode than "training", without a layer that learns or an image, or for a loss that is
                not finite.
        """
        if self.mode != "training":
            raise InputError("train needs a MaskRCNN made with mode='training'")
        self.set_trainable(layers, verbose=0)
        check_some_learn(self.parts.named_layers(), layers)
        target, callbacks = Path(folder or self.log_dir), list(custom_callbacks or ())
        writes, is_run = is_chief(self.strategy), folder is None
        if writes and is_run:
            callbacks.insert(0, keras.callbacks.TensorBoard(target / TENSORBOARD, write_graph=False))
        fit_detector(
            self.keras_model,
            self.config,
            *([each] if isinstance(each, Dataset) else list(each) for each in (train_dataset, val_dataset)),
            epochs=epochs,
            learning_rate=learning_rate,
            folder=target,
            augmentation=augmentation or make_augmentation(self.config),
            first_epoch=self.epoch if is_run or not self._resumes else None,
            is_resumed=self._resumes,
            no_augmentation_sources=no_augmentation_sources or (),
            callbacks=callbacks,
            weights_path=(lambda epoch: target / checkpoint_name(self._name, epoch)) if is_run else None,
        )
        self.epoch, self._resumes = max(self.epoch, epochs), False
        if writes:
            self.save(target)

    def set_trainable(
        self, layer_regex: str, keras_model: keras.Model | None = None, indent: int = 0, verbose: int = 1
    ) -> None:
        """Let the layers learn, of `keras_model` if given, whose whole name matches; freeze the others.

        `layer_regex` is a regular expression, or "heads", "3+", "4+", "5+", "all". `verbose` prints the names.
        """
        layers = self.parts.named_layers() if keras_model is None else keras_model.layers
        for layer in choose_layers(layers, layer_regex):
            if verbose:
                log(f"{' ' * indent}{layer.name:20}   ({type(layer).__name__})")

    def set_log_dir(self, model_path: str | os.PathLike | None = None) -> None:
        """Choose the folder of the run: that of the checkpoint `model_path`, to resume, or a new one."""
        folder, self.epoch = run_folder(self.model_dir, self._name, model_path)
        self._resumes = True  # the optimiser's state, if the folder has it
        self.log_dir = str(folder)

    @property
    def checkpoint_path(self) -> str:
        """Where checkpoints of this run lie, "{epoch:04d}" standing for the number."""
        return os.path.join(self.log_dir, checkpoint_name(self._name, "{epoch:04d}"))

    @property
    def _name(self) -> str:
        return str(self.config.NAME or "run")

    def find_last(self) -> str:
        """Path of the newest checkpoint of the newest run in `model_dir`; FileNotFoundError if there is none."""
        return str(find_last(self.model_dir, self._name))

    def get_imagenet_weights(self) -> str:
        """Download ImageNet weights of the backbone, or find them where they were downloaded; the file's path."""
        return str(imagenet_weights_path(self.config.BACKBONE))

    def detect(
        self, images: Sequence[np.ndarray], verbose: int = 0, masks: bool = True, *, paste: bool = True
    ) -> list[dict[str, np.ndarray]]:
        """Find the cells of some images; one of another type or shape is an InputError.

        Args:
            images: arrays of shape (height, width, channels) or (height, width), of any sizes; uint8, or other numbers
                on the scale of 0 to 255.
            verbose: 1 prints what came in.
            masks: False skips the mask head, most of the time, and leaves "masks" and "small_masks" out.
            paste: False leaves "masks" out, which are as large as the image.

        Returns:
            For each image a dictionary: "rois" int32 (n, 4), pixels of the image; "class_ids" int32 (n,);
            "scores" float32 (n,) in [0, 1], best first; "masks" bool (height, width, n); "small_masks" float32
            (n, 28, 28), probabilities over the box; "feats" float32 (n, 14, 14, channels).
        """
        log_images(images, verbose)
        results = self._detection.on_images(images, masks, paste)
        self._anchor_shape = self._detection.last_shape or self._anchor_shape
        return results

    def save(self, folder: str | os.PathLike | None = None) -> None:
        """Write `config.json` and the weights to `folder` (default: `model_dir`), the weights last."""
        save_detector(self.parts, self.config, Path(folder or self.model_dir))

    def load_weights(
        self, filepath: str | os.PathLike, by_name: bool = False, exclude: Sequence[str] | None = None
    ) -> LoadReport | None:
        """Load weights: what `save` wrote, a checkpoint of Matterport's or ours, or ImageNet weights.

        After a checkpoint of a run `train` resumes that run. What matched is returned and printed; nothing of a
        `.weights.h5` file, which matches whole or not at all.

        Args:
            filepath: a `.weights.h5` file of the same configuration, or any `.h5` file in Matterport's layout.
            by_name: not needed; files in Matterport's layout are always matched by the layers' names.
            exclude: names of layers that keep their weights, such as the heads of another number of classes.

        Raises:
            InputError: if the file is missing or cut short, or does not fit the layers that are not excluded.
        """
        path = Path(filepath)
        if not path.is_file():
            raise InputError(f"{path}: no such weights file")
        if path.name.endswith(".weights.h5"):
            if exclude:
                raise InputError(f"{path}: exclude works on files in Matterport's layout, not on .weights.h5 files")
            load_parts(self.parts, lambda: self.keras_model, path)
            return None
        report = load_by_name(self.parts.named_layers(), path, exclude or ())
        if not logger.isEnabledFor(logging.INFO):
            print(report)  # as Matterport's own class does: scripts have no logging set up, which shows it otherwise
        self.set_log_dir(path)
        return report


def load_detector(
    folder: str | os.PathLike, overrides: dict[str, Any] | None = None, max_detections: int | None = None
) -> MaskRCNN:
    """Open a trained detector for inference.

    Args:
        folder: what `MaskRCNN.save` wrote, or the name of a detector that ships, such as "smear-small"; a folder wins.
        overrides: settings to change, such as a lower DETECTION_MIN_CONFIDENCE.
        max_detections: maximum of cells of an image, with proposals enough for them; None leaves both as they are.

    Raises:
        InputError: if the folder holds no finished detector or a damaged file, or `max_detections` is below 1.
    """
    folder = find_detector(folder)
    model = MaskRCNN("inference", detector_config(folder, overrides, max_detections), folder)
    model.load_weights(folder / WEIGHTS_NAME)
    return model


def detector_config(
    folder: str | os.PathLike, overrides: dict[str, Any] | None = None, max_detections: int | None = None
) -> Config:
    """The settings that `load_detector` gives a detector, without its weights; arguments and errors as there."""
    folder = find_detector(folder)
    settings = read_settings(folder)
    try:
        trained = make_config(settings, Config, keep_unknown=True)
    except InputError as error:
        raise InputError(f"{folder / CONFIG_NAME}: {error}") from None
    check_can_hold(trained, folder / WEIGHTS_NAME)
    if "ROI_ALIGN" not in settings:
        raise InputError(f"{folder}: made before there was a choice of RoIAlign, with one of its own; train it again")
    config = make_config(overrides or {}, type(trained))
    return config if max_detections is None else with_detections(config, max_detections)
