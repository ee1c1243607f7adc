"""Estimate of what 10^5, 10^7 and 10^9 cells cost on machines like this one, from the cost of one.

Usage: python benchmarks/scale.py [--repeats 5] [--cells 1e5 1e7 1e9] [--passes 10]

Measures detection with features (images of 400 px, `SmearConfig`, no masks), a training step and the embedding of the
autoencoder, and the bytes of a stored cell; then multiplies. Run it on a machine with a GPU to have its numbers.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

import tensorflow as tf

from autoencoder.embedding import BATCH_SIZE, compiled_encoder
from autoencoder.folder import TrainedAutoencoder
from autoencoder.network import FEATURE_SHAPE
from benchmarks.autoencoder_speed import BATCH, CENTRES, Training, make_stores
from benchmarks.bench import SOURCE_SIDE
from benchmarks.stages import Smears, in_turn, open_model
from mrcnn.config import SmearConfig
from mrcnn.feature_store import open_store
from mrcnn.files.provenance import machine_text

CELLS = (1e5, 1e7, 1e9)
PASSES = 10  # over all cells in a training
EXTRACT_BATCH = 8
# float32 latents, and in `obs` two names, a label, a type and a split: what an .h5ad of the demo holds of a cell.
LATENT_BYTES = 50 * 4 + 5 * 24


def unit_costs(repeats: int) -> dict[str, float]:
    """Measure the cost of one cell.

    Returns:
        Dict of `extract_s`, `train_s` and `embed_s`, seconds of this whole machine for a cell, and `store_bytes`.
    """
    images = [Smears(EXTRACT_BATCH, SOURCE_SIDE).load_image(i) for i in range(EXTRACT_BATCH)]
    detector = open_model(SmearConfig(), images)
    with tempfile.TemporaryDirectory() as temporary:
        stores = make_stores(Path(temporary))
        training = Training(stores, image_size=128)
        encode = compiled_encoder(TrainedAutoencoder(Path(), training.config, {}, training.scaling, training.model))
        features = tf.random.stateless_uniform((BATCH_SIZE, *FEATURE_SHAPE), (0, 2), dtype=tf.float16)
        calls = {
            "extract_s": lambda: detector.detect(images, masks=False),
            "train_s": training.step,
            "embed_s": lambda: encode(features, 0).numpy(),
        }
        times = in_turn(calls, repeats)
        sizes = {"extract_s": EXTRACT_BATCH, "train_s": BATCH, "embed_s": BATCH_SIZE}
        with open_store(stores[CENTRES[0]]) as store:
            store_bytes = store.path.stat().st_size / len(store)
    return {name: statistics.median(times[name]) / size for name, size in sizes.items()} | {"store_bytes": store_bytes}


def costs(unit: dict[str, float], cells: float, passes: int) -> dict[str, float]:
    """What so many cells cost, one on each image.

    Returns:
        Dict of `extract_hours`, `train_hours` and `embed_hours` of one machine, `store_tb` and `latents_gb`.
    """
    return {
        "extract_hours": cells * unit["extract_s"] / 3600,
        "train_hours": passes * cells * unit["train_s"] / 3600,
        "embed_hours": cells * unit["embed_s"] / 3600,
        "store_tb": cells * unit["store_bytes"] / 1e12,
        "latents_gb": cells * LATENT_BYTES / 1e9,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, multiply and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="calls of each; the median counts")
    parser.add_argument("--cells", type=float, nargs="+", default=CELLS, metavar="N")
    parser.add_argument("--passes", type=int, default=PASSES, help="times that a training sees each cell")
    options = parser.parse_args(arguments)
    unit = unit_costs(options.repeats)
    print(machine_text())
    print(
        ", ".join(f"{1 / unit[name]:.1f} cells/s {name[:-2]}" for name in ("extract_s", "train_s", "embed_s")), end=""
    )
    print(f", {unit['store_bytes']:.0f} bytes a cell")
    print(
        f"\n| cells | extraction, h | training ({options.passes} passes), h | embedding, h | stores, TB | latents, GB |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for cells in options.cells:
        print(
            f"| {cells:.0e} | "
            + " | ".join(f"{value:,.3g}" for value in costs(unit, cells, options.passes).values())
            + " |"
        )


if __name__ == "__main__":
    main()
