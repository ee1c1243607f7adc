"""Two tiny centres with stores as a detector would have made them, so that whole experiments run in seconds."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from mrcnn.data.records import ImageRecord
from mrcnn.feature_store import Cell, FeatureStoreWriter

TYPES = ("monocyte", "eosinophil")
NUM_CELLS = 20


def write_centre(root: Path, name: str, draw_cell) -> list[ImageRecord]:
    """Images of drawn cells with labels.csv and masks; the label says the type."""
    (root / name / "images").mkdir(parents=True)
    (root / name / "masks").mkdir()
    records, lines = [], ["image,label"]
    for i in range(NUM_CELLS):
        image, mask = draw_cell(i + len(name), 48)
        path = root / name / "images" / f"{i:02d}.png"
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
        mask_png = cv2.imencode(".png", mask[..., 0].astype(np.uint8))[1]
        (root / name / "masks" / path.name).write_bytes(mask_png.tobytes())
        lines.append(f"{path.name},{TYPES[i % 2]}")
        records.append(ImageRecord(f"images/{path.name}", path, TYPES[i % 2], TYPES[i % 2]))
    (root / name / "labels.csv").write_text("\n".join(lines) + "\n")
    return records


def write_store(path: Path, centre: str, records: list[ImageRecord], detector: str = "detector-a") -> None:
    """Features whose level says the type, in a contrast of the centre's own; crops whose colour says it."""
    rng = np.random.default_rng(list(centre.encode()))
    attributes = {"all_cells": False, "min_score": 0.7}
    with FeatureStoreWriter(
        path, centre=centre, detector={"hash": detector}, with_masks=True, attributes=attributes
    ) as writer:
        for record in records:
            number = TYPES.index(record.cell_type)
            crop = np.full((128, 128, 3), (90 + 80 * number, 60, 150), np.uint8) + rng.integers(
                0, 20, (128, 128, 3), dtype=np.uint8
            )
            cell = Cell(
                features=np.abs(rng.normal(1 + number * np.linspace(0, 1, 256), 0.3, (14, 14, 256))),
                crop=crop,
                image=crop,
                box=np.array([8, 8, 40, 40], np.float32),
                score=0.9,
                class_id=1,
                image_shape=(48, 48),
                mask=np.full((28, 28), 255, np.uint8),
            )
            writer.add(record.image_id, [cell], label=record.label, cell_type=record.cell_type)


@pytest.fixture
def logged(caplog, monkeypatch):
    """What is logged, also after a test of the command line has turned the logging to the terminal."""
    monkeypatch.setattr(logging.getLogger("experiments"), "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


@pytest.fixture(scope="session")
def aecfe():
    """Function that runs a command of the command line and returns its exit status."""
    from aecfe.cli import main

    return lambda *arguments: main([str(argument) for argument in arguments])


@pytest.fixture
def refused(aecfe, capsys):
    """Function that runs a command, which must end with status 2 and one error, and returns that line."""

    def run(*arguments):
        capsys.readouterr()
        assert aecfe(*arguments) == 2
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("aecfe: error: "))
        return line.removeprefix("aecfe: error: ")

    return run


@pytest.fixture(scope="session")
def study_data(tmp_path_factory, draw_cell):
    """Folder with the centres anna and bert, and the path of each one's store."""
    root = tmp_path_factory.mktemp("study")
    stores = {}
    for name in ("anna", "bert"):
        records = write_centre(root / "data", name, draw_cell)
        stores[name] = root / f"{name}.h5"
        write_store(stores[name], name, records)
    return root / "data", stores


@pytest.fixture(scope="session")
def study_values(study_data):
    """Plain settings of a run on these centres, in which everything is tiny."""
    return {
        "name": "tiny",
        "data": str(study_data[0]),
        "scheme": "five",
        "centres": {name: {"root": name, "layout": "csv"} for name in ("anna", "bert")},
        "detector": {"train_on": ["anna"], "settings": {"BACKBONE": "resnet50"}},
        "autoencoder": dict(
            image_size=32, global_batch_size=8, steps=2, feature_scaling="channel", beta=0.01, log_every=1
        ),
        "evaluate": {"runs": 2},
        "reproduce": {
            "bottleneck": dict(sizes=[3, 6], backbones=["resnet50"], image_losses=["mse"], image_sources=["crop"]),
            "ablation": {"columns": ["R-CNN-RF", "AE-CFE"]},
            "oracle": {
                "normalizations": ["group"],
                "network": {"image_size": 32, "blocks": [1], "cardinality": 4, "steps": 2, "batch_size": 8},
            },
            "resnet_weights": "random",
            "resnet_image_size": 32,
            "bootstrap": 100,
            "figure_cells": 3,
        },
    }


@pytest.fixture
def make_study(study_data, study_values, tmp_path, monkeypatch):
    """Function of changed settings that makes a study whose stores are there already, without any detector."""
    from experiments.settings import RunSettings
    from experiments.thesis.study import Study

    def make(folder: Path = tmp_path, **changes):
        monkeypatch.setattr("experiments.evaluation.classifiers.NUM_TREES", 10)
        values = {**study_values, "output": str(folder), "reproduce": {**study_values["reproduce"], **changes}}
        study = Study(RunSettings(**values), jobs=1)
        monkeypatch.setattr(study, "stores", lambda backbone=None: study_data[1])
        return study

    return make
