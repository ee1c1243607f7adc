"""Table 3.1 of the thesis: how long the latent must be, for two backbones, image losses and image sources."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.evaluation.classifiers import FOREST
from experiments.evaluation.comparison import Protocol
from experiments.evaluation.scores import measure_run
from experiments.evaluation.tables import csv_table, markdown_table, to_latex
from experiments.evaluation.thesis_numbers import bottleneck_number
from experiments.evaluation.transfer import Cells, Vectors, predict_pairs
from experiments.settings import HANDCRAFTED, HANDCRAFTED_LAB, RCNN
from experiments.thesis.ablation import untrained_vectors
from experiments.thesis.study import Study
from mrcnn.files.atomic import write_json, write_text
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import hash_arrays

NAME = "table-3.1"
TITLE = "Bottleneck sizes (thesis Table 3.1)"
BASELINES = (HANDCRAFTED, HANDCRAFTED_LAB, RCNN)
# Thesis Figures 3.6 to 3.13 are of these variants, in this order.
FIGURES = {
    (backbone, loss, source): f"figure-3.{number}"
    for number, (backbone, loss, source) in enumerate(
        itertools.product(("resnet50", "resnet101"), ("mse", "ssim"), ("image", "crop")), 6
    )
}
_BACKBONE_NAMES = {"resnet50": "ResNet50", "resnet101": "ResNet101"}


class Variant(NamedTuple):
    """One column of the table, and one figure of reconstructions."""

    backbone: str
    image_loss: str
    image_source: str

    @property
    def name(self) -> str:
        """As the thesis calls it: ResNet101-BB-SSIM."""
        box = "-BB" if self.image_source == "crop" else ""
        return f"{_BACKBONE_NAMES[self.backbone]}{box}-{self.image_loss.upper()}"


@dataclass(frozen=True)
class Bottleneck:
    """The grid, trained and scored.

    Attributes:
        centre: whose cells were predicted.
        folders: of the autoencoder, by variant and size.
        scores: by variant and size, the measures of each run.
        baselines: by name and backbone, the same of representations without an autoencoder.
        num_train, num_test: cells, by backbone; each backbone's detector finds its own.
    """

    centre: str
    folders: dict[tuple[Variant, int], Path]
    scores: dict[tuple[Variant, int], dict[str, np.ndarray]]
    baselines: dict[tuple[str, str], dict[str, np.ndarray]]
    num_train: dict[str, int]
    num_test: dict[str, int]

    @property
    def variants(self) -> list[Variant]:
        """Columns of the table, in order."""
        return list(dict.fromkeys(variant for variant, _ in self.folders))

    @property
    def sizes(self) -> list[int]:
        """Rows of the table."""
        return list(dict.fromkeys(size for _, size in self.folders))

    def accuracy(self, variant: Variant, size: int) -> tuple[float, float]:
        """Mean and standard deviation over the runs."""
        values = self.scores[variant, size]["accuracy"]
        return float(values.mean()), float(values.std())


def train_grid(study: Study, variants: Iterable[Variant]) -> dict[tuple[Variant, int], Path]:
    """Train the autoencoders of some columns of the table, as far as they are not there.

    Returns:
        Folder of each autoencoder, in the order of columns and rows.
    """
    settings = study.settings.reproduce.bottleneck
    grid = list(itertools.product(variants, settings.sizes))
    wanted = []
    for variant, size in grid:
        of_grid = {"latent_size": size, "image_loss": variant.image_loss, "image_source": variant.image_source}
        wanted.append(({**settings.autoencoder, "adaptation": "none", **of_grid}, variant.backbone))
    return dict(zip(grid, study.train(wanted), strict=True))


def scored_centre(study: Study) -> str:
    """The centre whose cells are predicted and reconstructed: that of the settings, else the source centre.

    Raises:
        InputError: if it is not among those that are compared.
    """
    centre = study.settings.reproduce.bottleneck.centre or study.source_centre
    if centre not in study.compared:
        raise InputError(
            f"reproduce.bottleneck.centre: {centre} is none of {', '.join(study.compared)}; choose another"
        )
    return centre


def settings_variants(study: Study) -> list[Variant]:
    """The columns that the settings ask for, in the thesis' order."""
    settings = study.settings.reproduce.bottleneck
    by_look = itertools.product(settings.image_sources, settings.image_losses, settings.backbones)
    return [Variant(backbone, loss, source) for source, loss, backbone in by_look]


def make_bottleneck(study: Study, protocol: Protocol) -> Bottleneck:
    """Train the grid, and let a random forest predict the cells of one centre from each latent.

    Raises:
        InputError: if the centre is not compared, or has no labelled cells.
    """
    centre = scored_centre(study)
    cells = {}  # before hours of training
    for backbone in study.settings.reproduce.bottleneck.backbones:
        found = study.cells(backbone)
        if centre not in found.centres:
            raise InputError(f"reproduce.bottleneck.centre: {centre} has no labelled cells; choose another centre")
        alone = ({centre: each[centre]} for each in (found.image_ids, found.types, found.parts))
        cells[backbone] = Cells(*alone, found.classes)

    def score(vectors: Vectors, backbone: str) -> dict[str, np.ndarray]:
        return _score(study, protocol, cells[backbone], centre, vectors[centre])

    folders = train_grid(study, settings_variants(study))
    return Bottleneck(
        centre,
        folders,
        {key: score(study.latents(path, key[0].backbone), key[0].backbone) for key, path in folders.items()},
        {(name, b): score(untrained_vectors(study, name, b)[0], b) for name in BASELINES for b in cells},
        {backbone: len(own.train_rows(centre)) for backbone, own in cells.items()},
        {backbone: len(own.test_rows((centre, centre), "test")) for backbone, own in cells.items()},
    )


def _score(study: Study, protocol: Protocol, cells: Cells, centre: str, vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Measures of each run of the random forest, on the test part of one centre."""

    def predict() -> dict[str, np.ndarray]:
        predicted = predict_pairs(
            [{centre: vectors}], cells, FOREST, runs=protocol.runs, seed=protocol.seed, n_jobs=protocol.jobs
        )
        return {"named": predicted[centre, centre]}

    inputs = {
        "vectors": hash_arrays(vectors),
        # With the classes, of which predictions are the numbers.
        "cells": hash_arrays(np.array(cells.classes), cells.types[centre], cells.parts[centre]),
        "runs": protocol.runs,
        "seed": protocol.seed,
    }
    predicted = study.cache.arrays("bottleneck", inputs, predict)["named"]
    truth = cells.truth((centre, centre), "test")
    runs = [measure_run(truth, run) for run in predicted]
    return {name: np.array([run[name] for run in runs]) for name in runs[0]}


def write_bottleneck(
    result: Bottleneck, folder: Path, protocol: Protocol, provenance: Mapping[str, str], thesis_centre: str | None
) -> dict[str, Path]:
    """Write `table-3.1.md`, `.csv`, `.tex` and `.json`, each atomically.

    Args:
        result: the grid.
        folder: where to.
        protocol: how it was scored.
        provenance: lines that say what made it, by name.
        thesis_centre: which of the thesis' data sets the centre is, or None.

    Returns:
        The paths, by ending.
    """
    paths = {ending: Path(folder) / f"{NAME}.{ending}" for ending in ("md", "csv", "tex", "json")}
    theirs = {(variant, size): bottleneck_number(size, *variant, thesis_centre) for variant, size in result.scores}
    accuracy = _table(result, "accuracy", theirs)
    note = _note(result, protocol, any(number is not None for number in theirs.values()))
    lines = [f"# {TITLE}", "", note, "", "## Accuracy", "", markdown_table(*accuracy), ""]
    lines += ["## Balanced accuracy", "", markdown_table(*_table(result, "balanced_accuracy", {})), ""]
    lines += ["## What made this", "", *(f"- {name}: {value}" for name, value in provenance.items()), ""]
    write_text(paths["md"], "\n".join(lines))
    write_text(paths["tex"], to_latex(*accuracy, caption=TITLE, label="tab:3.1", notes=note))

    measures = list(next(iter(result.scores.values())))
    header = ["bottleneck", "backbone", "image_loss", "image_source"]
    header += [f"{name}_{kind}" for name in measures for kind in ("mean", "std")] + ["thesis_accuracy"]
    rows = []
    for (variant, size), scores in result.scores.items():
        number = theirs[variant, size]
        rows.append([str(size), *variant, *_numbers(scores), "" if number is None else f"{number:.2f}"])
    for (name, backbone), scores in result.baselines.items():
        rows.append([name, backbone, "", "", *_numbers(scores), ""])
    write_text(paths["csv"], csv_table(header, rows))

    cells = [
        {"bottleneck": size, **variant._asdict(), "autoencoder": result.folders[variant, size].name, **_lists(scores)}
        for (variant, size), scores in result.scores.items()
    ]
    baselines = [
        {"name": name, "backbone": backbone, **_lists(scores)} for (name, backbone), scores in result.baselines.items()
    ]
    content = {"title": TITLE, "provenance": dict(provenance), "centre": result.centre, "runs": protocol.runs}
    content |= {"seed": protocol.seed, "num_train": result.num_train, "num_test": result.num_test}
    write_json(paths["json"], {**content, "cells": cells, "baselines": baselines})
    return paths


def _table(
    result: Bottleneck, measure: str, theirs: Mapping[tuple[Variant, int], float | None]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows, with the thesis' numbers in brackets."""

    def text(runs: np.ndarray) -> str:
        return f"{100 * runs.mean():.1f} ± {100 * runs.std():.1f}"

    rows = []
    for size in result.sizes:
        values = {variant: result.scores[variant, size][measure] for variant in result.variants}
        best = max(round(float(runs.mean()), 3) for runs in values.values())
        row = [str(size)]
        for variant, runs in values.items():
            number = theirs.get((variant, size))
            shown = f"**{text(runs)}**" if round(float(runs.mean()), 3) == best else text(runs)
            row.append(shown + ("" if number is None else f" [{100 * number:.0f}]"))
        rows.append(row)
    for name in dict.fromkeys(name for name, _ in result.baselines):
        rows.append([name, *(text(result.baselines[name, variant.backbone][measure]) for variant in result.variants)])
    return ["Bottleneck", *(variant.name for variant in result.variants)], rows


def _note(result: Bottleneck, protocol: Protocol, has_thesis: bool) -> str:
    numbers = [
        f"{_BACKBONE_NAMES[name]} found {result.num_train[name]} to train on and {result.num_test[name]} to test on"
        for name in result.num_train
    ]
    return (
        f"A random forest predicts the cells of {result.centre} from latents of each size, in percent, mean ± standard "
        f"deviation over {protocol.runs} forests; the best of a row is bold. Autoencoders have no adaptation and are "
        "trained on all cells of all centres, without labels. MSE and SSIM are losses of the image; BB: the image is "
        f"the crop of the cell's box, else the whole. Cells: {'; '.join(numbers)}. One training of each autoencoder. "
        "The last rows are no autoencoders, and differ with the backbone alone: handcrafted features of the crop, also "
        "with its channels standardised in Lab first, and the detector's own features."
        + (" In brackets: the thesis' number." if has_thesis else "")
    )


def _numbers(scores: Mapping[str, np.ndarray]) -> list[str]:
    return [f"{number:.4f}" for runs in scores.values() for number in (runs.mean(), runs.std())]


def _lists(scores: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    return {name: runs.tolist() for name, runs in scores.items()}
