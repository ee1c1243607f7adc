"""The splits of a run: copies of a file, and images of one patient, are in the same part."""

import shutil

import pytest

from experiments.pipeline import Pipeline
from experiments.settings import RunSettings
from mrcnn.files.errors import InputError


def pipeline_of(data, output, **centre):
    values = {
        "data": str(data),
        "output": str(output),
        "scheme": "five",
        "centres": {"anna": {"root": "anna", **centre}},
        "detector": {"train_on": ["anna"]},
    }
    return Pipeline(RunSettings(**values))


def test_splits_keep_copies_and_patients_together(study_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(study_data[0] / "anna", data / "anna")
    plain = pipeline_of(data, tmp_path / "plain").splits()["anna"]
    # A copy of a test image under the name of a training image of the same type.
    original = plain.test[0]
    copy = next(k for k in plain.train if int(k[7:9]) % 2 == int(original[7:9]) % 2)
    shutil.copyfile(data / "anna" / original, data / "anna" / copy)
    part_of = pipeline_of(data, tmp_path / "copies").splits()["anna"].part_of
    assert part_of[original] == part_of[copy]

    lines = (data / "anna" / "labels.csv").read_text().splitlines()
    grouped = [f"{line},{'patient' if i == 0 else f'p{(i - 1) // 4}'}" for i, line in enumerate(lines)]
    (data / "anna" / "labels.csv").write_text("\n".join(grouped) + "\n")
    pipeline = pipeline_of(data, tmp_path / "patients", group_column="patient")
    part_of = pipeline.splits()["anna"].part_of
    for first in range(0, 20, 4):
        assert len({part_of[f"images/{i:02d}.png"] for i in range(first, first + 4)}) == 1
    assert set(part_of.values()) == {"train", "test"}
    assert pipeline.splits()["anna"].part_of == part_of


def test_splits_name_a_column_that_is_not_there(study_data, tmp_path):
    pipeline = pipeline_of(study_data[0], tmp_path, group_column="slide")
    with pytest.raises(InputError, match="labels.csv: no column slide in its first line"):
        pipeline.splits()
