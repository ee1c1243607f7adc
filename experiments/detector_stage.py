"""Training and evaluating the detector on centres with masks."""

import hashlib
import json
import logging
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from experiments.centres import Centre
from mrcnn.atomic import write_json
from mrcnn.config import SmearConfig, make_config
from mrcnn.data.annotations import CellMaskDataset, VocBoxDataset, check_annotations
from mrcnn.data.records import ImageRecord
from mrcnn.errors import InputError
from mrcnn.evaluation import evaluate_boxes, evaluate_masks, evaluate_presence
from mrcnn.model import WEIGHTS_NAME, MaskRCNN, detector_hash, load_detector
from mrcnn.training import checkpoints

log = logging.getLogger(__name__)

SPLIT, RUN, METRICS = "split.json", "run.json", "metrics.json"


@dataclass
class MaskedImages:
    """The usable images of a centre with masks.

    Attributes:
        centre: its name.
        folder: of the masks.
        semantics: what the masks' values mean.
        records: images with a good mask.
        faults: (key, reason) of the others.
    """

    centre: str
    folder: Path
    semantics: str
    records: list[ImageRecord]
    faults: list[tuple[str, str]]

    def dataset(self, keys: set[str] | None = None) -> CellMaskDataset:
        """The images whose key is in `keys`, or all."""
        chosen = [r for r in self.records if keys is None or r.key in keys]
        return CellMaskDataset(chosen, self.folder, semantics=self.semantics, source=self.centre.replace(".", "_"))


def masked_images(centre: Centre, semantics: str) -> MaskedImages:
    """Check a centre's masks; faults are logged, one line each, and their images left out.

    Raises:
        InputError: if the centre has no masks, or no usable one.
    """
    if centre.masks is None:
        raise InputError(f"{centre.root}: centre {centre.name} has no folder masks/, which the detector learns from")
    check = check_annotations(centre.records, centre.masks, semantics=semantics)
    for key, reason in check.faults:
        log.warning("%s: %s: left out: %s", centre.name, key, reason)
    if not check.good:
        raise InputError(f"{centre.masks}: no usable mask ({len(check.faults)} faults)")
    return MaskedImages(centre.name, centre.masks, semantics, check.good, check.faults)


def split_keys(images: MaskedImages, train_share: float, seed: int) -> dict[str, list[str]]:
    """Divide a centre's masked images at random into "train" and "test" keys, both sorted.

    No labels are used, since the detector knows none.

    Raises:
        InputError: if either part would be empty.
    """
    keys = sorted(record.key for record in images.records)
    order = np.random.default_rng(seed).permutation(len(keys))
    num_train = round(train_share * len(keys))
    if not 0 < num_train < len(keys):
        raise InputError(f"{images.centre}: {len(keys)} images with masks are too few to hold some out; add images")
    return {
        "train": sorted(keys[i] for i in order[:num_train]),
        "test": sorted(keys[i] for i in order[num_train:]),
    }


def train_detector(
    images: Sequence[MaskedImages],
    output: Path,
    *,
    settings: Mapping[str, Any],
    epochs: int,
    train_share: float,
    seed: int,
    overwrite: bool = False,
    progress: bool = True,
) -> bool:
    """Train a detector on a share of the images of one or more centres and leave it in `output`.

    An interrupted training goes on at its last epoch; a finished one of the same settings is kept.

    Args:
        images: what to learn from.
        output: the run's folder: `config.json`, `run.json`, `split.json`, `weights.weights.h5`, `log.csv`.
        settings: overrides of `SmearConfig`.
        epochs: of STEPS_PER_EPOCH steps.
        train_share: share of each centre's images to learn from.
        seed: of everything random, unless `settings` has a SEED.
        overwrite: start anew whatever is there.
        progress: show a bar.

    Returns:
        True if it trained, False if a finished detector was reused.

    Raises:
        InputError: for unknown settings, or if `output` holds a detector of other settings.
    """
    config = make_config({"SEED": seed, **settings}, SmearConfig)
    splits = {i.centre: split_keys(i, train_share, seed) for i in images}
    identity = {"config": config.to_dict(), "epochs": epochs, "split": _hash(splits)}
    if overwrite:
        _clear(output)
    earlier = _read(output / RUN)
    if earlier is not None:
        _check_same(output, earlier["identity"], identity)
        if earlier["complete"] and (output / WEIGHTS_NAME).exists():
            log.info("%s: detector reused", output)
            return False
    run = {
        "complete": False,
        "identity": identity,
        "seed": config.SEED,
        "train_images": {name: len(split["train"]) for name, split in splits.items()},
        "left_out": {i.centre: i.faults for i in images},
        "versions": versions(),
        "command": sys.argv,
    }
    write_json(output / SPLIT, splits)
    write_json(output / RUN, run)
    started = time.monotonic()
    train = [i.dataset(set(splits[i.centre]["train"])) for i in images]
    test = [i.dataset(set(splits[i.centre]["test"])) for i in images]
    model = MaskRCNN("training", config, output)
    rows = model.train(train, test, config.LEARNING_RATE, epochs, "all", progress=progress)
    run |= {"complete": True, "seconds": round(time.monotonic() - started, 1), "last_epoch": rows[-1] if rows else None}
    write_json(output / RUN, run)
    # Optimiser state is three times the weights, and nothing goes on from here.
    _remove_checkpoints(output)
    return True


def evaluate_detector(
    detector: Path,
    centres: Mapping[str, Centre],
    semantics: Mapping[str, str],
    box_names: Mapping[str, Sequence[str]],
    *,
    min_score_for_ap: float = 0.05,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Measure a detector on each centre by the best truth it has: masks, else boxes, else the presence of a cell.

    Images that the detector learned from (its `split.json`) are left out.

    Args:
        detector: its folder.
        centres: by name.
        semantics: of the masks, by centre.
        box_names: object names that count as white cells, by centre.
        min_score_for_ap: lowest score on the precision-recall curve.
        progress: show bars.

    Returns:
        For each centre its measures, `truth` ("masks", "boxes" or "presence") and `held_out`: whether the detector
        learned from other images of the centre.
    """
    model = load_detector(detector, {"DETECTION_MIN_CONFIDENCE": min_score_for_ap})
    operating = make_config(json.loads((detector / "config.json").read_text(encoding="utf-8"))).DETECTION_MIN_CONFIDENCE
    splits = _read(detector / SPLIT) or {}
    metrics: dict[str, dict[str, Any]] = {}
    for name, centre in centres.items():
        show = {"progress": progress, "description": f"evaluate {name}"}
        learned = set(splits.get(name, {}).get("train", ()))
        if centre.masks is not None:
            images = masked_images(centre, semantics[name])
            keys = {record.key for record in images.records} - learned
            measured = evaluate_masks(model, [images.dataset(keys)], operating, **show)
            truth = "masks"
        elif centre.boxes is not None:
            dataset = VocBoxDataset(centre.records, centre.boxes, names=box_names[name])
            measured, truth = evaluate_boxes(model, dataset, operating, **show), "boxes"
        else:
            measured, truth = evaluate_presence(model, centre.records, operating, **show), "presence"
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


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    names = ("tensorflow", "keras", "numpy", "h5py", "scikit-learn", "imaug", "opencv-python-headless")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _clear(output: Path) -> None:
    for path in (RUN, SPLIT, METRICS, "config.json", WEIGHTS_NAME, "log.csv"):
        (output / path).unlink(missing_ok=True)
    _remove_checkpoints(output)


def _remove_checkpoints(output: Path) -> None:
    for _, path in checkpoints(output):
        path.unlink()


def _check_same(output: Path, earlier: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if earlier == json.loads(json.dumps(wanted)):
        return
    old, new = earlier.get("config", {}), wanted["config"]
    changed = [f"{k} {old.get(k)} -> {v}" for k, v in json.loads(json.dumps(new)).items() if old.get(k) != v]
    if earlier.get("epochs") != wanted["epochs"]:
        changed.append(f"epochs {earlier.get('epochs')} -> {wanted['epochs']}")
    if earlier.get("split") != wanted["split"]:
        changed.append("other training images")
    raise InputError(
        f"{output} holds a detector of other settings ({', '.join(changed)}): choose another output or give --overwrite"
    )


def _read(path: Path) -> Any:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); remove it or give --overwrite") from error


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
