"""Peak memory of autoencoder training on 500 and on 5,000 cells: the ratio should be close to 1.

Usage: python benchmarks/autoencoder_memory.py [--cells 500 5000] [--steps 40]

Each training runs in a process of its own, on random features of two centres: one pass over all cells for the
channel statistics, then steps enough to refill the shuffle window of each centre.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mrcnn.feature_store import Cell, FeatureStoreWriter  # noqa: E402

CENTRES = ("first", "second")
BATCH = 16


def make_stores(folder: Path, num_cells: int) -> dict[str, str]:
    """Write a store per centre, `num_cells` in all."""
    random = np.random.default_rng(0)
    stores = {}
    for centre in CENTRES:
        stores[centre] = str(folder / f"{centre}.h5")
        with FeatureStoreWriter(stores[centre], centre=centre, detector={"hash": "random"}) as writer:
            for number in range(num_cells // len(CENTRES)):
                features = random.random((14, 14, 256), np.float32)
                image = random.integers(0, 256, (128, 128, 3), dtype=np.uint8)
                cell = Cell(features, image, image, np.array([0, 0, 9, 9]), 1.0, 1, (128, 128))
                writer.add(f"{number}.png", [cell])
    return stores


def train(stores: dict[str, str], folder: Path, steps: int) -> dict[str, float]:
    """Train here and now; returns peak resident memory in MiB, and milliseconds per later step."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from autoencoder.config import AutoencoderConfig
    from autoencoder.training import train_autoencoder

    config = AutoencoderConfig(
        image_size=32,
        global_batch_size=BATCH,
        steps=steps,
        log_every=1,
        feature_scaling="channel",
        adaptation="mmd",
    )
    trained = train_autoencoder(config, stores, folder, progress=False)
    seconds = np.loadtxt(trained.folder / "log.csv", delimiter=",", skiprows=1, usecols=5)
    # Linux counts kilobytes, macOS bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"peak_mib": peak, "ms_per_step": 1000 * float(seconds[-1] - seconds[0]) / (steps - 1)}


def main() -> None:
    """Train on each number of cells in a process of its own and print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs=2, default=(500, 5000), metavar="N")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--measure", nargs=2, metavar=("STORES", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        stores, folder = options.measure
        print(json.dumps(train(json.loads(stores), Path(folder), options.steps)))
        return
    peaks = []
    for num_cells in options.cells:
        with tempfile.TemporaryDirectory() as temporary:
            started = time.monotonic()
            stores = make_stores(Path(temporary), num_cells)
            made = time.monotonic() - started
            command = [
                sys.executable,
                __file__,
                "--steps",
                str(options.steps),
                "--measure",
                json.dumps(stores),
            ]
            done = subprocess.run([*command, f"{temporary}/run"], stdout=subprocess.PIPE, text=True, check=True)
            result = json.loads(done.stdout.splitlines()[-1])
        peaks.append(result["peak_mib"])
        print(
            f"{num_cells:6d} cells: peak {result['peak_mib']:.0f} MiB, "
            f"{result['ms_per_step']:.0f} ms per step of {BATCH} (stores written in {made:.0f} s)"
        )
    print(f"peak memory, {options.cells[1]} over {options.cells[0]} cells: {peaks[1] / peaks[0]:.2f}")


if __name__ == "__main__":
    main()
