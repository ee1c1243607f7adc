"""A run's folder with everything that a report reads but the autoencoders' weights, for the tests of its page."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from experiments.cache import Cache
from experiments.evaluation.comparison import Column, Protocol, compare_columns
from experiments.evaluation.comparison_tables import Heading, write_comparison
from experiments.evaluation.transfer import make_cells
from experiments.settings import CentreSettings, DetectorSettings, RunSettings
from mrcnn.data.records import ImageRecord
from mrcnn.files.atomic import write_json
from tests.experiments.reports.sample_stores import IMAGE_SIDE, TYPES, write_image, write_odd_store

HOSTILE = "<script>alert(1)</script>.png"


def make_settings(run):
    centres = {n: CentreSettings(root=n, layout="csv", mask_semantics="instances") for n in ("lab & co", "south")}
    detector = DetectorSettings(train_on=["lab & co"])
    return RunSettings(name="tiny", output=str(run), data=str(run / "data"), centres=centres, detector=detector)


def write_centre(run, centre, draw_cell):
    """Six images with masks, one of a hostile name, and their store: the first is missed, the second unreadable."""
    records = []
    for i in range(6):
        # No "/" can be in a file name, so the closing tag of the hostile one makes a folder.
        image_id = f"images/{HOSTILE}" if i == 0 and centre == "south" else f"images/{i}.png"
        path = run / "data" / centre / image_id
        image, mask = draw_cell(i, IMAGE_SIDE)
        write_image(path, image)
        write_image(run / "data" / centre / "masks" / f"{path.stem}.png", mask.astype(np.uint8))
        records.append(ImageRecord(image_id, path, f"L{i % 2}", TYPES[i % 2]))
    missed = [
        (records[0].image_id, "no detection above score 0.7"),
        (records[1].image_id, f"unreadable: {records[1].path}: cannot be read (cut short)"),
    ]
    names = {row: (record.image_id, record.cell_type) for row, record in enumerate(records[2:])}
    odd, path = {0: {"score": 0.6}} if centre == "south" else {}, run / "features" / f"{centre}.h5"
    write_odd_store(path, centre, odd, count=4, missed=missed, names=names, masks=True)
    return records


def write_log(folder, rows):
    pd.DataFrame(rows).to_csv(folder / "log.csv", index=False)


def write_full_run(folder: Path, draw_cell) -> tuple[Path, RunSettings, dict[str, list[ImageRecord]]]:
    """A run with every stage but the autoencoders' weights; 6 images a centre. Returns folder, settings, records."""
    run = folder / "run"
    settings, rng = make_settings(run), np.random.default_rng(0)
    records = {centre: write_centre(run, centre, draw_cell) for centre in settings.centres}
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
    detector, autoencoder = run / "detector", run / "autoencoder"
    measured = {"odd_measure": 0.5, "held_out": True, "box_ap50": 0.876, "mask_ap50": None, "num_images": 1234}
    write_json(detector / "metrics.json", {"detector": "d" * 64, "centres": {"lab & co": measured}})
    made = {"versions": {"python": "3.99.1"}, "command": ["aecfe", "run", "my config.yaml"]}
    write_json(detector / "run.json", {"complete": True, "seed": 7, **made})
    write_json(detector / "config.json", {"NAME": "tiny", "NUM_CLASSES": 2, "AUGMENTATION": "strong"})
    image_ids = [record.image_id for record in records["lab & co"]]
    write_json(detector / "split.json", {"lab & co": {"train": image_ids[:4], "test": image_ids[4:]}})
    write_log(detector, {"epoch": [1, 2], "step": [5, 10], "loss": [2.0, 1.0], "val_loss": [2.1, 1.2]})
    write_json(autoencoder / "run.json", {"complete": True, "steps": 4321, "stores": {"south": {"detector_hash": "d"}}})
    losses = {"loss": [2, 1], "feature_loss": [1, 0.5], "image_loss": [0.5, 0.4], "adaptation_loss": [0.1, 0.01]}
    write_log(autoencoder, {"step": [10, 20], **losses, "seconds": [3, 6]})
    rows = [(r.image_id, centre, r.label, r.cell_type) for centre, of in found.items() for r in of]
    obs = pd.DataFrame(rows, columns=["image_id", "centre", "label", "cell_type"], index=map(str, range(len(rows))))
    latents = np.concatenate(list(vectors.values())).astype(np.float32)
    anndata.AnnData(latents, obs=obs).write_h5ad(autoencoder / "embedding.h5ad")
    return run, settings, records
