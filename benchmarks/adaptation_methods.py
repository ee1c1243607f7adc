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

from autoencoder.config import AutoencoderConfig
from benchmarks.latent_scores import FOLDS, centre_accuracy, common_types, type_accuracies
from benchmarks.methods_figure import LOSSES, draw_methods
from experiments.evaluation.vectors import standardise
from experiments.figures.style import choose_rows, project, to_png
from experiments.settings import apply_changes, parse_changes, read_section
from mrcnn.feature_store import StorePath, open_store, stores_by_centre
from mrcnn.feature_store.reader import roi_vectors
from mrcnn.files.atomic import atomic_path, write_text
from mrcnn.files.errors import InputError

METHODS = ("none", "mmd", "normal", "adversarial", "kernel-mmd", "coral")
# The losses differ in size by three orders: at the start of a training on real cells mmd and kernel-mmd are about 1.5
# for three targets, normal 18 for four centres, adversarial 4 and soon 9, coral 0.02.
BETAS = {"mmd": 0.05, "normal": 0.01, "adversarial": 0.02, "kernel-mmd": 0.01, "coral": 10.0}
CONFIG = Path(__file__).resolve().parents[1] / "experiments" / "configs" / "real-small.yaml"
COLUMNS = {
    "method": "method",
    "beta": "beta",
    "feature_loss": "feature loss",
    "image_loss": "image loss",
    "adaptation_loss": "adaptation loss",
    "latent_deviation": "latent deviation",
    "centre_accuracy": "domain accuracy",
    "within": "type, same centre",
    "across": "type, other centre",
    "seconds_per_step": "s / step",
}
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


def method_config(settings: Mapping[str, Any], method: str, *, beta: float, steps: int, seed: int) -> AutoencoderConfig:
    """Configuration of one method's autoencoder: the settings given, but for the method and the length.

    The warm-up keeps its share of the training, and the log gets 20 rows at least.

    Args:
        settings: of `AutoencoderConfig`.
        method: its `adaptation`.
        beta: its `beta`.
        steps: of this training, 1 or more.
        seed: of this training.

    Raises:
        InputError: if a value is not allowed.
    """
    base = AutoencoderConfig.from_dict(settings)
    warmup = base.adaptation_warmup_steps
    return base.replace(
        adaptation=method,
        beta=beta,
        steps=steps,
        seed=seed,
        adaptation_warmup_steps=round(warmup * steps / base.steps) if base.steps else warmup,
        log_every=max(min(base.log_every, steps // 20), 1),
    )


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stores", nargs="+", metavar="STORE", help="feature stores of two centres or more")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/methods"), help="folder; default: %(default)s")
    parser.add_argument("--config", type=Path, default=CONFIG, help="YAML file whose section `autoencoder` is used")
    parser.add_argument("--steps", type=int, default=400, help="of each training; default: %(default)s")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--beta", nargs="+", default=[], metavar="METHOD=B", help=f"weights; default: {BETAS}")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="of the config"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="train anew what has been trained")
    options = parser.parse_args(arguments)
    try:
        _compare(options, stores_by_centre(options.stores), parse_betas(options.beta))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _compare(options: argparse.Namespace, stores: Mapping[str, StorePath], betas: Mapping[str, float]) -> None:
    if len(stores) < 2:
        raise InputError("one centre only: give the stores of two or more, so that there is something to align")
    settings = read_section(options.config, "autoencoder")
    apply_changes(settings, parse_changes(options.overrides))
    configs = {
        method: method_config(settings, method, beta=betas.get(method, 0.0), steps=options.steps, seed=options.seed)
        for method in dict.fromkeys(options.methods)
    }
    raw, centres, cell_types = _read_cells(stores)
    for (first, second), names in common_types(centres, cell_types).items():
        if first <= second:
            print(f"types scored {'in ' + first if first == second else f'between {first} and {second}'}: {names}")
    rows: list[Row] = []
    logs, latents = {}, {}
    for method, config in configs.items():
        logs[method], latents[method] = _train(config, stores, options.output / method, options.overwrite)
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


def _train(
    config: AutoencoderConfig, stores: Mapping[str, StorePath], folder: Path, overwrite: bool
) -> tuple[list[Row], np.ndarray]:
    """Train and embed, unless that is done; returns the log and the latents in the order of the stores."""
    import anndata
    import keras

    from autoencoder.embedding import embed, is_embedding_of
    from autoencoder.folder import LOG
    from autoencoder.training import train_autoencoder

    train_autoencoder(config, stores, folder, resume=not overwrite)
    path = folder / "embedding.h5ad"
    embedding = anndata.read_h5ad(path) if is_embedding_of(path, folder) else None
    if embedding is None or list(dict.fromkeys(embedding.obs["centre"])) != list(stores):
        embedding = embed(folder, stores, path)
    keras.backend.clear_session()  # or the graphs of all methods would stay in memory
    with open(folder / LOG, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)), np.asarray(embedding.X)


def _measure(vectors: np.ndarray, centres: np.ndarray, cell_types: np.ndarray, seed: int) -> Row:
    within, across = type_accuracies(vectors, centres, cell_types, seed)
    return {"centre_accuracy": centre_accuracy(vectors, centres, seed), "within": within, "across": across}


def _standardise(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    names = dict.fromkeys(centres.tolist())
    standardised = np.empty(vectors.shape, np.float32)
    for name, values in {name: standardise(vectors[centres == name]) for name in names}.items():
        standardised[centres == name] = values
    return standardised


def _write(folder: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "methods.csv", text.getvalue())
    write_text(folder / "methods.md", format_table(rows) + "\n")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
