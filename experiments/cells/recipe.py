"""Recipe of the detector that ships: learn from masks, draw masks of centres that have none, and learn from all."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from experiments.cells.detector import evaluate_detector
from experiments.cells.self_training import write_pseudo_masks
from experiments.centres.centre import Centre, load_centre
from experiments.centres.masks import AnnotationChoice
from experiments.centres.splits import hold_out
from experiments.synthetic.centre import generate_centre
from experiments.synthetic.styles import CENTRES
from mrcnn.annotations.label_masks import CellMaskDataset
from mrcnn.annotations.voc import VocBoxDataset
from mrcnn.config import Config, SmallSmearConfig, make_config
from mrcnn.data.dataset import Dataset
from mrcnn.data.records import ImageRecord
from mrcnn.evaluation import choose_min_confidence
from mrcnn.files.atomic import write_json
from mrcnn.files.fitting import list_checkpoints, remove_checkpoints
from mrcnn.files.json_io import read_json_file
from mrcnn.files.provenance import hash_json, versions
from mrcnn.files.run_folder import RunFolder
from mrcnn.files.settings import Settings
from mrcnn.model import MaskRCNN, load_detector
from mrcnn.training.folder import CHECKPOINTS, SPLIT, WEIGHTS_NAME, read_metrics, write_metrics

log = logging.getLogger(__name__)

_LOWEST_SCORE = 0.05  # that is looked at where the operating score is chosen and where it is measured


class RecipeCentre(Settings):
    """A centre to learn from: by its masks if it has a folder `masks/`, else by masks that the teacher draws."""

    root: str  # relative to `data`
    layout: str = "auto"
    box_names: list[str] = ["WBC"]  # objects of Pascal VOC files that are white cells
    empty_labels: list[str] = []  # labels of images without a white cell
    train_share: float = Field(0.8, gt=0, lt=1)
    times: int = Field(1, ge=1)  # that each image counts for


class RecipeStage(Settings):
    """A training."""

    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)


class Recipe(Settings):
    """How the detector that ships is made."""

    name: str
    output: str
    data: str = "data"
    seed: int = Field(0, ge=0)
    centres: dict[str, RecipeCentre] = Field(min_length=1)
    leave_out: list[str] = []  # centres that the detector is only measured on
    held_out: str = ""  # folder of centres whose images are never learned from, the sample that ships
    synthetic_images: int = Field(100, ge=1)  # of each style
    teacher: RecipeStage
    student: RecipeStage
    settings: dict[str, Any] = {}  # overrides of `mrcnn.config.SmallSmearConfig`


def make_detector(recipe: Recipe) -> Path:
    """Follow the recipe; what is done is kept, and a training that was killed resumes after its last epoch.

    Returns:
        The detector's folder, with `metrics.json` of every centre, on images that it did not learn from. Those of the
        teacher, beside it, say how well centres are done that were never seen in any form.

    Raises:
        InputError: if a centre cannot be read, or the folder holds what another recipe made.
    """
    output, data = Path(recipe.output), Path(recipe.data)
    centres = {n: load_centre(n, data / s.root, s.layout) for n, s in recipe.centres.items()}
    splits = {name: _split(centre, recipe) for name, centre in centres.items()}
    learned = [name for name in centres if name not in recipe.leave_out]
    masked = [name for name in learned if (centres[name].root / "masks").is_dir()]
    truth = {n: [_dataset(centres[n], splits[n][p], centres[n].root) for p in ("train", "test")] for n in masked}
    datasets = [truth[name][0] for name in masked for _ in range(recipe.centres[name].times)]
    datasets += [_synthetic(style, output / "synthetic" / style, recipe) for style in CENTRES]
    teacher, student = output / "teacher", output / "student"
    _train(teacher, datasets, recipe, recipe.teacher)
    _measure(teacher, centres, {name: splits[name] for name in masked}, truth, recipe)
    for name in learned:
        if name not in masked:
            drawn = _draw(output, centres[name], splits[name]["train"], recipe.centres[name])
            datasets += [drawn] * recipe.centres[name].times
    _train(student, datasets, recipe, recipe.student, teacher)
    _measure(student, centres, {name: splits[name] for name in learned}, truth, recipe)
    return student


def _measure(
    folder: Path,
    centres: Mapping[str, Centre],
    splits: Mapping[str, dict[str, list[str]]],
    truth: Mapping[str, Sequence[Dataset]],
    recipe: Recipe,
) -> None:
    """Choose a detector's operating score and measure it on every centre; `splits` are of those it learned from."""
    if read_metrics(folder) is not None:
        return
    write_json(folder / SPLIT, splits)
    if "DETECTION_MIN_CONFIDENCE" not in recipe.settings:
        choose_min_confidence(folder, [test for _, test in truth.values()], _LOWEST_SCORE)
    choices = dict.fromkeys(centres, AnnotationChoice())
    boxes = {name: settings.box_names for name, settings in recipe.centres.items()}
    write_metrics(folder, evaluate_detector(folder, centres, choices, boxes, min_score_for_ap=_LOWEST_SCORE))


def _split(centre: Centre, recipe: Recipe) -> dict[str, list[str]]:
    """Image_ids to learn from and the others; a file of the sample that ships is known by its name."""
    held_out = (
        {path.name for path in Path(recipe.held_out, centre.name, "images").glob("*")} if recipe.held_out else set()
    )
    free = [record.image_id for record in centre.records if Path(record.image_id).name not in held_out]
    split = hold_out(centre.name, free, recipe.centres[centre.name].train_share, recipe.seed)
    kept = [record.image_id for record in centre.records if Path(record.image_id).name in held_out]
    return {"train": split["train"], "test": sorted([*split["test"], *kept])}


def _dataset(centre: Centre, image_ids: Sequence[str], folder: Path) -> Dataset:
    wanted = set(image_ids)
    records = [record for record in centre.records if record.image_id in wanted]
    semantics = "cell" if folder == centre.root else "instances"
    return CellMaskDataset(records, folder / "masks", semantics=semantics, source=centre.name)


def _synthetic(style: str, folder: Path, recipe: Recipe) -> Dataset:
    generate_centre(style, folder, num_images=recipe.synthetic_images, seed=recipe.seed)
    records = load_centre(style, folder, "csv").records
    return CellMaskDataset(records, folder / "masks", semantics="instances", source=style)


def _train(
    folder: Path, datasets: Sequence[Dataset], recipe: Recipe, stage: RecipeStage, start: Path | None = None
) -> None:
    """Train in a folder, from the weights of another one or from random ones."""
    settings = {"NAME": recipe.name, "SEED": recipe.seed, **recipe.settings, "LEARNING_RATE": stage.learning_rate}
    config: Config = make_config(settings, SmallSmearConfig)
    images = [[info["id"] for info in dataset.image_info] for dataset in datasets]
    identity = {"config": config.to_dict(), "epochs": stage.epochs, "images": hash_json(images)}
    run = RunFolder(folder, "detector", identity)
    with run.writing() as wanted:
        if not wanted:
            log.info("%s: reused", folder)
            return
        model = MaskRCNN("training", config, folder)
        if start is not None and not list_checkpoints(folder / CHECKPOINTS):
            model.load_weights(start / WEIGHTS_NAME)
        record = {"images": sum(dataset.num_images for dataset in datasets), "versions": versions()}
        run.write(False, record)
        model.train(datasets, [], config.LEARNING_RATE, stage.epochs, "all", folder=folder)
        run.write(True, record)
        remove_checkpoints(folder / CHECKPOINTS)


def _draw(output: Path, centre: Centre, image_ids: Sequence[str], settings: RecipeCentre) -> Dataset:
    """Masks of a centre, drawn by the teacher, on the images that fit what is known of them."""
    folder = output / "pseudo-masks" / centre.name
    done = folder / "images.json"
    if not done.exists():
        wanted = set(image_ids)
        records = [record for record in centre.records if record.image_id in wanted]
        empty = [record for record in records if record.label in settings.empty_labels]
        shown = [record for record in records if record.label not in settings.empty_labels]
        teacher = load_detector(output / "teacher", {"DETECTION_MIN_CONFIDENCE": _LOWEST_SCORE})
        taken = write_pseudo_masks(teacher, shown, folder, _boxes(centre, shown, settings.box_names), empty=empty)
        write_json(done, [record.image_id for record in taken])
    taken = read_json_file(done, missing="remove its folder", advice="remove its folder")
    return _dataset(centre, taken, folder)


def _boxes(centre: Centre, records: Sequence[ImageRecord], names: Sequence[str]) -> Mapping[str, np.ndarray] | None:
    """Boxes of the cells by image_id, or None for images of single cells."""
    if centre.boxes is None:
        return None
    dataset = VocBoxDataset(records, centre.boxes, names=names)
    return {info["id"]: dataset.load_boxes(i) for i, info in enumerate(dataset.image_info)}
