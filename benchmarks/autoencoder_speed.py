"""Cost of training and embedding beside what the processor can do, and of reading from stores.

    python benchmarks/autoencoder_speed.py [--output runs/bench/bench.json] [--repeats 8] [--cells 1000 10000 100000]

What is compared is timed in turn in one process, so that other work on the machine slows all of it; medians count, and
of ratios the medians of those of neighbouring calls. The results are added to those of `bench.py`:

- `train_vs_wall`: multiplications of a training step per second, as a part of those of a large convolution;
- `embed_vs_train`: cells embedded in the time of training one, both from memory;
- `store_overhead`: time of training from stores over that of training from tensors in memory;
- `store_read`: MB per second that one core reads, with checksums and shuffling;
- `memory_100k_over_1k`: peak memory of training on 100,000 cells over that on 1,000 (`autoencoder_memory.py`).
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf

from autoencoder.batches import ROW_BYTES, CellBatches, read_batches
from autoencoder.config import AutoencoderConfig
from autoencoder.embedding import BATCH_SIZE, compiled_encoder, encode_store
from autoencoder.folder import TrainedAutoencoder
from autoencoder.network import FEATURE_SHAPE
from autoencoder.scaling import FeatureScaling
from autoencoder.step import AutoencoderModel
from benchmarks import autoencoder_memory
from benchmarks.results import Results, add, print_missed_goals, read_results
from benchmarks.stages import in_turn
from mrcnn.feature_store import Cell, FeatureStoreWriter, open_store
from mrcnn.files.atomic import write_json
from mrcnn.files.fitting import ReplicaBatches

BATCH = 32
CENTRES = ("first", "second")
CELLS_PER_CENTRE = 768  # three windows of shuffling, 0.15 GB
# Multiplications of one sample in a step: 2.92e9 forward, as many for each of the two gradients.
STEP_GMAC = 8.76

Call = Callable[[], object]


def convolution(calls: int = 4) -> tuple[Call, float]:
    """A 3 x 3 convolution with 256 channels, large enough to run at the processor's pace, and its work in GMAC.

    The convolution is whole, but only a few numbers of it leave TensorFlow: copying them all would be timed too.
    """
    images = tf.random.stateless_normal((32, 56, 56, 256), (0, 0))
    kernel = tf.random.stateless_normal((3, 3, 256, 256), (0, 1))
    compiled = tf.function(lambda x, w: tf.nn.conv2d(x, w, 1, "VALID")[0, 0, 0])

    def run() -> None:
        for _ in range(calls):
            compiled(images, kernel).numpy()

    return run, calls * 32 * 54 * 54 * 9 * 256 * 256 / 1e9


def make_stores(folder: Path) -> dict[str, str]:
    """Write a store of random cells per centre."""
    random = np.random.default_rng(0)
    stores = {}
    for centre in CENTRES:
        stores[centre] = str(folder / f"{centre}.h5")
        with FeatureStoreWriter(stores[centre], centre=centre, detector={"hash": "random"}) as writer:
            for number in range(CELLS_PER_CENTRE):
                image = random.integers(0, 256, (128, 128, 3), dtype=np.uint8)
                features = random.random(FEATURE_SHAPE, np.float32)
                writer.add(f"{number}.png", [Cell(features, image, image, np.array([0, 0, 9, 9]), 1.0, 1, (128, 128))])
    return stores


class Training:
    """A training that can be taken step by step, from memory or from stores.

    Args:
        stores: feature store by centre.
        image_size: side of the reconstructed image.
    """

    def __init__(self, stores: dict[str, str], image_size: int):
        self.config = AutoencoderConfig(image_size=image_size, global_batch_size=BATCH)
        self.stores = stores
        self.scaling = FeatureScaling.fit(self.config.feature_scaling, stores)
        model = AutoencoderModel(self.config, len(stores))
        model.compile_for_training()
        self.model, self._step = model.network, tf.function(model.train_step)
        self._in_memory = list(islice(self.batches(), 4))

    def batches(self) -> Iterator[dict[str, tf.Tensor]]:
        """Batches from the stores, from the first step on."""
        cells = CellBatches(self.config, self.stores, self.scaling)
        return iter(ReplicaBatches(cells, tf.distribute.get_strategy()))

    def step(self, batch: dict[str, tf.Tensor] | None = None) -> None:
        """Train on a batch; without one, on one that is in memory."""
        self._step(self._in_memory[0] if batch is None else batch)["loss"].numpy()

    def steps(self, num_steps: int, batches: Iterator[dict[str, tf.Tensor]] | None = None) -> tuple[float, float]:
        """Train on the next batches, or without these on those in memory.

        Returns:
            Seconds that it took, and seconds of all cores together that this process had.
        """
        started, processor_started = time.perf_counter(), time.process_time()
        for batch in islice(cycle(self._in_memory) if batches is None else batches, num_steps):
            self.step(batch)
        return time.perf_counter() - started, time.process_time() - processor_started


def spread(values: Sequence[float]) -> str:
    """Quartiles, for printing."""
    low, _, high = statistics.quantiles(values, n=4)
    return f"{'':34} quartiles of {len(values)}: {low:.3g} to {high:.3g}"


def compute(results: Results, training: Training, repeats: int) -> None:
    """Time training and embedding from memory beside the large convolution."""
    trained = TrainedAutoencoder(Path(), training.config, {}, training.scaling, training.model)
    encode = compiled_encoder(trained)
    features = tf.random.stateless_uniform((BATCH_SIZE, *FEATURE_SHAPE), (0, 2), dtype=tf.float16)
    wall, work = convolution()
    calls = {"wall": wall, "step": training.step, "encode": lambda: encode(features, 0).numpy()}
    times = {name: np.array(seconds) for name, seconds in in_turn(calls, repeats).items()}
    step, encoding = times["step"] / BATCH, times["encode"] / BATCH_SIZE
    print(f"training at 128 px, batch {BATCH}, float32, SSIM, mmd; embedding in batches of {BATCH_SIZE}")
    add(results, "wall", float(np.median(work / times["wall"])), "GMAC/s")
    add(results, "train_samples", float(np.median(1 / step)), "samples/s")
    add(results, "embed_samples", float(np.median(1 / encoding)), "samples/s")
    for name, ratios, unit in (
        ("train_vs_wall", STEP_GMAC / step / (work / times["wall"]), "of the wall"),
        ("embed_vs_train", step / encoding, "samples"),
    ):
        add(results, name, float(np.median(ratios)), unit)
        print(spread(ratios))
    with open_store(training.stores[CENTRES[0]]) as store:
        (seconds,) = in_turn({"store": lambda: encode_store(trained, encode, store)}, 5).values()
        add(results, "embed_samples_from_store", len(store) / statistics.median(seconds), "samples/s")


def overhead(results: Results, training: Training, name: str, num_steps: int, rounds: int) -> None:
    """Time training from stores beside training from memory.

    They take turns of a few steps, and who begins alternates, so that a machine that gets slower or faster harms
    neither. What is read ahead in a turn is read for the next one; before each turn reading comes to rest, so that no
    turn from memory pays for it. All turns together use up several windows of shuffling.
    """
    training.step()
    batches = training.batches()
    training.step(next(batches))
    times: dict[str, list[tuple[float, float]]] = {"memory": [], "stores": []}
    for number in range(rounds):
        for kind in ("memory", "stores") if number % 2 else ("stores", "memory"):
            time.sleep(0.3)
            times[kind].append(training.steps(num_steps, batches if kind == "stores" else None))
    memory, stores = np.array(times["memory"]), np.array(times["stores"])
    print(f"\n{training.config.image_size} px, {rounds} x {num_steps} steps of {BATCH} from each")
    add(results, f"{name}: from memory", 1000 * float(memory[:, 0].sum()) / (rounds * num_steps), "ms per step")
    ratio, processor_ratio = (stores.sum(axis=0) / memory.sum(axis=0)).tolist()
    add(results, name, ratio, "times")
    print(spread(stores[:, 0] / memory[:, 0]))
    # Other work on the machine does not change this one, but neither does waiting for the disk.
    add(results, f"{name}: processor time", processor_ratio, "times")


def reading(results: Results, stores: dict[str, str], num_batches: int = 44, repeats: int = 4) -> None:
    """Read shuffled batches with one thread, beside the files as they lie, both after emptying the cache of them."""
    shares = (BATCH // len(stores),) * len(stores)

    def read_stores() -> float:
        for _ in islice(read_batches(stores, shares), num_batches):
            pass
        return num_batches * BATCH * ROW_BYTES

    def read_files() -> float:
        total = 0
        for path in stores.values():
            with open(path, "rb", buffering=0) as file:
                while block := file.read(2**20):
                    total += len(block)
        return total

    print(f"\nreading {num_batches} shuffled batches of {BATCH}, one thread")
    rates: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, read, cold in (
            ("store_read", read_stores, True),
            ("store_read: files in cache", read_stores, False),
            ("store_read: disk alone", read_files, True),
        ):
            if cold:
                _leave_cache(stores)
            started = time.perf_counter()
            size = read()
            rates.setdefault(name, []).append(size / 1e6 / (time.perf_counter() - started))
    for name, values in rates.items():
        add(results, name, statistics.median(values), "MB/s")
    print(spread(rates["store_read"]))


def _leave_cache(stores: dict[str, str]) -> None:
    """Ask the system to forget what it holds of the files; without effect where it cannot."""
    for path in stores.values():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory(results: Results, cells: Sequence[int]) -> None:
    """Peak memory and time per epoch by the number of cells."""
    batch, steps = autoencoder_memory.BATCH, autoencoder_memory.STEPS
    print(f"\nmemory: 32 px, batch {batch}, {steps} steps, sparse stores; time per epoch is extrapolated from a step's")
    measured = autoencoder_memory.measure(cells)
    for num_cells, result in measured.items():
        add(results, f"memory: {num_cells} cells", result["peak_mib"], "MiB")
        add(results, f"time per epoch: {num_cells} cells", result["epoch_minutes"], "min")
    ratio = measured[cells[-1]]["peak_mib"] / measured[cells[0]]["peak_mib"]
    name = "memory_100k_over_1k" if tuple(cells) == autoencoder_memory.CELLS else "memory, most cells over fewest"
    add(results, name, ratio, "times")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and add to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="runs/bench/bench.json", help="file to add the results to")
    parser.add_argument("--repeats", type=int, default=8, help="calls of each; the median counts")
    parser.add_argument(
        "--cells", type=int, nargs="*", default=autoencoder_memory.CELLS, help="cells for memory; none leaves it out"
    )
    options = parser.parse_args(arguments)
    results: Results = {}
    with tempfile.TemporaryDirectory() as folder:
        stores = make_stores(Path(folder))
        training = Training(stores, 128)
        compute(results, training, options.repeats)
        overhead(results, training, "store_overhead", num_steps=4, rounds=6)
        overhead(results, Training(stores, 32), "store_overhead at 32 px", num_steps=12, rounds=8)
        reading(results, stores)
    if options.cells:
        memory(results, options.cells)
    write_json(options.output, {**read_results(options.output), **results})
    print(f"\n{options.output}")
    print_missed_goals(results)


if __name__ == "__main__":
    main()
