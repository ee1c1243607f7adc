"""Reading a run's folder for its report; what is not there is None or empty, so that any run has a report."""

import csv
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.reports.quality import CentreCheck, Limits, check_store
from experiments.settings import RunSettings
from mrcnn.data.records import ImageRecord
from mrcnn.files.atomic import atomic_path
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file

# Name of each autoencoder in the table -> its folder in the run.
AUTOENCODERS = {"AE-CFE": "autoencoder", "AE-RF": "autoencoder-none"}
AUTOENCODER_NAMES = {"AE-CFE": "AE-CFE (with adaptation)", "AE-RF": "AE-RF (no adaptation)"}
_ADVICE = "remove it and run that stage again"


class Run:
    """A run's folder, for reading, and for the figures that the report leaves in it.

    Args:
        folder: the run's folder.
        settings: resolved settings.
        records: the images by centre, for the overlays.
        seed: of every choice of examples.
    """

    def __init__(self, folder: Path, settings: RunSettings, records: Mapping[str, Sequence[ImageRecord]], seed: int):
        self.folder, self.settings, self.seed = Path(folder), settings, seed
        self.paths = {c: {record.image_id: record.path for record in rows} for c, rows in records.items()}

    @property
    def centres(self) -> list[str]:
        """Centres that are compared, in the order of the settings."""
        return [name for name, centre in self.settings.centres.items() if centre.use == "all"]

    @property
    def kind_of_smears(self) -> str:
        """Whether the compared centres are photographs or drawn: "real smears", "synthetic smears" or both."""
        kinds = {"synthetic" if self.settings.centres[n].layout == "synthetic" else "real" for n in self.centres}
        return f"{' and '.join(sorted(kinds))} smears"

    @cached_property
    def stores(self) -> dict[str, Path]:
        """Path of each centre's feature store, as far as there is one."""
        paths = {name: self.folder / "features" / f"{name}.h5" for name in self.centres}
        return {name: path for name, path in paths.items() if path.is_file()}

    @cached_property
    def checks(self) -> dict[str, CentreCheck]:
        """Cells and images of each store; outliers and duplicates are not looked for."""
        return {name: check_store(path, Limits()) for name, path in self.stores.items()}

    @cached_property
    def autoencoders(self) -> dict[str, Path]:
        """Folder of each autoencoder that was trained to its end."""
        runs = {name: self.read_json(f"{folder}/run.json") or {} for name, folder in AUTOENCODERS.items()}
        return {name: self.folder / AUTOENCODERS[name] for name, run in runs.items() if run.get("complete")}

    def read_json(self, path: str) -> Any:
        """Read a JSON file below the run's folder, or None if it is not there; a damaged one is an InputError."""
        file = self.folder / path
        return read_json_file(file, missing=_ADVICE, advice=_ADVICE) if file.exists() else None

    def read_csv(self, path: str) -> list[dict[str, str]]:
        """Read a CSV file below the run's folder as `read_rows` does."""
        return read_rows(self.folder / path)

    def save_figure(self, name: str, data: bytes) -> bytes:
        """Leave a PNG as `figures/<name>.png` and return it."""
        with atomic_path(self.folder / "figures" / f"{name}.png") as temporary:
            temporary.write_bytes(data)
        return data


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file by column, none if it is not there; a damaged one is an InputError."""
    if not path.is_file():
        return []
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a UTF-8 CSV file ({error}); {_ADVICE}") from None
    if any(None in row or None in row.values() for row in rows):
        raise InputError(f"{path}: has rows of more or fewer values than columns; {_ADVICE}")
    return rows
