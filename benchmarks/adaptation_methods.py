"""The adaptation methods side by side: one autoencoder each, on the same stores, with the same seed and settings.

    python benchmarks/adaptation_methods.py features/*.h5 -o runs/methods [--steps 400] [--methods none mmd] \
        [--beta mmd=1]

Leaves an autoencoder and its latents per method in a folder of its own, and methods.csv, methods.md and methods.png. A
method that has been trained there with the same settings is not trained again.
"""

import argparse
import csv
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments.classify import make_forest, roi_vectors, standardise_by_centre
from experiments.figures import GREY, INK, MARKERS, PALETTE, choose_rows, project, to_png
from experiments.settings import read_section
from mrcnn.atomic import atomic_path, write_text
from mrcnn.errors import InputError
from mrcnn.feature_store import StorePath, open_store, stores_by_centre

METHODS = ("none", "mmd", "normal", "adversarial", "kernel-mmd", "coral")
# The losses differ in size by three orders: at the start of a training on real cells mmd and kernel-mmd are about 1.5
# for three targets, normal 18 for four centres, adversarial 4 and soon 9, coral 0.02.
BETAS = {"mmd": 0.5, "normal": 0.05, "adversarial": 0.05, "kernel-mmd": 0.5, "coral": 20.0}
CONFIG = Path(__file__).resolve().parents[1] / "experiments" / "configs" / "real-small.yaml"
LOSSES = ("feature_loss", "image_loss", "adaptation_loss")
COLUMNS = {
    "method": "method",
    "beta": "beta",
    "feature_loss": "feature loss",
    "image_loss": "image loss",
    "adaptation_loss": "adaptation loss",
    "latent_deviation": "latent deviation",
    "centre_accuracy": "centre told",
    "within": "type, same centre",
    "across": "type, other centre",
    "seconds_per_step": "s / step",
}
FOLDS = 5
LEAST_CELLS = FOLDS  # of a type in a centre, so that every fold has one
MAP_CELLS = 1500

Row = dict[str, Any]


def parse_betas(texts: Sequence[str]) -> dict[str, float]:
    """Read "METHOD=B" texts; methods without one keep that of `BETAS`.

    Raises:
        InputError: if a text has another form, or the method is unknown or has no weight.
    """
    betas = dict(BETAS)
    for text in texts:
        method, equals, number = text.partition("=")
        if not equals or method not in BETAS:
            raise InputError(f"--beta {text}: write it as METHOD=NUMBER, METHOD being one of {', '.join(BETAS)}")
        try:
            betas[method] = float(number)
        except ValueError:
            raise InputError(f"--beta {text}: {number!r} is not a number") from None
    return betas


def method_settings(settings: Mapping[str, Any], method: str, *, beta: float, steps: int, seed: int) -> dict[str, Any]:
    """Settings of one method's autoencoder: those given, but for the method and the length.

    The warm-up keeps its share of the training, and the log gets 20 rows at least.

    Args:
        settings: of `autoencoder.config.AutoencoderConfig`.
        method: its `adaptation`.
        beta: its `beta`.
        steps: of this training, 1 or more.
        seed: of this training.
    """
    values = {**settings, "adaptation": method, "beta": beta, "steps": steps, "seed": seed}
    warmup, planned = settings.get("adaptation_warmup_steps", 0), settings.get("steps")
    if warmup and planned:
        values["adaptation_warmup_steps"] = round(warmup * steps / planned)
    values["log_every"] = max(min(settings.get("log_every", 20), steps // 20), 1)
    return values


def centre_accuracy(vectors: np.ndarray, centres: np.ndarray, seed: int) -> float:
    """How well a logistic regression tells the centre: balanced accuracy in stratified 5-fold cross-validation.

    Args:
        vectors: float array of shape (n, d); standardised over the training part of each fold.
        centres: str array of shape (n,), at least 5 cells of each centre.
        seed: of the folds.

    Returns:
        Between 0 and 1; 1 / number of centres is chance.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return float(balanced_accuracy_score(centres, cross_val_predict(model, vectors, centres, cv=_folds(seed))))


def common_types(centres: np.ndarray, cell_types: np.ndarray) -> dict[tuple[str, str], list[str]]:
    """Cell types that two centres have in common, with at least `LEAST_CELLS` cells in each.

    Args:
        centres: str array of shape (n,).
        cell_types: str array of shape (n,); "" for none.

    Returns:
        By pair of centres, each with itself too, the types in alphabetical order; pairs with fewer than two are left
        out.
    """
    enough = {}
    for centre in dict.fromkeys(centres.tolist()):
        names, numbers = np.unique(cell_types[(centres == centre) & (cell_types != "")], return_counts=True)
        enough[centre] = set(names[numbers >= LEAST_CELLS].tolist())
    pairs = {(first, second): sorted(enough[first] & enough[second]) for first in enough for second in enough}
    return {pair: names for pair, names in pairs.items() if len(names) >= 2}


def type_accuracies(
    vectors: np.ndarray, centres: np.ndarray, cell_types: np.ndarray, seed: int
) -> tuple[float | None, float | None]:
    """How well a random forest names the type of a cell, in its own centre and in others.

    Args:
        vectors: float array of shape (n, d).
        centres: str array of shape (n,).
        cell_types: str array of shape (n,); "" for none.
        seed: of the forests and folds.

    Returns:
        Balanced accuracy in stratified 5-fold cross-validation within a centre, the mean over centres; and of forests
        that learned from all cells of one centre and are tested on all of another, the mean over ordered pairs. Each is
        over the types of `common_types`, and None where there is no pair.
    """
    scores: dict[bool, list[float]] = {True: [], False: []}
    for (first, second), names in common_types(centres, cell_types).items():
        known = np.isin(cell_types, names)
        train, test = known & (centres == first), known & (centres == second)
        if first == second:
            named = cross_val_predict(make_forest(seed), vectors[train], cell_types[train], cv=_folds(seed))
        else:
            named = make_forest(seed).fit(vectors[train], cell_types[train]).predict(vectors[test])
        scores[first == second].append(float(balanced_accuracy_score(cell_types[test], named)))
    within, across = (float(np.mean(found)) if found else None for found in (scores[True], scores[False]))
    return within, across


def log_numbers(log: Sequence[Mapping[str, str]]) -> Row:
    """What the last row of a `log.csv` says, and the median time of a step.

    Args:
        log: rows as from `csv.DictReader`, one at least.

    Returns:
        The losses, `latent_deviation`, and `seconds_per_step` if there are two rows.
    """
    numbers: Row = {name: float(log[-1][name]) for name in (*LOSSES, "latent_deviation")}
    times = np.array([(row["step"], row["seconds"]) for row in log], np.float64)
    if len(times) > 1:
        steps, seconds = np.diff(times, axis=0).T
        numbers["seconds_per_step"] = float(np.median(seconds / steps))
    return numbers


def format_table(rows: Sequence[Row]) -> str:
    """Write rows as a Markdown table; what a row lacks is "-"."""
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + " --- |" * len(COLUMNS)]
    for row in rows:
        lines.append("| " + " | ".join(_text(row.get(name)) for name in COLUMNS) + " |")
    return "\n".join(lines)


def draw_methods(
    rows: Sequence[Row],
    logs: Mapping[str, Sequence[Mapping[str, str]]],
    maps: Mapping[str, np.ndarray],
    centres: np.ndarray,
) -> Figure:
    """Draw the loss curves of all methods above a map of each one's latents.

    Args:
        rows: of the table.
        logs: rows of `log.csv` by method.
        maps: float array of shape (n, 2) by method.
        centres: str array of shape (n,), the centre of each point.
    """
    lines = -(-len(maps) // 3)
    figure = Figure(figsize=(11, 3.1 + 3.2 * min(lines, 2)), layout="constrained")
    curves, panels = figure.subfigures(2, 1, height_ratios=(3.1, 3.2 * lines))
    for axes, loss in zip(curves.subplots(1, len(LOSSES)), LOSSES, strict=True):
        for (method, log), color in zip(logs.items(), PALETTE, strict=False):
            values = np.array([(row["step"], row[loss]) for row in log], np.float64)
            values = values[values[:, 1] > 0]
            if len(values):
                axes.plot(*values.T, color=color, lw=1.6, label=method, marker="o" if len(values) < 3 else None)
        axes.set_yscale("log")
        axes.set_title(
            loss.replace("_", " ") + (", where above 0" if loss == LOSSES[2] else ""), fontsize=11, loc="left"
        )
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e7eb", lw=0.8)
        axes.tick_params(labelsize=8, colors=INK)
    handles = {line.get_label(): line for axes in curves.axes for line in axes.lines}
    curves.legend(handles.values(), handles, loc="outside right upper", fontsize=9, frameon=False)
    told = {row["method"]: row["centre_accuracy"] for row in rows}
    names, numbers = np.unique(centres, return_counts=True)
    names = names[np.argsort(-numbers)].tolist()  # small centres on top of large ones
    grid = panels.subplots(lines, 3, squeeze=False).reshape(-1)
    for axes, (method, points) in zip(grid, maps.items(), strict=False):
        for at, name in enumerate(names):
            own = points[centres == name]
            color, marker = PALETTE[at % len(PALETTE)], MARKERS[at % len(MARKERS)]
            axes.scatter(*own.T, s=9, c=color, marker=marker, alpha=0.7, linewidths=0, label=name)
        axes.set_title(f"{method}: centre told at {told[method]:.2f}", fontsize=11, loc="left", color=INK)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(GREY)
    for axes in grid[len(maps) :]:
        axes.set_visible(False)
    handles, labels = grid[0].get_legend_handles_labels()
    title = f"chance {1 / len(names):.2f}"
    panels.legend(handles, labels, loc="outside right upper", fontsize=9, frameon=False, markerscale=2, title=title)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stores", nargs="+", metavar="STORE", help="feature stores of two centres or more")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/methods"), help="folder; default: %(default)s")
    parser.add_argument("--config", type=Path, default=CONFIG, help="YAML file whose section `autoencoder` is used")
    parser.add_argument("--source", metavar="CENTRE", help="source centre; default: the config's")
    parser.add_argument("--steps", type=int, default=400, help="of each training; default: %(default)s")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--beta", nargs="+", default=[], metavar="METHOD=B", help=f"weights; default: {BETAS}")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        _compare(options, stores_by_centre(options.stores), parse_betas(options.beta))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _compare(options: argparse.Namespace, stores: Mapping[str, StorePath], betas: Mapping[str, float]) -> None:
    if options.steps < 1:
        raise InputError(f"--steps {options.steps}: train at least one step")
    if len(stores) < 2:
        raise InputError("one centre only: give the stores of two or more, so that there is something to align")
    settings = read_section(options.config, "autoencoder")
    if options.source is not None:
        settings["source_centre"] = options.source
    raw, centres, cell_types = _read_cells(stores)
    for (first, second), names in common_types(centres, cell_types).items():
        if first <= second:
            print(f"types scored {'in ' + first if first == second else f'between {first} and {second}'}: {names}")
    rows: list[Row] = []
    logs, latents = {}, {}
    for method in dict.fromkeys(options.methods):
        values = method_settings(settings, method, beta=betas.get(method, 0.0), steps=options.steps, seed=options.seed)
        logs[method], latents[method] = _train(values, stores, options.output / method)
        numbers = {"method": method, "beta": betas.get(method), **log_numbers(logs[method])}
        if method == "none":
            del numbers["adaptation_loss"]
        rows.append(numbers | _measure(latents[method], centres, cell_types, options.seed))
        print(format_table(rows[-1:]).splitlines()[-1], flush=True)
    baselines = {"features": raw, "features, standardised by centre": _standardise(raw, centres)}
    if "none" in latents:
        baselines["none, standardised by centre"] = _standardise(latents["none"], centres)
    for name, vectors in baselines.items():
        rows.append({"method": name, **_measure(vectors, centres, cell_types, options.seed)})
    _write(options.output, rows)
    chosen = choose_rows(len(centres), MAP_CELLS, options.seed)
    maps = {method: project(found[chosen], options.seed)[0] for method, found in latents.items()}
    with atomic_path(options.output / "methods.png") as temporary:
        temporary.write_bytes(to_png(draw_methods(rows, logs, maps, centres[chosen])))
    print("\n" + format_table(rows) + f"\n\n{options.output}")


def _read_cells(stores: Mapping[str, StorePath]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Averaged features, centre and type of every cell, in the order of an embedding."""
    vectors, centres, cell_types = [], [], []
    for centre, path in stores.items():
        with open_store(path) as store:
            if len(store) < FOLDS:
                raise InputError(f"{store.path}: has {len(store)} cells; give centres of {FOLDS} or more")
            vectors.append(roi_vectors(store))
            centres += [centre] * len(store)
            cell_types += store.cell_types.tolist()
    return np.concatenate(vectors), np.array(centres), np.array(cell_types)


def _train(values: dict[str, Any], stores: Mapping[str, StorePath], folder: Path) -> tuple[list[Row], np.ndarray]:
    """Train and embed, unless that is done; returns the log and the latents."""
    import anndata
    import keras

    from autoencoder.config import AutoencoderConfig
    from autoencoder.embedding import embed, is_embedding_of
    from autoencoder.folder import LOG
    from autoencoder.training import train_autoencoder

    train_autoencoder(AutoencoderConfig.from_dict(values), stores, folder, command=sys.argv)
    embedding = folder / "embedding.h5ad"
    if is_embedding_of(embedding, folder):
        latents = np.asarray(anndata.read_h5ad(embedding).X)
    else:
        latents = np.asarray(embed(folder, stores, embedding).X)
    keras.backend.clear_session()  # or the graphs of all methods would stay in memory
    with open(folder / LOG, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)), latents


def _measure(vectors: np.ndarray, centres: np.ndarray, cell_types: np.ndarray, seed: int) -> Row:
    within, across = type_accuracies(vectors, centres, cell_types, seed)
    return {"centre_accuracy": centre_accuracy(vectors, centres, seed), "within": within, "across": across}


def _standardise(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    names = dict.fromkeys(centres.tolist())
    standardised = np.empty(vectors.shape, np.float32)
    for name, values in standardise_by_centre({name: vectors[centres == name] for name in names}).items():
        standardised[centres == name] = values
    return standardised


def _write(folder: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "methods.csv", text.getvalue())
    write_text(folder / "methods.md", format_table(rows) + "\n")


def _folds(seed: int) -> StratifiedKFold:
    return StratifiedKFold(FOLDS, shuffle=True, random_state=seed)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
