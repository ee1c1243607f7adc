"""What several commands do with their arguments: checks before the work begins, and settings of a file and options."""

import argparse
from pathlib import Path
from typing import Any

from experiments.settings import read_section, set_value
from mrcnn.files.errors import InputError
from mrcnn.files.output_paths import check_output_folder


def check_score(score: float | None) -> None:
    """Refuse a `--min-score` that no cell or every cell has.

    Raises:
        InputError: if it does not lie between 0 and 1.
    """
    if score is not None and not 0.0 <= score <= 1.0:
        raise InputError(f"--min-score must lie between 0 and 1; got {score:g}")


def score_override(score: float | None) -> dict[str, Any]:
    """What `--min-score` changes of a detector's settings; nothing if it is left out."""
    return {} if score is None else {"DETECTION_MIN_CONFIDENCE": score}


def check_run_folder(arguments: argparse.Namespace) -> None:
    """Check the folder of a training, unless it holds one: a finished one is used as it is, wherever it lies.

    Of several processes only one writes, and the folder may be on its machine alone, so that none of them looks.

    Args:
        arguments: with `output`, `overwrite` and `multi_worker`.

    Raises:
        InputError: if it cannot be written to.
    """
    if arguments.multi_worker:
        return
    if arguments.overwrite or not (Path(arguments.output) / "run.json").is_file():
        check_output_folder(arguments.output)


def section_values(arguments: argparse.Namespace, section: str) -> dict[str, Any]:
    """Settings of one section: those of the file of `--config`, changed by `--set`.

    Args:
        arguments: with `config`, a path or None, and `overrides`, whose keys may leave the section's name out.
        section: its name.

    Raises:
        InputError: if the file or an override is malformed.
    """
    values: dict[str, Any] = {section: read_section(arguments.config, section) if arguments.config else {}}
    for override in arguments.overrides:
        set_value(values, override if override.startswith(f"{section}.") else f"{section}.{override}")
    return values[section]


def obey_deterministic(arguments: argparse.Namespace) -> None:
    """Compute on one thread if `--deterministic` asks for it; to be called before TensorFlow has computed anything."""
    if arguments.deterministic:
        from mrcnn.files.determinism import compute_on_one_thread

        compute_on_one_thread()


def named_stores(paths: list[str]) -> dict[str, Path | tuple[Path, ...]]:
    """Stores by the name of the centre that each of them holds; the shards of a centre as a tuple."""
    from mrcnn.feature_store import stores_by_centre

    return stores_by_centre(paths)
