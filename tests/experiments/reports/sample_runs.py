"""A run's folder with everything that a report reads but the autoencoders' weights, for the tests of its page."""

import csv
from pathlib import Path

import anndata
import cv2
import numpy as np
import pandas as pd

from experiments.cache import Cache
from experiments.evaluation.comparison import Column, Protocol, compare_columns
from experiments.evaluation.comparison_records import Heading
from experiments.evaluation.comparison_tables import write_comparison
from experiments.evaluation.transfer import make_cells
from experiments.settings import CentreSettings, DetectorSettings, RunSettings
from mrcnn.data.records import ImageRecord
from mrcnn.feature_store import Cell, FeatureStoreWriter
from mrcnn.files.atomic import write_json

HOSTILE = "<script>alert(1)</script>.png"
TYPES = ("monocyte", "eosinophil")


def make_settings(run):
    centres = {n: CentreSettings(root=n, layout="csv", mask_semantics="instances") for n in ("lab & co", "south")}
    return RunSettings(
        name="tiny",
        output=str(run),
        data=str(run / "data"),
        centres=centres,
        detector=DetectorSettings(train_on=["lab & co"]),
    )


def write_images(run, centre, count, draw_cell):
    """Images and masks of a centre; one file name is hostile."""
    records = []
    for i in range(count):
        # No "/" can be in a file name, so the closing tag of the hostile one makes a folder.
        key = f"images/{HOSTILE}" if i == 0 and centre == "south" else f"images/{i}.png"
        path = run / "data" / centre / key
        path.parent.mkdir(parents=True, exist_ok=True)
        image, mask = draw_cell(i, 48)
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
        mask_path = run / "data" / centre / "masks" / f"{path.stem}.png"
        mask_path.parent.mkdir(exist_ok=True)
        mask_path.write_bytes(cv2.imencode(".png", mask[..., 0].astype(np.uint8))[1].tobytes())
        records.append(ImageRecord(key, path, f"L{i % 2}", TYPES[i % 2]))
    return records


def write_store(run, centre, records, rng):
    """The first image is missed, the second unreadable, the others have a cell."""
    with FeatureStoreWriter(
        run / "features" / f"{centre}.h5", centre=centre, detector={"hash": "d" * 64}, with_masks=True
    ) as writer:
        for i, record in enumerate(records):
            names = {"label": record.label, "cell_type": record.cell_type}
            if i == 0:
                writer.missed(record.image_id, "no detection above score 0.7", **names)
            elif i == 1:
                writer.missed(record.image_id, f"unreadable: {record.path}: cannot be read (cut short)", **names)
            else:
                pixels = rng.integers(0, 255, (128, 128, 3)).astype(np.uint8)
                cell = Cell(
                    rng.normal(size=(14, 14, 256)).astype(np.float16),
                    pixels,
                    pixels,
                    np.array([8, 8, 40, 40], np.float32),
                    0.6 if centre == "south" and i == 2 else 0.93,
                    1,
                    (48, 48),
                    np.full((28, 28), 255, np.uint8),
                )
                writer.add(record.image_id, [cell], **names)


def write_csv(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([columns, *rows])


def write_full_run(folder: Path, draw_cell) -> tuple[Path, RunSettings, dict[str, list[ImageRecord]]]:
    """A run with every stage but the autoencoders' weights; 6 images a centre. Returns folder, settings, records."""
    run = folder / "run"
    settings, rng = make_settings(run), np.random.default_rng(0)
    records = {centre: write_images(run, centre, 6, draw_cell) for centre in settings.centres}
    for centre, rows in records.items():
        write_store(run, centre, rows, rng)
    found = {centre: rows[2:] for centre, rows in records.items()}
    vectors = {centre: rng.normal(size=(4, 3)) for centre in found}
    cells = make_cells(
        {centre: np.array([r.image_id for r in rows]) for centre, rows in found.items()},
        {centre: np.array([r.cell_type for r in rows]) for centre, rows in found.items()},
        {centre: np.array(["train", "train", "test", "test"]) for centre in found},
    )
    columns = [Column("R-CNN-RF", (vectors,)), Column("AE-CFE", ({c: v[::-1] for c, v in vectors.items()},))]
    comparison = compare_columns(columns, cells, Protocol("random-forest", runs=2), Cache(folder / "cache"))
    write_comparison(comparison, run / "tables", Heading("cross_centre", "Tables"))
    detector = run / "detector"
    measured = {
        "box_ap50": 0.876,
        "mask_ap50": None,
        "num_images": 1234,
        "odd_measure": 0.5,
        "held_out": True,
    }
    write_json(detector / "metrics.json", {"detector": "d" * 64, "centres": {"lab & co": measured}})
    write_csv(detector / "log.csv", ["epoch", "step", "loss", "val_loss"], [[1, 5, 2.0, 2.1], [2, 10, 1.0, 1.2]])
    versions = {"python": "3.99.1"}
    write_json(
        detector / "run.json",
        {"complete": True, "seed": 7, "versions": versions, "command": ["aecfe", "run", "my config.yaml"]},
    )
    write_json(detector / "config.json", {"NAME": "tiny", "NUM_CLASSES": 2, "AUGMENTATION": "strong"})
    keys = [record.image_id for record in records["lab & co"]]
    write_json(detector / "split.json", {"lab & co": {"train": keys[:4], "test": keys[4:]}})
    obs = pd.DataFrame(
        [(r.image_id, c, r.label, r.cell_type) for c, rows in found.items() for r in rows],
        columns=["image_id", "centre", "label", "cell_type"],
        index=[f"{c}/{r.image_id}" for c, rows in found.items() for r in rows],
    )
    folder = run / "autoencoder"
    write_json(folder / "run.json", {"complete": True, "steps": 4321, "stores": {"south": {"detector_hash": "d"}}})
    anndata.AnnData(np.concatenate(list(vectors.values())).astype(np.float32), obs=obs).write_h5ad(
        folder / "embedding.h5ad"
    )
    columns = ["step", "loss", "feature_loss", "image_loss", "adaptation_loss", "seconds"]
    write_csv(folder / "log.csv", columns, [[10, 2, 1, 0.5, 0.1, 3], [20, 1, 0.5, 0.4, 0.01, 6]])
    return run, settings, records
