"""Fuzzes the readers of settings and tables: run files and class maps in YAML, JSON of trained folders, CSV."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent))
with atheris.instrument_imports(include=["mrcnn", "autoencoder", "experiments", "yaml"], enable_loader_override=False):
    from harness import seeds_of_cases, start

    from autoencoder.config import AutoencoderConfig
    from experiments.class_maps import make_class_map
    from experiments.csv_columns import read_columns
    from experiments.groups import read_groups
    from experiments.report_run import read_rows
    from experiments.settings import load_settings, read_section
    from experiments.splits import load_split
    from mrcnn.config import Config, make_config
    from mrcnn.json_values import read_json_file

import config_cases
import csv_cases


def read_detector(path: Path) -> Any:
    """The settings of a detector, without TensorFlow."""
    values = read_json_file(path, missing="copy it", advice="copy it again")
    return make_config(values if isinstance(values, dict) else {"other": values}, Config, keep_unknown=True)


def read_preset(path: Path) -> Any:
    """One section of a file."""
    return AutoencoderConfig.from_dict(read_section(path, "autoencoder"))


READERS: tuple[tuple[str, Callable[[Path], Any]], ...] = (
    ("a.yaml", load_settings),
    ("a.yaml", lambda path: make_class_map(path, "folders")),
    ("a.json", AutoencoderConfig.load),
    ("a.json", load_split),
    ("a.json", read_detector),
    ("a.csv", lambda path: read_columns(path, ("image", "label"), "give it")),
    ("a.csv", lambda path: read_groups(path, "patient", csv_cases._KEYS, "centre north")),
    ("a.csv", read_rows),
    ("a.yaml", read_preset),
)


def read(data: bytes, folder: Path) -> None:
    """The first byte tells the reader, the rest is the file."""
    name, reader = READERS[data[0] % len(READERS)] if data else READERS[0]
    path = folder / name
    path.write_bytes(data[1:])
    reader(path)


def seeds() -> Iterator[bytes]:
    """The generated cases, sound ones among them."""
    for number, (module, reader) in enumerate(
        (
            (config_cases, "load_settings"),
            (config_cases, "class map"),
            (config_cases, "autoencoder config"),
            (config_cases, "load_split"),
            (config_cases, "autoencoder config"),
            (csv_cases, "read_columns"),
            (csv_cases, "read_groups"),
            (csv_cases, "report table"),
            (config_cases, "preset"),
        )
    ):
        yield from seeds_of_cases(module.cases(reader, 0), bytes([number]))


if __name__ == "__main__":
    start(read, seeds)
