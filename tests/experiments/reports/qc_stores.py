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
    """Cells that are alike, but for those in `odd`.

    Args:
        path: the store to write.
        centre: its centre.
        odd: by row, what is odd: "score", "box", "crop", or "feature", a number added to all features.
        count: cells.
        missed: (key, reason) of images without a cell.
        names: by row, (key, cell type) that differ from "images/<row>.png" and the row's turn of `TYPES`.
        seed: of the noise.
        shard: write only these rows.

    Returns:
        The crops, uint8 array of shape (count, 128, 128, 3).
    """
    rng = np.random.default_rng(seed)
    crops = []
    attributes = {} if shard is None else shard_settings(shard, [f"images/{row:03d}.png" for row in range(count)])
    with FeatureStoreWriter(
        path, centre=centre, detector={"hash": "d" * 64}, with_masks=False, attributes=attributes
    ) as writer:
        for row in range(count):
            cell = (odd or {}).get(row, {})
            key, cell_type = (names or {}).get(row, (f"images/{row:03d}.png", TYPES[row % 2]))
            crop = np.full((128, 128, 3), 220, np.uint8)
            crop[40:90, 40:90] = 90 + rng.integers(-5, 6)
            crop[row % 128, :, 2] = 200 + rng.integers(0, 50)
            crop = cell.get("crop", crop)
            side = 60 + rng.normal(0, 1.5)
            top, left = rng.normal(70, 3, 2)
            box = cell.get("box", (top, left, top + side, left + side * rng.uniform(0.95, 1.05)))
            crops.append(crop)
            features = np.abs(rng.normal(1, 0.3, (14, 14, 256))) + rng.normal(0, 0.02, 256) + cell.get("feature", 0.0)
            if shard is not None and row % shard.count != shard.number - 1:
                continue
            writer.add(
                key,
                [
                    Cell(
                        features.astype(np.float16),
                        crop,
                        crop,
                        np.array(box, np.float32),
                        cell.get("score", 0.97),
                        1,
                        (IMAGE_SIDE, IMAGE_SIDE),
                    )
                ],
                label=cell_type,
                cell_type=cell_type,
            )
        for key, reason in missed:
            writer.missed(key, reason, label="L", cell_type="monocyte")
    return np.array(crops)


def write_image(path: Path, level: int = 120) -> None:
    """An image of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.full((40, 60, 3), level, np.uint8))[1].tobytes())
