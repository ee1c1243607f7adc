"""Cells and stores of random numbers."""

import numpy as np

from mrcnn.feature_store import Cell, FeatureStore


def make_cell(seed: int, with_mask: bool = False) -> Cell:
    rng = np.random.default_rng(seed)
    return Cell(
        features=rng.normal(size=(14, 14, 256)).astype(np.float16),
        crop=rng.integers(0, 256, (128, 128, 3), dtype=np.uint8),
        image=rng.integers(0, 256, (128, 128, 3), dtype=np.uint8),
        box=np.array([1.5, 2.0, 30.0, 40.0 + seed], np.float32),
        score=0.5 + seed / 1000,
        class_id=1,
        image_shape=(400, 380),
        mask=rng.integers(0, 256, (28, 28), dtype=np.uint8) if with_mask else None,
    )


def image_id(number: int) -> str:
    return f"images/{number:03d}{'ä' * (number == 4)}.png"


def add_images(writer, numbers):
    """Every fifth image has no cell, every seventh has two; done images are passed over."""
    for number in numbers:
        if image_id(number) in writer.done_ids:
            continue
        if number % 5 == 4:
            writer.missed(image_id(number), "no detection above score 0.7", "MON", "monocyte")
        else:
            cells = [make_cell(number), make_cell(100 + number)][: 1 + (number % 7 == 0)]
            writer.add(image_id(number), cells, label="BAS", cell_type="basophil", num_detections=len(cells) + 1)


def assert_same_store(one: FeatureStore, other: FeatureStore) -> None:
    """All that two opened stores give is the same."""
    for name in ("centre", "settings", "counts", "missed", "fields"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("image_id", "label", "cell_type", "reason", "num_cells"):
        np.testing.assert_array_equal(one.image_column(name), other.image_column(name), err_msg=name)
    for name in one.fields:
        rows, others = (store.read(name, 0, len(store)) for store in (one, other))
        np.testing.assert_array_equal(rows, others, err_msg=name)
        assert rows.dtype == others.dtype
