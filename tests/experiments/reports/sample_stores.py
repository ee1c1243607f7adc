"""Small feature stores with cells of known oddness, for the tests of the pages that show them."""

from pathlib import Path

import cv2
import numpy as np

from mrcnn.feature_store import Cell, FeatureStoreWriter
from mrcnn.feature_store.shards import shard_settings

IMAGE_SIDE = 200
TYPES = ("monocyte", "eosinophil")


def write_odd_store(
    path: Path, centre: str, odd=None, *, count=24, missed=(), names=None, seed=0, shard=None, masks=False
) -> np.ndarray:
    """Write cells that are alike, but for those in `odd`; returns the crops, uint8 of shape (count, 128, 128, 3).

    `odd` holds by row what is odd: "score", "box", "crop", or "feature", a number added to all features; `missed`
    (image_id, reason) of images without a cell; `names` by row the (image_id, cell type) that differ from
    "images/<row>.png" and the row's turn of `TYPES`. Only the rows of `shard` are written.
    """
    rng = np.random.default_rng(seed)
    crops = []
    attributes = {} if shard is None else shard_settings(shard, [f"images/{row:03d}.png" for row in range(count)])
    detector = {"hash": "d" * 64}
    with FeatureStoreWriter(path, centre=centre, detector=detector, with_masks=masks, attributes=attributes) as writer:
        for row in range(count):
            cell = (odd or {}).get(row, {})
            image_id, cell_type = (names or {}).get(row, (f"images/{row:03d}.png", TYPES[row % 2]))
            crop = np.full((128, 128, 3), 220, np.uint8)
            crop[40:90, 40:90] = 90 + rng.integers(-5, 6)
            crop[row % 128, :, 2] = 200 + rng.integers(0, 50)
            crops.append(cell.get("crop", crop))
            side = 60 + rng.normal(0, 1.5)
            top, left = rng.normal(70, 3, 2)
            box = np.array(cell.get("box", (top, left, top + side, left + side * rng.uniform(0.95, 1.05))), np.float32)
            features = np.abs(rng.normal(1, 0.3, (14, 14, 256))) + rng.normal(0, 0.02, 256) + cell.get("feature", 0.0)
            if shard is None or row % shard.count == shard.number - 1:
                known = cell.get("score", 0.97), 1, (IMAGE_SIDE, IMAGE_SIDE)
                mask = np.full((28, 28), 255, np.uint8) if masks else None
                found = Cell(features.astype(np.float16), crops[-1], crops[-1], box, *known, mask)
                writer.add(image_id, [found], label=cell_type, cell_type=cell_type)
        for image_id, reason in missed:
            writer.missed(image_id, reason, label="L", cell_type="monocyte")
    return np.array(crops)


def write_image(path: Path, image: np.ndarray | None = None) -> None:
    """Write an image as PNG, one of one grey by default."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((40, 60, 3), 120, np.uint8) if image is None else image
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def first_plane(vectors, seed):
    """A map at once, in the place of UMAP, which takes long to start."""
    return np.asarray(vectors, np.float32)[:, :2], "PLANE"
