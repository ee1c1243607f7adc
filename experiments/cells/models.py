"""Where the trained models lie in the folder that a user names: it may be theirs, or that of a run that holds them."""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrcnn.files.atomic import write_text
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file

# Every autoencoder has one, and nothing else does.
AUTOENCODER_MARK = "scaling.npz"


def detector_folder(run: str | os.PathLike) -> Path:
    """The folder of the detector: `run` itself, or `detector` in it.

    Args:
        run: what `aecfe detector train` or `aecfe run` wrote.
    """
    run = Path(run)
    return run / "detector" if (run / "detector" / "config.json").is_file() else run


def autoencoder_folder(run: str | os.PathLike) -> Path:
    """The folder of the autoencoder: `run` itself, or the only one in it.

    Args:
        run: what `aecfe train` or `aecfe run` wrote.

    Raises:
        InputError: if there is none, or there are several.
    """
    run = Path(run)
    if (run / AUTOENCODER_MARK).is_file():
        return run
    found = sorted(path.parent for path in run.glob(f"*/{AUTOENCODER_MARK}"))
    if not found:
        raise InputError(f"{run}: no trained autoencoder there; give what `aecfe train` or `aecfe run` wrote")
    if len(found) > 1:
        raise InputError(f"{run}: holds several autoencoders; name one of them: {', '.join(map(str, found))}")
    return found[0]


log = logging.getLogger(__name__)

CARD = "MODEL_CARD.md"
FEW_CELLS = 10  # of a type; from fewer no classifier learns much
NOT_FOR_DIAGNOSIS = (
    "> **Not for diagnosis.** This is a tool for research and no medical device: nothing that concerns a patient may "
    "rest on it."
)
# What to fill in, by heading, in order.
QUESTIONS = {
    "What it is": "Kind of model, version and date, who trained it, whom to ask.",
    "Intended use": "For which questions and by whom; what it is not for.",
    "Data it learned from": "Centres, numbers of images, cells and patients, how they were chosen, licence of each.",
    "Stains and microscopes": "Stain, scanner or camera, magnification, micrometres of a pixel, of each centre.",
    "Scores": "On which cells, of centres that it has seen and has not; with numbers of cells and intervals.",
    "Known limits": "Types, stains, centres and patients of which it knows little or nothing.",
    "How to use": "Commands or code.",
    "How to cite": "This model, its data sets, and the method (CITATION.cff of the software).",
}
_OPEN = "*To be filled in:* "
_WEIGHTS, _CONFIG, _RUN = "weights.weights.h5", "config.json", "run.json"
_SCORES = {
    "out_of_bag_balanced_accuracy": "balanced accuracy, each cell named by the trees that did not learn from it",
    "cross_validated_balanced_accuracy": "balanced accuracy, each cell named by one that did not learn from it",
}


def make_card(title: str, known: Mapping[str, str]) -> str:
    """A card as Markdown.

    Args:
        title: of the card.
        known: text by heading of `QUESTIONS`; the others get their question.

    Raises:
        ValueError: for an unknown heading.
    """
    unknown = set(known) - set(QUESTIONS)
    if unknown:
        raise ValueError(f"a card has no heading {min(unknown)!r}")
    parts = [f"# {title}", NOT_FOR_DIAGNOSIS]
    for heading, question in QUESTIONS.items():
        parts += [f"## {heading}", known.get(heading, _OPEN + question)]
    return "\n\n".join(parts) + "\n"


def classifier_card(record: Mapping[str, Any]) -> str:
    """The card of a classifier of cells.

    Args:
        record: content of its classifier.json.
    """
    source, centres, counts = record["vectors"], record["centres"], record["counts"]
    kind = {"forest": "random forest", "logistic": "logistic regression"}[record["classifier"]]
    standardised = record["standardise"] == "centre"
    what = [
        f"A {kind} that names the type of a white blood cell from {source['length']} numbers ({source['kind']}).",
        f"- types: {', '.join(map(_code, record['classes']))}",
        f"- detector: {_code(source['detector'] or 'not recorded')}",
        f"- autoencoder: {_code(source['autoencoder'] or 'none, or not recorded')}",
        f"- vectors: {'standardised within each centre' if standardised else 'as they are'}",
        f"- made on {record['created'][:10]} with {', '.join(f'{n} {v}' for n, v in record['versions'].items())}",
        f"- SHA-256 of {record['file']}: {_code(record['sha256'])}",
    ]
    table = [["type", *centres], ["---"] * (1 + len(centres))]
    table += [[name, *(str(counts[centre][name]) for centre in centres)] for name in record["classes"]]
    rows = ["| " + " | ".join(map(_cell, row)) + " |" for row in table]
    limits = [
        "- It names one of its types whatever it is shown: a type that it never saw, a platelet, or dirt.",
        "- It learned how often each type occurs in the table above, and errs where types occur in other shares.",
        "- Its probabilities are not calibrated, least of all for a laboratory that it has not seen.",
        "- Laboratories differ in stain and camera. Check it on labelled cells of your own before you believe it.",
    ]
    if standardised:
        limits.append("- It needs many cells of a new centre at once, in which types occur in shares much like above.")
    rare = [name for name in record["classes"] if sum(counts[centre][name] for centre in centres) < FEW_CELLS]
    if rare:
        limits.append(f"- Fewer than {FEW_CELLS} cells were there of {', '.join(map(_code, rare))}.")
    known = {
        "What it is": "\n".join([what[0], "", *what[1:]]),
        "Intended use": "Research on the types of single white blood cells in images of blood smears.",
        "Data it learned from": "\n".join(
            ["Labelled cells by type and centre:", "", *rows, "", _OPEN + QUESTIONS["Data it learned from"]]
        ),
        "Scores": "\n".join(_score_lines(record["scores"])),
        "Known limits": "\n".join(limits),
        "How to use": "```\naecfe classifier apply THIS_FOLDER FILE -o calls.csv\n```",
    }
    return make_card("Classifier of white blood cells", known)


def add_cards(folder: Path) -> list[Path]:
    """Write a card into each folder of a trained detector or autoencoder that has none; people's own text stays.

    Args:
        folder: of a trained model, or of a run that holds some.

    Returns:
        The cards that were written.
    """
    from mrcnn.files.provenance import file_hash

    written = []
    for place in (folder, *sorted(path for path in folder.glob("*") if path.is_dir())):
        if not all((place / name).is_file() for name in (_WEIGHTS, _CONFIG, _RUN)):
            continue
        run = _read_run(place / _RUN)
        if not run.get("complete") or run.get("kind"):  # the classifiers of Table 3.3 say what kind they are
            continue
        path, weights = place / CARD, file_hash(place / _WEIGHTS)
        if not path.exists():
            write_text(path, _network_card(place, run, weights))
            written.append(path)
        elif weights not in path.read_text(encoding="utf-8", errors="replace"):
            log.warning("%s: tells of other weights than %s; delete it, and it is made again", path, weights[:12])
    return written


def _read_run(path: Path) -> dict[str, Any]:
    """Content of a run.json; {} of a damaged one, which is told: what was trained beside it is whole."""
    advice = "no model card is written there"
    try:
        run = read_json_file(path, missing=advice, advice=advice, allow_nan=True)
    except InputError as error:
        log.warning("%s", error)
        return {}
    return run if isinstance(run, dict) else {}


def _network_card(folder: Path, run: Mapping[str, Any], weights: str) -> str:
    """The card of a detector or an autoencoder, from its run.json."""
    is_autoencoder = (folder / AUTOENCODER_MARK).is_file()
    noted = [f"- SHA-256 of the weights: {_code(weights)}", f"- seed {run.get('seed')}, settings in {_CONFIG}"]
    noted.append(f"- versions: {', '.join(f'{name} {number}' for name, number in run.get('versions', {}).items())}")
    if is_autoencoder:
        title, what = "Autoencoder of white blood cells", "An autoencoder that embeds a detector's features of cells."
        numbers = {centre: f"{store.get('cells')} cells" for centre, store in run.get("stores", {}).items()}
        use = "aecfe embed THIS_FOLDER STORE -o embedding.h5ad"
        scores = [f"- {_cell(name)} at the end: {value:.4g}" for name, value in run.get("losses", {}).items()]
    else:
        title, what = "Detector of white blood cells", "A Mask R-CNN that finds white blood cells in images of smears."
        numbers = {centre: f"{count} images" for centre, count in run.get("train_images", {}).items()}
        use = "aecfe detect IMAGES --detector THIS_FOLDER --csv cells.csv"
        scores = []
    data = [f"- {_code(centre)}: {number}" for centre, number in numbers.items()]
    known = {
        "What it is": "\n".join([what, "", *noted]),
        "Data it learned from": "\n".join([*data, "", _OPEN + QUESTIONS["Data it learned from"]]),
        "How to use": f"```\n{use}\n```",
    }
    if scores:
        known["Scores"] = "\n".join([*scores, "", _OPEN + QUESTIONS["Scores"]])
    return make_card(title, known)


def _score_lines(scores: Mapping[str, Any]) -> list[str]:
    lines = [f"- {text}: {scores[name]:.3f}" for name, text in _SCORES.items() if name in scores]
    left_out = scores.get("left_out_centre_balanced_accuracy", {})
    lines += [
        f"- balanced accuracy on {_code(centre)} of a classifier that learned from the other centres: {score:.3f}"
        for centre, score in left_out.items()
    ]
    if not left_out:
        lines.append("- on a centre that it has not seen: unknown")
    return lines


def _code(text: str) -> str:
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"


def _cell(text: str) -> str:
    """Text that cannot end its cell of a table or begin a link or HTML."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))
