"""Training and evaluating the detector on centres with masks."""

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import tensorflow as tf

from experiments.centres.centre import Centre
from experiments.centres.masks import AnnotationChoice, MaskedImages, check_masks, find_masks, warn_of_crowded
from experiments.centres.splits import hold_out
from experiments.settings import DetectorSettings
from mrcnn.annotations.label_masks import VocBoxDataset
from mrcnn.config import Config, SmearConfig, make_config
from mrcnn.data.dataset import Dataset
from mrcnn.evaluation import evaluate_boxes, evaluate_masks, evaluate_presence, measure_operating_score
from mrcnn.files.atomic import OutputLock, remove_leftovers, tidy_folder, write_json
from mrcnn.files.devices import is_chief
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file
from mrcnn.files.provenance import hash_json, versions
from mrcnn.model import WEIGHTS_NAME, MaskRCNN, detector_hash, load_detector
from mrcnn.training.epoch_part import remove_parts
from mrcnn.training.folder import CONFIG_NAME, read_settings
from mrcnn.training.log import checkpoints
from mrcnn.training.weights import check_some_learn

log = logging.getLogger(__name__)

SPLIT, RUN, METRICS = "split.json", "run.json", "metrics.json"


def train_detector(
    images: Sequence[MaskedImages],
    output: Path,
    *,
    settings: DetectorSettings,
    seed: int,
    overwrite: bool = False,
    strategy: tf.distribute.Strategy | None = None,
) -> bool:
    """Train a detector on a share of the images of one or more centres and leave it in `output`.

    An interrupted training goes on at its last step, a killed one at its last epoch; a finished one of the same
    settings is kept.

    Args:
        images: what to learn from.
        output: the run's folder: `config.json`, `run.json`, `split.json`, `weights.weights.h5`, `log.csv`.
        settings: how. Without a DETECTION_MIN_CONFIDENCE of its own the detector gets the score that is best on the
            held-out images. With `weights` and no NORMALIZATION of its own the detector has the frozen BatchNorm that
            pretrained weights want.
        seed: of everything random, unless the settings have a SEED.
        overwrite: start anew whatever is there; it is removed once all that can be checked was found good.
        strategy: how several devices or processes share each batch; None follows GPU_COUNT. Of several processes only
            the chief writes.

    Returns:
        True if it trained, False if a finished detector was reused.

    Raises:
        InputError: for unknown settings, weights or layers that do not fit, or if `output` holds a detector of other
            settings or other masks, or another run is writing it.
    """
    pretrained = {"NORMALIZATION": "frozen_batch"} if settings.weights else {}
    config = make_config({"SEED": seed, **pretrained, **settings.settings}, SmearConfig)
    splits = {i.centre: hold_out(i.centre, (r.key for r in i.records), settings.train_share, seed) for i in images}
    identity = {"config": config.to_dict(), "epochs": settings.epochs, "split": hash_json(splits)}
    if settings.weights or settings.layers != "all":
        identity["start"] = [settings.weights, settings.exclude, settings.layers]
    identity["annotations"] = {i.centre: i.source.identity() for i in images}
    writes = strategy is None or is_chief(strategy)
    if not overwrite and _is_finished(output, identity):
        if writes:
            tidy_folder(output)
        return False
    with OutputLock(output, inside=True) if writes else nullcontext() as lock:
        if lock is not None and lock.is_held:
            for folder in (output, output / "checkpoint"):
                remove_leftovers(folder)
        # Once more, since another run may have ended meanwhile.
        if not overwrite and _is_finished(output, identity):
            return False
        _train(images, output, config, splits, identity, settings, overwrite, strategy)
    return True


def _is_finished(output: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the detector is there already; it may lie where nothing can be written."""
    earlier = _read(output / RUN)
    if earlier is None:
        return False
    _check_same(output, earlier["identity"], identity)
    if not earlier["complete"] or not (output / WEIGHTS_NAME).exists():
        return False
    log.info("%s: detector reused", output)
    if checkpoints(output):  # of a run that was killed just before it removed them
        with suppress(OSError):
            _remove_checkpoints(output)
    return True


def _train(
    images: Sequence[MaskedImages],
    output: Path,
    config: Config,
    splits: Mapping[str, Mapping[str, list[str]]],
    identity: Mapping[str, Any],
    settings: DetectorSettings,
    overwrite: bool,
    strategy: tf.distribute.Strategy | None,
) -> None:
    """Train in a folder that this run alone writes, from its last checkpoint on."""
    writes = strategy is None or is_chief(strategy)
    # Before anything is written or removed: what does not fit leaves no half-begun detector behind, and with
    # `overwrite` the one that is there as it is.
    model = MaskRCNN("training", config, output, strategy=strategy)
    if settings.weights and (overwrite or not checkpoints(output)):
        path = model.get_imagenet_weights() if settings.weights == "imagenet" else settings.weights
        model.load_weights(path, by_name=True, exclude=settings.exclude)
    model.set_trainable(settings.layers, verbose=0)
    check_some_learn(model.parts.named_layers(), settings.layers)
    warn_of_crowded(images, config.MAX_GT_INSTANCES)
    train = [i.dataset(set(splits[i.centre]["train"])) for i in images]
    test = [i.dataset(set(splits[i.centre]["test"])) for i in images]
    run = {
        "complete": False,
        "identity": identity,
        "seed": config.SEED,
        "train_images": {name: len(split["train"]) for name, split in splits.items()},
        "left_out": {i.centre: i.faults for i in images},
        "versions": versions(),
        "command": sys.argv,
    }
    if writes:
        if overwrite:
            _clear(output)
        elif not (output / RUN).exists():
            _remove_checkpoints(output)  # nothing says what they belong to
        write_json(output / SPLIT, splits)
        write_json(output / RUN, run)
    started = time.monotonic()
    rows = model.train(train, test, config.LEARNING_RATE, settings.epochs, settings.layers, folder=output)
    if not writes:
        return
    if "DETECTION_MIN_CONFIDENCE" not in settings.settings:
        run["min_confidence"] = _choose_min_confidence(output, test, settings.min_score_for_ap)
    run |= {"complete": True, "seconds": round(time.monotonic() - started, 1), "last_epoch": rows[-1] if rows else None}
    write_json(output / RUN, run)
    # Optimiser state is three times the weights, and nothing goes on from here.
    _remove_checkpoints(output)


def _choose_min_confidence(output: Path, held_out: Sequence[Dataset], lowest: float) -> float:
    """Put the score from which detections count, as the held-out images have it, into the detector's settings."""
    detector = load_detector(output, {"DETECTION_MIN_CONFIDENCE": lowest})
    chosen = measure_operating_score(detector, held_out)
    known = read_settings(output)
    if chosen is None:
        log.warning("%s: no cell was found on the held-out images; DETECTION_MIN_CONFIDENCE stays as it is", output)
        return known["DETECTION_MIN_CONFIDENCE"]
    chosen = round(chosen, 4)
    log.info("detections count from a score of %g on, chosen on the held-out images", chosen)
    write_json(output / CONFIG_NAME, {**known, "DETECTION_MIN_CONFIDENCE": chosen})
    return chosen


def evaluate_detector(
    detector: Path,
    centres: Mapping[str, Centre],
    choices: Mapping[str, AnnotationChoice],
    box_names: Mapping[str, Sequence[str]],
    *,
    min_score_for_ap: float = 0.05,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure a detector on each centre by the best truth it has: masks, else boxes, else the presence of a cell.

    Images that the detector learned from (its `split.json`) are left out.

    Args:
        detector: its folder.
        centres: by name.
        choices: what is known of the masks, by centre.
        box_names: object names that count as white cells, by centre.
        min_score_for_ap: lowest score on the precision-recall curve.
        overrides: settings of the detector to change, such as the number of proposals.

    Returns:
        For each centre its measures, `truth` ("masks", "boxes" or "presence") and `held_out`: whether the detector
        learned from other images of the centre.

    Raises:
        InputError: if a centre has no usable truth, or none but of images that the detector learned from.
    """
    model = load_detector(detector, {**(overrides or {}), "DETECTION_MIN_CONFIDENCE": min_score_for_ap})
    operating = read_settings(detector)["DETECTION_MIN_CONFIDENCE"]
    splits = _read(detector / SPLIT) or {}
    metrics: dict[str, dict[str, Any]] = {}
    for name, centre in centres.items():
        show = {"description": f"evaluate {name}"}
        learned = set(splits.get(name, {}).get("train", ()))
        records = [record for record in centre.records if record.key not in learned]
        if not records:
            raise InputError(f"{centre.root}: the detector learned from every image of centre {name}; give others")
        masks = find_masks(centre.root, centre.records, choices[name])
        if masks is not None:
            # All of them, since outlines of learned images would belong to no image otherwise.
            images = check_masks(name, centre.records, masks)
            keys = {record.key for record in images.records} - learned
            if not keys:
                raise InputError(
                    f"{centre.root}: no usable mask in centre {name} of an image that the detector did not learn from "
                    f"({len(images.faults)} faults, listed above)"
                )
            measured = evaluate_masks(model, [images.dataset(keys, crowds=False)], operating, **show)
            truth = "masks"
        elif centre.boxes is not None:
            dataset = VocBoxDataset(records, centre.boxes, names=box_names[name])
            measured, truth = evaluate_boxes(model, dataset, operating, **show), "boxes"
        else:
            measured, truth = evaluate_presence(model, records, operating, **show), "presence"
        metrics[name] = {"truth": truth, "held_out": bool(learned), **measured}
    return metrics


def write_metrics(folder: Path, measured: Mapping[str, Any]) -> None:
    """Write what `evaluate_detector` returned to `metrics.json`, with the hash of the detector it holds for."""
    write_json(folder / METRICS, {"detector": detector_hash(folder), "centres": measured})


def read_metrics(folder: Path) -> dict[str, dict[str, Any]] | None:
    """What `write_metrics` wrote, or None if it is not there or holds for another detector."""
    known = _read(folder / METRICS)
    if known is None or known.get("detector") != detector_hash(folder):
        return None
    return known["centres"]


def _clear(output: Path) -> None:
    for path in (RUN, SPLIT, METRICS, CONFIG_NAME, WEIGHTS_NAME, "log.csv"):
        (output / path).unlink(missing_ok=True)
    # TensorBoard would draw the curves of both trainings as one.
    for path in (output / "tensorboard").glob("events.out.tfevents.*"):
        path.unlink()
    _remove_checkpoints(output)


def _remove_checkpoints(output: Path) -> None:
    for _, path in checkpoints(output):
        path.unlink()
    remove_parts(output)


def _check_same(output: Path, earlier: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(wanted))
    # Under its first name this held nothing of label masks.
    known = earlier.get("annotations", earlier.get("outlines")) or {}
    unknown = [name for name, now in wanted["annotations"].items() if now["format"] == "masks" and not known.get(name)]
    other_annotations = any(
        known.get(name) != now for name, now in wanted["annotations"].items() if name not in unknown
    )
    old, new = earlier.get("config", {}), wanted["config"]
    changed = [f"{k} {old.get(k)} -> {v}" for k, v in new.items() if old.get(k) != v]
    changed += [f"{k} {v} -> none" for k, v in old.items() if k not in new]
    if earlier.get("epochs") != wanted["epochs"]:
        changed.append(f"epochs {earlier.get('epochs')} -> {wanted['epochs']}")
    if earlier.get("split") != wanted["split"]:
        changed.append("other training images")
    if earlier.get("start") != wanted.get("start"):
        changed.append("other weights or layers to begin with")
    if other_annotations:
        changed.append("other annotations")
    if changed:
        raise InputError(
            f"{output} holds a detector of other settings ({', '.join(changed)}): choose another output or give "
            "--overwrite"
        )
    if unknown:
        log.warning(
            "%s: its %s does not say which masks of %s it learned from; they are taken to be those that are there now",
            output,
            RUN,
            ", ".join(unknown),
        )


def _read(path: Path) -> Any:
    if not path.exists():
        return None
    advice = "remove it or give --overwrite"
    return read_json_file(path, missing=advice, advice=advice, allow_nan=True)
