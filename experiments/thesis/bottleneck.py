"""Thesis Table 3.1: how long the latent must be, for two backbones, two image losses and two image sources."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.evaluation.classifiers import FOREST
from experiments.evaluation.comparison import Protocol
from experiments.evaluation.scores import measure_run
from experiments.evaluation.tables import csv_table, markdown_table, to_latex
from experiments.evaluation.thesis_numbers import bottleneck_number
from experiments.evaluation.transfer import Cells, predict_pairs
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
        centre: whose cells were named.
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


def train_grid(study: Study, variants: list[Variant] | None = None) -> dict[tuple[Variant, int], Path]:
    """Train the autoencoder of every cell of the table, as far as they are not there.

    Args:
        study: stores and autoencoders.
        variants: the columns; None takes those of the settings.

    Returns:
        Folder of each autoencoder, in the order of columns and rows.
    """
    settings = study.settings.reproduce.bottleneck
    variants = settings_variants(study) if variants is None else variants
    grid = list(itertools.product(variants, settings.sizes))
    wanted = [
        (
            {
                **settings.autoencoder,
                "adaptation": "none",
                "latent_size": size,
                "image_loss": variant.image_loss,
                "image_source": variant.image_source,
            },
            variant.backbone,
        )
        for variant, size in grid
    ]
    return dict(zip(grid, study.train(wanted), strict=True))


def scored_centre(study: Study) -> str:
    """The centre whose cells are named and reconstructed: that of the settings, else the source centre.

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
    """Train the grid, and let a forest name the cells of one centre from each latent.

    Raises:
        InputError: if the centre is not compared, or has no labelled cells.
    """
    settings = study.settings.reproduce.bottleneck
    centre = scored_centre(study)
    # Before hours of training.
    own = {backbone: _cells_of(study.cells(backbone), centre) for backbone in settings.backbones}
    folders = train_grid(study)
    scores = {
        (variant, size): _score(
            study, protocol, own[variant.backbone], centre, study.latents(folder, variant.backbone)[centre]
        )
        for (variant, size), folder in folders.items()
    }
    baselines = {
        (name, backbone): _score(study, protocol, cells, centre, untrained_vectors(study, name, backbone)[0][centre])
        for name in BASELINES
        for backbone, cells in own.items()
    }
    return Bottleneck(
        centre,
        folders,
        scores,
        baselines,
        {backbone: len(cells.train_rows(centre)) for backbone, cells in own.items()},
        {backbone: len(cells.test_rows((centre, centre), "test")) for backbone, cells in own.items()},
    )


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
    accuracy, has_thesis = _table(result, "accuracy", thesis_centre)
    balanced, _ = _table(result, "balanced_accuracy", None)
    note = _note(result, protocol, has_thesis)
    lines = [f"# {TITLE}", "", note, "", "## Accuracy", "", markdown_table(*accuracy), ""]
    lines += ["## Balanced accuracy", "", markdown_table(*balanced), ""]
    lines += ["## What made this", "", *(f"- {name}: {value}" for name, value in provenance.items()), ""]
    write_text(paths["md"], "\n".join(lines))
    write_text(paths["tex"], to_latex(*accuracy, caption=TITLE, label="tab:3.1", notes=note))
    write_text(paths["csv"], _to_csv(result, thesis_centre))
    write_json(paths["json"], _to_json(result, protocol, provenance))
    return paths


def _score(study: Study, protocol: Protocol, cells: Cells, centre: str, vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Measures of each run of the forest, on the test part of one centre."""

    def predict() -> dict[str, np.ndarray]:
        named = predict_pairs(
            [{centre: vectors}], cells, FOREST, runs=protocol.runs, seed=protocol.seed, n_jobs=protocol.jobs
        )
        return {"named": named[centre, centre]}

    inputs = {
        "vectors": hash_arrays(vectors),
        # With the classes, of which predictions are the numbers.
        "cells": hash_arrays(np.array(cells.classes), cells.types[centre], cells.parts[centre]),
        "runs": protocol.runs,
        "seed": protocol.seed,
    }
    named = study.cache.arrays("bottleneck", inputs, predict)["named"]
    truth = cells.truth((centre, centre), "test")
    runs = [measure_run(truth, run) for run in named]
    return {name: np.array([run[name] for run in runs]) for name in runs[0]}


def _cells_of(cells: Cells, centre: str) -> Cells:
    """The cells of one centre alone."""
    if centre not in cells.centres:
        raise InputError(f"reproduce.bottleneck.centre: {centre} has no labelled cells; choose another centre")
    alone = ({centre: each[centre]} for each in (cells.keys, cells.types, cells.parts))
    return Cells(*alone, cells.classes)


def _table(
    result: Bottleneck, measure: str, thesis_centre: str | None
) -> tuple[tuple[list[str], list[list[str]]], bool]:
    """Header and rows, and whether they hold numbers of the thesis."""
    header = ["Bottleneck", *(variant.name for variant in result.variants)]
    rows, has_thesis = [], False
    for size in result.sizes:
        values = {variant: result.scores[variant, size][measure] for variant in result.variants}
        best = max(round(float(runs.mean()), 3) for runs in values.values())
        cells = []
        for variant, runs in values.items():
            text = f"{100 * runs.mean():.1f} ± {100 * runs.std():.1f}"
            text = f"**{text}**" if round(float(runs.mean()), 3) == best else text
            theirs = bottleneck_number(size, *variant, thesis_centre)
            has_thesis |= theirs is not None
            cells.append(text + ("" if theirs is None else f" [{100 * theirs:.0f}]"))
        rows.append([str(size), *cells])
    for name in dict.fromkeys(name for name, _ in result.baselines):
        found = [result.baselines[name, variant.backbone][measure] for variant in result.variants]
        rows.append([name, *(f"{100 * runs.mean():.1f} ± {100 * runs.std():.1f}" for runs in found)])
    return (header, rows), has_thesis


def _note(result: Bottleneck, protocol: Protocol, has_thesis: bool) -> str:
    numbers = [
        f"{_BACKBONE_NAMES[name]} found {result.num_train[name]} to learn from and {result.num_test[name]} to test on"
        for name in result.num_train
    ]
    return (
        f"A random forest names the cells of {result.centre} from latents of each size, in percent, mean ± standard "
        f"deviation over {protocol.runs} forests; the best of a row is bold. Autoencoders have no adaptation and learn "
        "on all cells of all centres, without labels. MSE and SSIM are losses of the image; BB: the image is the crop "
        f"of the cell's box, else the whole. Cells: {'; '.join(numbers)}. One training of each autoencoder. The last "
        "rows are no autoencoders, and differ with the backbone alone: handcrafted features of the crop, also with its "
        "channels standardised in Lab first, and the detector's own features."
        + (" In brackets: the thesis' number." if has_thesis else "")
    )


def _to_csv(result: Bottleneck, thesis_centre: str | None) -> str:
    names = list(next(iter(result.scores.values())))
    header = ["bottleneck", "backbone", "image_loss", "image_source"]
    header += [f"{name}_{kind}" for name in names for kind in ("mean", "std")] + ["thesis_accuracy"]
    rows = []
    for (variant, size), scores in result.scores.items():
        theirs = bottleneck_number(size, *variant, thesis_centre)
        values = [f"{number:.4f}" for runs in scores.values() for number in (runs.mean(), runs.std())]
        rows.append([str(size), *variant, *values, "" if theirs is None else f"{theirs:.2f}"])
    for (name, backbone), scores in result.baselines.items():
        values = [f"{number:.4f}" for runs in scores.values() for number in (runs.mean(), runs.std())]
        rows.append([name, backbone, "", "", *values, ""])
    return csv_table(header, rows)


def _to_json(result: Bottleneck, protocol: Protocol, provenance: Mapping[str, str]) -> dict[str, Any]:
    return {
        "title": TITLE,
        "provenance": dict(provenance),
        "centre": result.centre,
        "runs": protocol.runs,
        "seed": protocol.seed,
        "num_train": result.num_train,
        "num_test": result.num_test,
        "cells": [
            {
                "bottleneck": size,
                **variant._asdict(),
                "autoencoder": result.folders[variant, size].name,
                **{name: runs.tolist() for name, runs in scores.items()},
            }
            for (variant, size), scores in result.scores.items()
        ],
        "baselines": [
            {"name": name, "backbone": backbone, **{key: runs.tolist() for key, runs in scores.items()}}
            for (name, backbone), scores in result.baselines.items()
        ],
    }
