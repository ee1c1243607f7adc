"""Small feature stores with cells of known oddness, for the tests of the page that shows them."""

from pathlib import Path

import cv2
import numpy as np

from mrcnn.feature_store import Cell, FeatureStoreWriter, Shard
from mrcnn.feature_store.shards import shard_settings

IMAGE_SIDE = 200
TYPES = ("monocyte", "eosinophil")


def write_odd_store(
    path: Path,
    centre: str,
    odd: dict[int, dict] | None = None,
    *,
    count: int = 24,
    missed: tuple[tuple[str, str], ...] = (),
    names: dict[int, tuple[str, str]] | None = None,
    seed: int = 0,
    shard: Shard | None = None,
) -> np.ndarray:
    """Write cells that are alike, but for those in `odd`; returns the crops, uint8 of shape (count, 128, 128, 3).

    `odd` holds by row what is odd: "score", "box", "crop", or "feature", a number added to all features; `missed`
    (key, reason) of images without a cell; `names` by row the (key, cell type) that differ from "images/<row>.png" and
    the row's turn of `TYPES`. Only the rows of `shard` are written.
    """
    rng = np.random.default_rng(seed)
    crops = []
    attributes = {} if shard is None else shard_settings(shard, [f"images/{row:03d}.png" for row in range(count)])
    detector = {"hash": "d" * 64}
    with FeatureStoreWriter(path, centre=centre, detector=detector, with_masks=False, attributes=attributes) as writer:
        for row in range(count):
            cell = (odd or {}).get(row, {})
            key, cell_type = (names or {}).get(row, (f"images/{row:03d}.png", TYPES[row % 2]))
            crop = np.full((128, 128, 3), 220, np.uint8)
            crop[40:90, 40:90] = 90 + rng.integers(-5, 6)
            crop[row % 128, :, 2] = 200 + rng.integers(0, 50)
            crops.append(cell.get("crop", crop))
            side = 60 + rng.normal(0, 1.5)
            top, left = rng.normal(70, 3, 2)
            box = np.array(cell.get("box", (top, left, top + side, left + side * rng.uniform(0.95, 1.05))), np.float32)
            features = np.abs(rng.normal(1, 0.3, (14, 14, 256))) + rng.normal(0, 0.02, 256) + cell.get("feature", 0.0)
            if shard is None or row % shard.count == shard.number - 1:
                sides, score = (IMAGE_SIDE, IMAGE_SIDE), cell.get("score", 0.97)
                found = Cell(features.astype(np.float16), crops[-1], crops[-1], box, score, 1, sides)
                writer.add(key, [found], label=cell_type, cell_type=cell_type)
        for key, reason in missed:
            writer.missed(key, reason, label="L", cell_type="monocyte")
    return np.array(crops)


def write_image(path: Path, level: int = 120) -> None:
    """Write an image of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.full((40, 60, 3), level, np.uint8))[1].tobytes())


def first_plane(vectors, seed):
    """A map at once, in the place of UMAP, which takes long to start."""
    return np.asarray(vectors, np.float32)[:, :2], "PLANE"
