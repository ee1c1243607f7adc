"""Whether what a killed command has left is whole, and whether what a finished one has left is as it should be."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np

from mrcnn.feature_store import FeatureStore

# What differs between two runs of the same training: when it was done, how long it took, by which command.
NOT_COMPARED = {"seconds", "command", "created", "weights_sha256"}
# Written line by line or event by event; a kill may cut the last one short.
APPENDED = ("autoencoder/log.csv", "tensorboard/")


def check_whole(folder: Path) -> tuple[str, list[str]]:
    """Read every file that has its final name.

    Args:
        folder: of the output; may be missing.

    Returns:
        The files in a few words, and what is wrong with them.
    """
    names, faults = [], []
    for name in _final_names(folder):
        names.append(name)
        try:
            read_file(folder / name, name)
        except Exception as error:  # whatever a reader raises, the file is not whole
            faults.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return (" ".join(names) or "nothing"), faults


def compare(expected: Path, folder: Path) -> list[str]:
    """What differs between two outputs, hidden files included, since nothing is to be left behind."""
    theirs, ours = set(_all_names(expected)), set(_all_names(folder))
    differences = [f"{name}: is missing" for name in sorted(theirs - ours)]
    differences += [f"{name}: is left over" for name in sorted(ours - theirs)]
    for name in sorted(ours & theirs):
        if not name.startswith(APPENDED) and f"/{APPENDED[1]}" not in f"/{name}":
            first = _differing(read_file(expected / name, name), read_file(folder / name, name), name)
            differences += [first] if first else []
    return differences


def read_file(path: Path, name: str) -> Any:
    """The content of a file: nested dictionaries and lists of arrays, texts and numbers.

    Args:
        path: the file.
        name: its path in the output.

    Raises:
        Exception: whatever is raised by the reader of a file that is not whole.
    """
    if name.startswith(APPENDED) or f"/{APPENDED[1]}" in f"/{name}":
        return path.stat().st_size
    if name.endswith(".weights.h5"):
        with h5py.File(path, "r") as file:
            content = _datasets(file)
        if len(content) < 10:
            raise ValueError(f"{len(content)} arrays only")
        return content
    if name.endswith(".h5"):
        return _read_store(path)
    if name.endswith(".h5ad"):
        data = anndata.read_h5ad(path)
        return {"X": np.asarray(data.X), "obs": data.obs.to_csv(), "uns": {k: _json(v) for k, v in data.uns.items()}}
    if name.endswith(".md"):  # for people, with times and the hash of a file
        if not path.read_text(encoding="utf-8").endswith("\n"):
            raise ValueError("cut short")
        return None
    if name.endswith(".json"):
        return json.loads(path.read_text(encoding="utf-8"))
    if name.endswith(".npz"):
        with np.load(path) as file:
            return {key: file[key] for key in file.files}
    if name.endswith(".csv"):
        with open(path, newline="", encoding="utf-8") as handle:
            rows = list(csv.reader(handle))
        if len({len(row) for row in rows}) > 1 or not path.read_text(encoding="utf-8").endswith("\n"):
            raise ValueError("a row is cut short")
        return rows
    raise ValueError("a file that no command is known to write")


def _read_store(path: Path) -> dict[str, Any]:
    with FeatureStore(path) as store:
        content: dict[str, Any] = {name: store.read(name, 0, len(store)) for name in store.fields}
        for name in ("key", "reason", "num_detections", "num_cells"):
            content[f"images/{name}"] = store.image_column(name)
        content["attributes"] = dict(store.attributes)
        if len(set(store.image_keys.tolist())) != len(store.image_keys):
            raise ValueError("an image twice")
        if int(content["images/num_cells"].sum()) != len(store):
            raise ValueError("rows that belong to no image")
    return content


def _datasets(file: h5py.File) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    file.visititems(lambda name, item: found.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None)
    return found


def _json(text: Any) -> Any:
    return json.loads(text)


def _differing(expected: Any, found: Any, where: str) -> str | None:
    """Where two contents differ first."""
    if type(expected) is not type(found):
        return f"{where}: {type(found).__name__}, not {type(expected).__name__}"
    if isinstance(expected, dict):
        if expected.keys() != found.keys():
            return f"{where}: other names: {sorted(expected.keys() ^ found.keys())}"
        parts = ((k, expected[k], found[k]) for k in expected if k not in NOT_COMPARED)
    elif isinstance(expected, list):
        if len(expected) != len(found):
            return f"{where}: {len(found)} entries, not {len(expected)}"
        parts = ((i, e, f) for i, (e, f) in enumerate(zip(expected, found, strict=True)))
    elif isinstance(expected, np.ndarray):
        same = expected.dtype == found.dtype and expected.shape == found.shape and expected.tobytes() == found.tobytes()
        return None if same else f"{where}: an array that differs"
    else:
        return None if expected == found else f"{where}: {found!r}, not {expected!r}"
    return next((text for k, e, f in parts if (text := _differing(e, f, f"{where}:{k}"))), None)


def hidden_names(folder: Path) -> list[str]:
    """Files that are hidden or lie in hidden folders, as unfinished ones do."""
    return sorted(set(_all_names(folder)) - set(_final_names(folder)))


def _all_names(folder: Path) -> Iterator[str]:
    """Files below a folder; of TensorBoard's, which bear the time, none."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and "tensorboard/" not in name:
            yield name


def _final_names(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield name
