"""Trained models: where they lie in the folder that a user names, and the model card (for people) in each."""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mrcnn.files.atomic import write_text
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file
from mrcnn.files.provenance import file_hash
from mrcnn.training.shipped import find_detector, shipped_detector

log = logging.getLogger(__name__)

# Every autoencoder has one, and nothing else does.
AUTOENCODER_MARK = "scaling.npz"
CARD = "MODEL_CARD.md"
FEW_CELLS = 10  # of a type; from fewer no classifier learns much
_WEIGHTS, _CONFIG, _RUN = "weights.weights.h5", "config.json", "run.json"


def _cell(text: str) -> str:
    """Text that cannot end its cell of a table or begin a link or HTML."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))


# Each block of the base asks what people are to fill in; the cards of our models answer some.
CARDS = Environment(
    loader=PackageLoader("experiments.cells", "cards"),
    trim_blocks=True,
    keep_trailing_newline=True,
    undefined=StrictUndefined,
)
CARDS.filters |= {
    "code": lambda text: f"`{' '.join(text.split()).replace('`', chr(39))}`",
    "cell": _cell,
    "named": lambda numbers: ", ".join(f"{name} {number}" for name, number in numbers.items()),
}


def detector_folder(run: str | os.PathLike | None = None) -> Path:
    """The folder of a detector; where none was named, the one that ships, which is logged.

    It is that in what `aecfe detector train` or `aecfe run` wrote: `run` itself, or `detector` in it; or that of a
    detector that ships, by its name, or by None the default one.
    """
    in_run = None if run is None else Path(run) / "detector"
    if in_run is not None and (in_run / _CONFIG).is_file():
        return in_run
    folder = shipped_detector() if run is None else find_detector(run)
    if folder is None:
        raise InputError("detector: none ships with this installation; name the folder of a trained one")
    if run is None:
        log.info("detector: %s, which ships with aecfe, since none was named", folder.name)
    return folder


def autoencoder_folder(run: str | os.PathLike) -> Path:
    """The folder of the autoencoder in what `aecfe train` or `aecfe run` wrote: `run` itself, or the only one in it."""
    run = Path(run)
    if (run / AUTOENCODER_MARK).is_file():
        return run
    found = sorted(path.parent for path in run.glob(f"*/{AUTOENCODER_MARK}"))
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{run}: holds several autoencoders; name one of them: {', '.join(map(str, found))}")
    raise InputError(f"{run}: no trained autoencoder there; give what `aecfe train` or `aecfe run` wrote")


def classifier_card(record: Mapping[str, Any]) -> str:
    """The card of a classifier of cells, from the content of its classifier.json."""
    counts = record["counts"]
    return CARDS.get_template("classifier.md.jinja").render(
        **record,
        kind={"forest": "random forest", "logistic": "logistic regression"}[record["classifier"]],
        few=FEW_CELLS,
        rare=[name for name in record["classes"] if sum(counts[c][name] for c in record["centres"]) < FEW_CELLS],
    )


def add_cards(folder: Path) -> list[Path]:
    """Write a card into each folder of a trained network that has none, `folder` or those in it; return the cards."""
    written = []
    for place in (folder, *sorted(path for path in folder.glob("*") if path.is_dir())):
        if not all((place / name).is_file() for name in (_WEIGHTS, _CONFIG, _RUN)):
            continue
        try:  # what was trained beside a damaged one is whole
            run = read_json_file(place / _RUN, missing="", advice="no model card is written there")
        except InputError as error:
            log.warning("%s", error)
            continue
        # The classifiers of Table 3.3 say what kind they are.
        if not isinstance(run, dict) or not run.get("complete") or run.get("kind"):
            continue
        path, weights = place / CARD, file_hash(place / _WEIGHTS)
        if not path.exists():
            known = {"seed": None, "versions": {}, "stores": {}, "train_images": {}, "losses": {}} | run
            is_autoencoder = (place / AUTOENCODER_MARK).is_file()
            card = CARDS.get_template("network.md.jinja")
            write_text(path, card.render(run=known, weights=weights, is_autoencoder=is_autoencoder))
            written.append(path)
        elif weights not in path.read_text(encoding="utf-8", errors="replace"):
            log.warning("%s: tells of other weights than %s; delete it, and it is made again", path, weights[:12])
    return written
