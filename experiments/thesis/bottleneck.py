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
Scores = dict[str, list[float]]  # by measure, of each run
BASELINES = (HANDCRAFTED, HANDCRAFTED_LAB, RCNN)
# Thesis Figures 3.6 to 3.13 are of these variants, in this order.
_LOOKS = itertools.product(("resnet50", "resnet101"), ("mse", "ssim"), ("image", "crop"))
FIGURES = {variant: f"figure-3.{number}" for number, variant in enumerate(_LOOKS, 6)}


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
        num_cells: to train and to test on, by backbone; each backbone's detector finds its own.
    """

    centre: str
    folders: dict[tuple[Variant, int], Path]
    scores: dict[tuple[Variant, int], Scores]
    baselines: dict[tuple[str, str], Scores]
    num_cells: dict[str, tuple[int, int]]

    def by_variant(self, measure: str) -> dict[Variant, dict[int, list[float]]]:
        """A measure of each run, by column and row of the table."""
        found: dict[Variant, dict[int, list[float]]] = {}
        for (variant, size), scores in self.scores.items():
            found.setdefault(variant, {})[size] = scores[measure]
        return found


def train_grid(study: Study, variants: Iterable[Variant]) -> dict[tuple[Variant, int], Path]:
    """Train the autoencoders of some columns of the table; returns the folder of each, by column and row."""
    settings = study.settings.reproduce.bottleneck
    grid = list(itertools.product(variants, settings.sizes))
    common = {**settings.autoencoder, "adaptation": "none"}
    wanted = [
        ({**common, "latent_size": size, "image_loss": loss, "image_source": source}, backbone)
        for (backbone, loss, source), size in grid
    ]
    return dict(zip(grid, study.train(wanted), strict=True))


def scored_centre(study: Study) -> str:
    """The centre whose cells are predicted and reconstructed: that of the settings, else the source centre."""
    settings, compared = study.settings, study.compared
    centre = settings.reproduce.bottleneck.centre or settings.autoencoder.get("source_centre") or compared[0]
    if centre not in compared:
        raise InputError(f"reproduce.bottleneck.centre: {centre} is none of {', '.join(compared)}; choose another")
    return centre


def settings_variants(study: Study) -> list[Variant]:
    """The columns that the settings ask for, in the thesis' order."""
    settings = study.settings.reproduce.bottleneck
    by_look = itertools.product(settings.image_sources, settings.image_losses, settings.backbones)
    return [Variant(backbone, loss, source) for source, loss, backbone in by_look]


def make_bottleneck(study: Study, protocol: Protocol) -> Bottleneck:
    """Train the grid, and let a random forest predict the cells of one centre from each latent."""
    centre = scored_centre(study)
    cells = {}  # before hours of training
    for backbone in study.settings.reproduce.bottleneck.backbones:
        found = study.cells(backbone)
        if centre not in found.centres:
            raise InputError(f"reproduce.bottleneck.centre: {centre} has no labelled cells; choose another centre")
        alone = ({centre: each[centre]} for each in (found.image_ids, found.types, found.parts))
        cells[backbone] = Cells(*alone, found.classes)

    def score(vectors: Vectors, backbone: str) -> Scores:
        return _score(study, protocol, cells[backbone], centre, vectors[centre])

    folders = train_grid(study, settings_variants(study))
    tested = (centre, centre), "test"
    return Bottleneck(
        centre,
        folders,
        {(variant, size): score(study.latents(path), variant.backbone) for (variant, size), path in folders.items()},
        {(name, b): score(untrained_vectors(study, name, b)[0], b) for name in BASELINES for b in cells},
        {b: (len(own.train_rows(centre)), len(own.test_rows(*tested))) for b, own in cells.items()},
    )


def _score(study: Study, protocol: Protocol, cells: Cells, centre: str, vectors: np.ndarray) -> Scores:
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
    return {name: [run[name] for run in runs] for name in MEASURES}


def write_bottleneck(
    result: Bottleneck, folder: Path, protocol: Protocol, provenance: Mapping[str, str], thesis_centre: str | None
) -> dict[str, Path]:
    """Write `table-3.1.md`, `.csv`, `.tex` and `.json`, each atomically; returns the paths by ending.

    `provenance` says what made it, by name; `thesis_centre` is which of the thesis' data sets the centre is, or None.
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

    cells = [
        {"bottleneck": size, **variant._asdict(), "autoencoder": result.folders[variant, size].name, **scores}
        for (variant, size), scores in result.scores.items()
    ]
    baselines = [{"name": name, "backbone": b, **scores} for (name, b), scores in result.baselines.items()]
    rows = pd.DataFrame([*cells, *({**row, "bottleneck": row["name"]} for row in baselines)])
    measures = list(next(iter(result.scores.values())))
    for name in measures:
        rows[f"{name}_mean"], rows[f"{name}_std"] = rows[name].map(np.mean), rows[name].map(np.std)
    rows["thesis_accuracy"] = pd.Series(["" if number is None else f"{number:.2f}" for number in theirs.values()])
    rows = rows.drop(columns=["name", "autoencoder", *measures])
    write_text(paths["csv"], rows.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    content = {"title": TITLE, "provenance": dict(provenance), "centre": result.centre, "runs": protocol.runs}
    content |= {"seed": protocol.seed, "cells": cells, "baselines": baselines}
    for i, name in enumerate(("num_train", "num_test")):
        content[name] = {backbone: numbers[i] for backbone, numbers in result.num_cells.items()}
    write_json(paths["json"], content)
    return paths


def _table(
    result: Bottleneck, measure: str, theirs: Mapping[tuple[Variant, int], float | None]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows, with the thesis' numbers in brackets."""
    columns = result.by_variant(measure)

    def text(runs: list[float]) -> str:
        return f"{100 * np.mean(runs):.1f} ± {100 * np.std(runs):.1f}"

    rows = []
    for size in dict.fromkeys(size for _, size in result.scores):
        best = max(np.round(np.mean(by_size[size]), 3) for by_size in columns.values())
        row = [str(size)]
        for variant, by_size in columns.items():
            number, runs = theirs.get((variant, size)), by_size[size]
            shown = f"**{text(runs)}**" if np.round(np.mean(runs), 3) == best else text(runs)
            row.append(shown + ("" if number is None else f" [{100 * number:.0f}]"))
        rows.append(row)
    for name in dict.fromkeys(name for name, _ in result.baselines):
        rows.append([name, *(text(result.baselines[name, variant.backbone][measure]) for variant in columns)])
    return ["Bottleneck", *(variant.name for variant in columns)], rows


def _note(result: Bottleneck, protocol: Protocol, has_thesis: bool) -> str:
    numbers = [
        f"{_shown(backbone)} found {train} to train on and {test} to test on"
        for backbone, (train, test) in result.num_cells.items()
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


def _shown(backbone: str) -> str:
    return backbone.replace("resnet", "ResNet")
