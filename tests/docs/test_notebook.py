"""The notebook in notebooks/ from its first cell to its last, with numbers that take seconds."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "synthetic-centres.ipynb"
MOST_BYTES = 300_000
# In the place of the cell that is tagged "parameters", of which it must name every one.
SMALL = """
from pathlib import Path

from mrcnn.network import backbone

backbone.STAGE_BLOCKS, backbone.STAGE_FILTERS = {"resnet50": (1, 1, 1, 1)}, (32, 32, 64, 64)

FOLDER = Path("out")
NUM_IMAGES = 12
IMAGE_SIZE = 64
DETECTOR = {
    "epochs": 1,
    "settings": {
        "BACKBONE": "resnet50", "FPN_CLASSIF_FC_LAYERS_SIZE": 64, "IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 64,
        "RPN_ANCHOR_SCALES": [8, 16, 24, 32, 48], "TRAIN_ROIS_PER_IMAGE": 8, "POST_NMS_ROIS_TRAINING": 40,
        "POST_NMS_ROIS_INFERENCE": 20, "MAX_GT_INSTANCES": 4, "DETECTION_MAX_INSTANCES": 4, "IMAGES_PER_GPU": 2,
        "STEPS_PER_EPOCH": 2, "VALIDATION_STEPS": 0, "DETECTION_MIN_CONFIDENCE": 0,
    },
}
AUTOENCODER = {"steps": 2, "global_batch_size": 6, "log_every": 1}
MAP = "pca"
"""


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def assigned(code):
    return set(re.findall(r"^([A-Z_]+) = ", code, flags=re.MULTILINE))


def test_notebook_runs_to_its_end(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert assigned(cell.source) == assigned(SMALL)
    cell.source = SMALL
    check = "print(json.dumps([sorted(scores.method.unique()), len(table), bool(table.notna().all(axis=None))]))"
    notebook.cells.append(nbformat.v4.new_code_cell(f"import json\n{check}"))
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    methods, rows, complete = json.loads(notebook.cells[-1].outputs[0].text)
    assert methods == ["aligned", "detector", "detector, standardised", "plain"] and rows == 9 and complete
    for name in ("detector/log.csv", "features/harbour.h5", "aligned/log.csv", "plain.h5ad", "aligned.h5ad"):
        assert (tmp_path / "out" / name).is_file(), name
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) == 6


def test_notebook_is_small_and_was_run_in_order(notebook):
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert not re.search(r"/(home|root|tmp|work)/", NOTEBOOK.read_text(encoding="utf-8"))
