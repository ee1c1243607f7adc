"""Table 3.1 of the thesis: how long the latent must be, for two backbones, image losses and image sources."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.evaluation.classifiers import FOREST
from experiments.evaluation.comparison import Protocol
from experiments.evaluation.scores import MEASURES, measure_run
from experiments.evaluation.tables import markdown_table, to_latex
from experiments.evaluation.thesis_numbers import bottleneck_number
from experiments.evaluation.transfer import Cells, Vectors, predict_pairs
from experiments.settings import HANDCRAFTED, HANDCRAFTED_LAB, RCNN
from experiments.thesis.ablation import untrained_vectors
from experiments.thesis.study import Study
from mrcnn.files.atomic import write_json, write_text
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import hash_arrays

TITLE = "Bottleneck sizes (thesis Table 3.1)"
BASELINES = (HANDCRAFTED, HANDCRAFTED_LAB, RCNN)
# Thesis Figures 3.6 to 3.13 are of these variants, in this order.
FIGURES = {
    variant: f"figure-3.{number}"
    for number, variant in enumerate(
        itertools.product(("resnet50", "resnet101"), ("mse", "ssim"), ("image", "crop")), 6
    )
}


class Variant(NamedTuple):
    """One column of the table, and one figure of reconstructions."""

    backbone: str
    image_loss: str
    image_source: str

    @property
    def name(self) -> str:
        """As the thesis calls it: ResNet101-BB-SSIM."""
        return f"{_shown(self.backbone)}{'-BB' * (self.image_source == 'crop')}-{self.image_loss.upper()}"


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

    def by_variant(self, measure: str) -> dict[Variant, dict[int, np.ndarray]]:
        """A measure of each run, by column and row of the table."""
        found: dict[Variant, dict[int, np.ndarray]] = {}
        for (variant, size), scores in self.scores.items():
            found.setdefault(variant, {})[size] = scores[measure]
        return found


def train_grid(study: Study, variants: Iterable[Variant]) -> dict[tuple[Variant, int], Path]:
    """Train the autoencoders of some columns of the table; returns the folder of each, by column and row."""
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
    settings = study.settings
    centre = settings.reproduce.bottleneck.centre or settings.autoencoder.get("source_centre") or study.compared[0]
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
        {(variant, size): score(study.latents(path), variant.backbone) for (variant, size), path in folders.items()},
        {(name, b): score(untrained_vectors(study, name, b)[0], b) for name in BASELINES for b in cells},
        {backbone: len(own.train_rows(centre)) for backbone, own in cells.items()},
        {backbone: len(own.test_rows((centre, centre), "test")) for backbone, own in cells.items()},
    )


def _score(study: Study, protocol: Protocol, cells: Cells, centre: str, vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Measures of each run of the random forest, on the test part of one centre."""
    options = {"runs": protocol.runs, "seed": protocol.seed}

    def predict() -> dict[str, np.ndarray]:
        predicted = predict_pairs([{centre: vectors}], cells, FOREST, n_jobs=protocol.jobs, **options)
        return {"named": predicted[centre, centre]}

    # With the classes, of which predictions are the numbers.
    described = hash_arrays(np.array(cells.classes), cells.types[centre], cells.parts[centre])
    inputs = {"vectors": hash_arrays(vectors), "cells": described, **options}
    truth = cells.truth((centre, centre), "test")
    runs = [measure_run(truth, run) for run in study.cache.arrays("bottleneck", inputs, predict)["named"]]
    return {name: np.array([run[name] for run in runs]) for name in MEASURES}


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
    paths = {ending: Path(folder) / f"table-3.1.{ending}" for ending in ("md", "csv", "tex", "json")}
    theirs = {(variant, size): bottleneck_number(size, *variant, thesis_centre) for variant, size in result.scores}
    accuracy = _table(result, "accuracy", theirs)
    note = _note(result, protocol, any(number is not None for number in theirs.values()))
    lines = [f"# {TITLE}", "", note, "", "## Accuracy", "", markdown_table(*accuracy), ""]
    lines += ["## Balanced accuracy", "", markdown_table(*_table(result, "balanced_accuracy", {})), ""]
    lines += ["## What made this", "", *(f"- {name}: {value}" for name, value in provenance.items()), ""]
    write_text(paths["md"], "\n".join(lines))
    write_text(paths["tex"], to_latex(*accuracy, caption=TITLE, label="tab:3.1", notes=note))

    rows, cells, baselines = [], [], []
    for (variant, size), scores in result.scores.items():
        number = theirs[variant, size]
        rows.append([str(size), *variant, *_numbers(scores), "" if number is None else f"{number:.2f}"])
        named = {"bottleneck": size, **variant._asdict(), "autoencoder": result.folders[variant, size].name}
        cells.append({**named, **{name: runs.tolist() for name, runs in scores.items()}})
    for (name, backbone), scores in result.baselines.items():
        rows.append([name, backbone, "", "", *_numbers(scores), ""])
        baselines.append({"name": name, "backbone": backbone, **{name: r.tolist() for name, r in scores.items()}})
    measures = [f"{name}_{kind}" for name in next(iter(result.scores.values())) for kind in ("mean", "std")]
    header = ["bottleneck", "backbone", "image_loss", "image_source", *measures, "thesis_accuracy"]
    write_text(paths["csv"], pd.DataFrame(rows, columns=header).to_csv(index=False, lineterminator="\n"))
    content = {"title": TITLE, "provenance": dict(provenance), "centre": result.centre, "runs": protocol.runs}
    content |= {"seed": protocol.seed, "num_train": result.num_train, "num_test": result.num_test}
    write_json(paths["json"], {**content, "cells": cells, "baselines": baselines})
    return paths


def _table(
    result: Bottleneck, measure: str, theirs: Mapping[tuple[Variant, int], float | None]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows, with the thesis' numbers in brackets."""
    columns = result.by_variant(measure)

    def text(runs: np.ndarray) -> str:
        return f"{100 * runs.mean():.1f} ± {100 * runs.std():.1f}"

    rows = []
    for size in dict.fromkeys(size for _, size in result.scores):
        best = max(round(float(by_size[size].mean()), 3) for by_size in columns.values())
        row = [str(size)]
        for variant, by_size in columns.items():
            number, runs = theirs.get((variant, size)), by_size[size]
            shown = f"**{text(runs)}**" if round(float(runs.mean()), 3) == best else text(runs)
            row.append(shown + ("" if number is None else f" [{100 * number:.0f}]"))
        rows.append(row)
    for name in dict.fromkeys(name for name, _ in result.baselines):
        rows.append([name, *(text(result.baselines[name, variant.backbone][measure]) for variant in columns)])
    return ["Bottleneck", *(variant.name for variant in columns)], rows


def _note(result: Bottleneck, protocol: Protocol, has_thesis: bool) -> str:
    numbers = [
        f"{_shown(name)} found {count} to train on and {result.num_test[name]} to test on"
        for name, count in result.num_train.items()
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


def _shown(backbone: str) -> str:
    return backbone.replace("resnet", "ResNet")
