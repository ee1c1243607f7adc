"""Peak memory of autoencoder training on 1,000, 10,000 and 100,000 cells, and the time of a pass over them.

Usage: python benchmarks/autoencoder_memory.py [--cells 1000 10000 100000] [--steps 48]

Each training runs in a process of its own, on two centres, for steps enough to refill the shuffle window of each. The
stores are sparse: every row has its chunk, as in a real store, but nothing was written there, so that the file system
gives zeros and 100,000 cells, 20 GB, take some megabytes of disk. Reading them costs no disk either; what stores on
disk cost is measured by `autoencoder_speed.py`.
"""

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mrcnn.feature_store import Cell, FeatureStoreWriter  # noqa: E402

CENTRES = ("first", "second")
BATCH = 16
CELLS = (1000, 10_000, 100_000)
STEPS = 48
TYPES = ("basophil", "eosinophil", "lymphocyte_typical", "monocyte", "neutrophil_segmented")


def make_sparse_store(path: Path, centre: str, num_cells: int, *, prefix: str = "images") -> None:
    """Write a store whose texts and small columns are there, and whose features and images are holes.

    Args:
        path: of the store.
        centre: its name.
        num_cells: rows.
        prefix: of the image_ids.
    """
    blank = np.zeros((128, 128, 3), np.uint8)
    cell = Cell(np.zeros((14, 14, 256)), blank, blank, np.array([0, 0, 9, 9]), 1.0, 1, (128, 128))
    with FeatureStoreWriter(path, centre=centre, detector={"hash": "random"}) as writer:
        writer.add("0.png", [cell], label="label", cell_type=TYPES[0])
    image_ids = [f"{prefix}/{number:06d}.png".encode() for number in range(num_cells)]
    types = [TYPES[number % len(TYPES)].encode() for number in range(num_cells)]
    texts = {"image_id": image_ids, "label": types, "cell_type": types}
    with h5py.File(path, "r+") as file:
        for group in (file["cells"], file["images"]):
            for name in list(group):
                column = group.pop(name)
                if name in texts or column.dtype.kind == "S":
                    values = np.array(texts.get(name, [b""] * num_cells))
                    group.create_dataset(name, data=values, chunks=(1024,), maxshape=(None,), fletcher32=True)
                elif column.ndim < 3:
                    values = np.repeat(column[:1], num_cells, axis=0)
                    chunks = (1024, *column.shape[1:])
                    group.create_dataset(name, data=values, chunks=chunks, maxshape=(None, *chunks[1:]))
                else:
                    _create_holes(group, name, (num_cells, *column.shape[1:]), column.dtype)


def _create_holes(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """A dataset with one chunk per row, all of them allocated and none written; a checksum would have to be."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((1, *shape[1:]))
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape, (h5py.h5s.UNLIMITED, *shape[1:]))
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(dtype), space, dcpl=settings)


def train(stores: dict[str, str], folder: Path, steps: int) -> dict[str, float]:
    """Train here and now.

    Returns:
        Dict of `peak_mib`, peak resident memory, and `ms_per_step`, of later steps.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from autoencoder.config import AutoencoderConfig
    from autoencoder.training import train_autoencoder

    logging.getLogger("autoencoder").setLevel(logging.ERROR)  # it would warn that all latents are alike: cells are
    config = AutoencoderConfig(image_size=32, global_batch_size=BATCH, steps=steps, log_every=1)
    trained = train_autoencoder(config, stores, folder)
    seconds = np.genfromtxt(trained.folder / "log.csv", delimiter=",", names=True)["seconds"]
    return {"peak_mib": peak_mib(), "ms_per_step": 1000 * float(seconds[-1] - seconds[0]) / (steps - 1)}


def peak_mib() -> float:
    """Peak resident memory of this process."""
    try:
        # Unlike what `getrusage` tells, it does not begin with the peak of the process that started this one.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10
    except (OSError, StopIteration):
        # Linux counts kilobytes, macOS bytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(cells: Sequence[int] = CELLS, steps: int = STEPS) -> dict[int, dict[str, float]]:
    """Train on each number of cells in a process of its own.

    Args:
        cells: numbers of cells over both centres.
        steps: of each training.

    Returns:
        By number of cells, `peak_mib`, `ms_per_step`, `epoch_minutes` (the steps of a pass times the time of one) and
        `disk_mib` (what the stores take).
    """
    results = {}
    for num_cells in cells:
        with tempfile.TemporaryDirectory() as temporary:
            stores = {}
            for centre in CENTRES:
                stores[centre] = f"{temporary}/{centre}.h5"
                make_sparse_store(Path(stores[centre]), centre, num_cells // len(CENTRES))
            disk = sum(os.stat(path).st_blocks * 512 for path in stores.values()) / 2**20
            command = [sys.executable, __file__, "--steps", str(steps), "--measure", json.dumps(stores)]
            done = subprocess.run([*command, f"{temporary}/run"], stdout=subprocess.PIPE, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        minutes = num_cells / BATCH * result["ms_per_step"] / 60_000
        results[num_cells] = {**result, "epoch_minutes": minutes, "disk_mib": disk}
    return results


def main() -> None:
    """Train on each number of cells and print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=CELLS, metavar="N")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--measure", nargs=2, metavar=("STORES", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        stores, folder = options.measure
        print(json.dumps(train(json.loads(stores), Path(folder), options.steps)))
        return
    started = time.monotonic()
    for num_cells, result in measure(options.cells, options.steps).items():
        print(f"{num_cells:7d} cells: {', '.join(f'{name} {value:.1f}' for name, value in result.items())}")
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
