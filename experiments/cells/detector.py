"""Training and evaluating the detector on centres with masks."""

import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from experiments.cells.models import detector_folder
from experiments.centres.centre import Centre
from experiments.centres.masks import AnnotationChoice, MaskedImages, check_masks, find_masks, warn_of_crowded
from experiments.centres.splits import hold_out
from experiments.settings import DetectorSettings, is_detector, smear_config
from mrcnn.annotations.voc import VocBoxDataset
from mrcnn.config import Config, make_config
from mrcnn.data.colour_shifts import ColourShifted
from mrcnn.evaluation import choose_min_confidence, evaluate_boxes, evaluate_masks, evaluate_presence
from mrcnn.files.atomic import atomic_path, remove_leftovers, write_json
from mrcnn.files.devices import is_chief
from mrcnn.files.errors import InputError
from mrcnn.files.fitting import last_row, list_checkpoints, remove_checkpoints
from mrcnn.files.provenance import hash_json, versions
from mrcnn.files.run_folder import RunFolder
from mrcnn.model import MaskRCNN, load_detector
from mrcnn.model import detector_config as settings_of_detector
from mrcnn.training.folder import (
    CHECKPOINTS,
    CONFIG_NAME,
    LOG,
    SPLIT,
    WEIGHTS_NAME,
    clear_training,
    detector_hash,
    read_optional,
    read_settings,
)
from mrcnn.training.shipped import DEFAULT, shipped_detector
from mrcnn.training.weights import check_some_learn

log = logging.getLogger(__name__)

SCRATCH = "scratch"
ENOUGH_IMAGES = 300  # annotated, to train from scratch unless asked otherwise
FINE_TUNING_RATE = 2e-4  # of a detector that has learned before; a third of what the one that ships was trained with
# Settings that the shapes of weights depend on.
NETWORK_SETTINGS = (
    *("BACKBONE", "NORMALIZATION", "TRAIN_BN", "NUM_CLASSES", "IMAGE_CHANNEL_COUNT", "TOP_DOWN_PYRAMID_SIZE"),
    *("PYRAMID_HIDDEN_SIZE", "RPN_CHANNELS", "RPN_ANCHOR_RATIOS", "FPN_CLASSIF_FC_LAYERS_SIZE", "POOL_SIZE"),
    *("MASK_PARTS", "MASK_CONV_CHANNELS", "MASK_SHAPE", "MASK_POOL_SIZE"),
)


def choose_start(settings: DetectorSettings, images: Sequence[MaskedImages]) -> DetectorSettings:
    """Settings that say what the training begins with; where they did not, this is decided and logged.

    Few images do better from the detector that ships. It is taken unless there is none, or the settings ask for another
    network than its own.
    """
    if settings.start is not None:
        return settings
    count, few = sum(len(each.records) for each in images), f"fewer than {ENOUGH_IMAGES}"
    if shipped_detector() is None:
        start, why = SCRATCH, "no detector ships with this installation"
    elif count >= ENOUGH_IMAGES:
        start, why = SCRATCH, f"{count} annotated images are enough"
    elif _has_other_network(settings):
        start, why = SCRATCH, f"the settings are of another network than {DEFAULT}'s"
    else:
        start, why = DEFAULT, f"which ships with aecfe: {count} annotated images are {few}"
    log.info("training starts from %s, %s; --start chooses", start, why)
    return settings.replace(start=start)


def _has_other_network(settings: DetectorSettings) -> bool:
    own = settings_of_detector(DEFAULT)
    try:
        wanted = settings_of_detector(DEFAULT, settings.settings)
    except InputError:  # which fit together in SmearConfig alone
        return True
    return any(getattr(own, name) != getattr(wanted, name) for name in NETWORK_SETTINGS)


def detector_config(settings: DetectorSettings, seed: int) -> Config:
    """The network's settings: those given and the seed, over those of what the training begins with.

    That is a detector, which is to learn more slowly than from scratch, or frozen BatchNorm for weights by name.
    """
    if is_detector(settings.start):
        own = {"SEED": seed, "LEARNING_RATE": FINE_TUNING_RATE, "GPU_COUNT": 1}
        return settings_of_detector(detector_folder(settings.start), {**own, **settings.settings})
    pretrained = {"NORMALIZATION": "frozen_batch"} if settings.starts_by_name else {}
    return make_config({"SEED": seed, **pretrained, **settings.settings}, smear_config(settings.settings))


def _load_start(model: MaskRCNN, settings: DetectorSettings) -> None:
    """Give a model the weights that its training begins with."""
    if is_detector(settings.start):
        model.load_weights(detector_folder(settings.start) / WEIGHTS_NAME)
    elif settings.start != SCRATCH:
        path = model.get_imagenet_weights() if settings.start == "imagenet" else settings.start
        model.load_weights(path, by_name=True, exclude=settings.exclude)


def take_detector(trained: Path, folder: Path, *, overwrite: bool = False) -> None:
    """Copy a trained detector to the folder of a run, unless it is there; an InputError if another one is."""
    read_settings(trained)
    if all((folder / name).is_file() for name in (CONFIG_NAME, WEIGHTS_NAME)):
        if detector_hash(folder) == detector_hash(trained):
            log.info("%s: detector reused", folder)
            return
        if not overwrite:
            raise InputError(f"{folder}: another detector is there; give another output, or --overwrite to replace it")
    clear_training(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cards = sorted(path.name for path in trained.glob("*.md"))
    for name in (*cards, SPLIT, CONFIG_NAME, WEIGHTS_NAME):
        if (trained / name).is_file():
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(trained / name, temporary)


def train_detector(
    images: Sequence[MaskedImages],
    output: Path,
    *,
    settings: DetectorSettings,
    seed: int,
    overwrite: bool = False,
    strategy: tf.distribute.Strategy | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> bool:
    """Train a detector on a part of the images of one or more centres and leave it in `output`.

    An interrupted or killed training resumes after its last finished epoch. A finished one of the same settings is
    kept, and False returned.

    Args:
        images: what to learn from.
        output: the run's folder: `config.json`, `run.json`, `split.json`, `weights.weights.h5`, `log.csv`.
        settings: how. Without a DETECTION_MIN_CONFIDENCE of its own the detector gets the score that is best on the
            held-out images; see also `choose_start` and `detector_config`.
        seed: of everything random, unless the settings have a SEED.
        overwrite: start anew whatever is there; it is removed once all that can be checked was found good.
        strategy: how several devices or processes share each batch; None follows GPU_COUNT. Of several processes only
            the chief writes.
        callbacks: further Keras callbacks of the training.

    Raises:
        InputError: for unknown settings, weights or layers that do not fit, or if `output` holds a detector of other
            settings or masks, or another run is writing it.
    """
    settings = choose_start(settings, images)
    config = detector_config(settings, seed)
    splits = {i.centre: hold_out(i.centre, (r.image_id for r in i.records), settings.train_share, seed) for i in images}
    identity = {"config": config.to_dict(), "epochs": settings.epochs, "split": hash_json(splits)}
    if settings.start != SCRATCH or settings.layers != "all":
        start = detector_hash(detector_folder(settings.start)) if is_detector(settings.start) else settings.start
        identity["start"] = [None if start == SCRATCH else start, settings.exclude, settings.layers]
    identity["annotations"] = {i.centre: i.source.identity() for i in images}
    run = RunFolder(output, "detector", identity)
    writes = strategy is None or is_chief(strategy)
    with run.writing(overwrite) if writes else nullcontext(overwrite or not run.is_complete()) as wanted:
        if not wanted:
            log.info("%s: detector reused", output)
            with suppress(OSError):  # of a run that was killed just before it removed them
                remove_checkpoints(output / CHECKPOINTS)
            return False
        # Before anything is written or removed: what does not fit leaves no half-begun detector behind, and with
        # `overwrite` the one that is there as it is.
        model = MaskRCNN("training", config, output, strategy=strategy)
        if overwrite or not list_checkpoints(output / CHECKPOINTS):
            _load_start(model, settings)
        model.set_trainable(settings.layers, verbose=0)
        check_some_learn(model.parts.named_layers(), settings.layers)
        warn_of_crowded(images, config.MAX_GT_INSTANCES)
        train, test = ([i.dataset(splits[i.centre][part]) for i in images] for part in ("train", "test"))
        record: dict[str, Any] = {
            "seed": config.SEED,
            "train_images": {name: len(split["train"]) for name, split in splits.items()},
            "left_out": {i.centre: i.faults for i in images},
            "versions": versions(),
            "command": sys.argv,
        }
        if writes:
            if overwrite:
                clear_training(output)
            elif run.record is None:
                remove_checkpoints(output / CHECKPOINTS)  # nothing says what they belong to
            remove_leftovers(output / CHECKPOINTS)
            write_json(output / SPLIT, splits)
            run.write(False, record)
        started = time.monotonic()
        how = {"custom_callbacks": callbacks, "folder": output}
        model.train(train, test, config.LEARNING_RATE, settings.epochs, settings.layers, **how)
        if writes:
            if "DETECTION_MIN_CONFIDENCE" not in settings.settings:
                record["min_confidence"] = choose_min_confidence(output, test, settings.min_score_for_ap)
            seconds = round(time.monotonic() - started, 1)
            run.write(True, {**record, "seconds": seconds, "last_epoch": last_row(output / LOG)})
            remove_checkpoints(output / CHECKPOINTS)
    return True


def evaluate_detector(
    detector: Path,
    centres: Mapping[str, Centre],
    choices: Mapping[str, AnnotationChoice],
    box_names: Mapping[str, Sequence[str]],
    *,
    min_score_for_ap: float = 0.05,
    overrides: Mapping[str, Any] | None = None,
    colour_shifts: int = 0,
) -> dict[str, dict[str, Any]]:
    """Measure a detector on each centre by the best truth it has: masks, else boxes, else the presence of a cell.

    Images that the detector learned from (its `split.json`) are left out.

    Args:
        detector: its folder.
        centres, choices, box_names: by the names of centres, with what is known of the masks, and the names of objects
            that count as white cells.
        min_score_for_ap: lowest score on the precision-recall curve.
        overrides: settings of the detector to change.
        colour_shifts: show each image under so many changes of colour, and not as it is; needs masks.

    Returns:
        For each centre its measures, `truth` ("masks", "boxes" or "presence") and `held_out`: whether the detector
        learned from other images of the centre.

    Raises:
        InputError: if a centre has no usable truth, or none but of images that the detector learned from, or no masks
            for `colour_shifts`.
    """
    model = load_detector(detector, {**(overrides or {}), "DETECTION_MIN_CONFIDENCE": min_score_for_ap})
    operating = read_settings(detector)["DETECTION_MIN_CONFIDENCE"]
    splits = read_optional(detector / SPLIT) or {}
    metrics: dict[str, dict[str, Any]] = {}
    for name, centre in centres.items():
        show = {"description": f"evaluate {name}"}
        learned = set(splits.get(name, {}).get("train", ()))
        records = [record for record in centre.records if record.image_id not in learned]
        if not records:
            raise InputError(f"{centre.root}: the detector learned from every image of centre {name}; give others")
        masks = find_masks(centre.root, centre.records, choices[name])
        if masks is not None:
            # All of them, since outlines of learned images would belong to no image otherwise.
            images = check_masks(name, centre.records, masks)
            image_ids = {record.image_id for record in images.records} - learned
            if not image_ids:
                raise InputError(
                    f"{centre.root}: no usable mask in centre {name} of an image that the detector did not learn from "
                    f"({len(images.faults)} faults, listed above)"
                )
            dataset = images.dataset(image_ids)
            dataset = ColourShifted(dataset, colour_shifts) if colour_shifts else dataset
            measured, truth = evaluate_masks(model, [dataset], operating, **show), "masks"
        elif colour_shifts:
            raise InputError(f"{centre.root}: --colour-shifts needs masks, and centre {name} has none")
        elif centre.boxes is not None:
            dataset = VocBoxDataset(records, centre.boxes, names=box_names[name])
            measured, truth = evaluate_boxes(model, dataset, operating, **show), "boxes"
        else:
            measured, truth = evaluate_presence(model, records, operating, **show), "presence"
        metrics[name] = {"truth": truth, "held_out": bool(learned), **measured}
    return metrics
