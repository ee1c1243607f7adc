"""Cost of the reader of feature stores with 10^5, 10^6 and 10^7 cells: opening, first batch, pace, memory.

Usage: python benchmarks/reader_scale.py [--cells 100000 1000000 10000000] [--shard-cells 100000] [--batches 200]

Four centres of equal size, each in shards of 100,000 cells, are read as a training reads them, in batches of 96,
without TensorFlow. The stores are sparse, see `autoencoder_memory.py`: each row has its chunk in the index of the file,
and the file system gives zeros, so that what is measured is all that grows with the number of cells, and no disk. Each
shard has keys of its own. 10^7 cells are 2 TB to the reader, and some gigabytes on the disk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.autoencoder_memory import make_sparse_store, peak_mib  # noqa: E402

CENTRES = ("first", "second", "third", "fourth")
CELLS = (100_000, 1_000_000, 10_000_000)
SHARD_CELLS = 100_000
BATCH, BATCHES = 96, 200


def make_centres(folder: Path, num_cells: int, shard_cells: int) -> dict[str, list[str]]:
    """Sparse stores of `num_cells` over all centres.

    Returns:
        By centre, the files of its shards.
    """
    stores = {}
    for centre in CENTRES:
        remaining, paths = num_cells // len(CENTRES), []
        while remaining:
            rows = min(shard_cells, remaining)
            paths.append(str(folder / f"{centre}-{len(paths):05d}.h5"))
            make_sparse_store(Path(paths[-1]), centre, rows, prefix=f"shard-{len(paths):05d}")
            remaining -= rows
        stores[centre] = paths
    return stores


def read(stores: dict[str, list[str]], num_batches: int, balance: str) -> dict[str, float]:
    """Read here and now, as a training does.

    Returns:
        Dict of `open_s` (counting cells and types), `first_batch_s`, `cells_per_s` (later batches), `mb_per_s`,
        `idle_mib` (before anything was opened) and `peak_mib`. Times are the processor's, so that what else the
        machine does is not measured; there is one thread and no disk to wait for.
    """
    from autoencoder.batches import ROW_BYTES, batch_shares, read_batches
    from autoencoder.label_shift import count_types

    idle = peak_mib()
    started = time.process_time()
    counts = [sum(types.values()) for types in count_types(stores).values()]
    opened = time.process_time()
    batches = read_batches(stores, batch_shares(counts, BATCH, balance), type_source=0 if balance == "type" else None)
    next(batches)
    first = time.process_time()
    for _ in range(num_batches):
        next(batches)
    pace = num_batches * BATCH / (time.process_time() - first)
    batches.close()
    return {
        "open_s": opened - started,
        "first_batch_s": first - opened,
        "cells_per_s": pace,
        "mb_per_s": pace * ROW_BYTES / 1e6,
        "idle_mib": idle,
        "peak_mib": peak_mib(),
    }


def measure(cells: Sequence[int], shard_cells: int, num_batches: int) -> None:
    """Read each number of cells in processes of their own, and print what it took."""
    for num_cells in cells:
        with tempfile.TemporaryDirectory() as temporary:
            started = time.perf_counter()
            stores = make_centres(Path(temporary), num_cells, shard_cells)
            files = [path for paths in stores.values() for path in paths]
            disk = sum(Path(path).stat().st_blocks * 512 for path in files) / 2**30
            size = sum(Path(path).stat().st_size for path in files) / 1e12
            print(
                f"{num_cells:,} cells, {len(files)} files, {size:.2f} TB to the reader, {disk:.2f} GiB on the disk, "
                f"made in {time.perf_counter() - started:.0f} s",
                flush=True,
            )
            for balance in ("none", "type"):
                asked = json.dumps([stores, num_batches, balance])
                command = [sys.executable, __file__, "--read", "-"]
                done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=True)
                result = json.loads(done.stdout.splitlines()[-1])
                print(f"  balance {balance}: {', '.join(f'{k} {v:.1f}' for k, v in result.items())}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=CELLS, metavar="N")
    parser.add_argument("--shard-cells", type=int, default=SHARD_CELLS, metavar="N")
    parser.add_argument("--batches", type=int, default=BATCHES, metavar="N")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(*json.load(sys.stdin))))
    else:
        measure(options.cells, options.shard_cells, options.batches)


if __name__ == "__main__":
    main()
