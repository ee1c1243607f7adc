from datetime import datetime
from pathlib import Path

import pytest

from mrcnn.files.errors import InputError
from mrcnn.training.folder import MissingCheckpoint, checkpoint_name, find_last, run_folder

NOW = datetime(2024, 2, 3, 4, 5, 6)


def make(folder: Path, run: str, *names: str) -> None:
    (folder / run).mkdir()
    for name in names:
        (folder / run / name).touch()


@pytest.mark.parametrize("parent", ["", "/data/my logs/"])
@pytest.mark.parametrize("run", ["cells20171023T2136", "my-cells_220240203T040506"])
def test_run_folder_goes_on_with_the_run_of_a_checkpoint(parent, run):
    path = f"{parent}{run}/mask_rcnn_cells_0012.h5"
    assert run_folder("elsewhere", "Cells", Path(path), NOW) == (Path(parent) / run, 12)


@pytest.mark.parametrize("path", [None, "mask_rcnn_coco.h5", "logs/cells20240203T040506/weights.weights.h5"])
def test_run_folder_without_a_checkpoint_is_named_after_configuration_and_date(path):
    assert run_folder("logs", "Cells", path, NOW) == (Path("logs/cells20240203T040506"), 0)


def test_checkpoint_names_lead_back_to_their_epoch(tmp_path):
    folder, _ = run_folder(tmp_path, "Blood Cells".replace(" ", "_"), now=NOW)
    assert run_folder(tmp_path, "x", folder / checkpoint_name("Blood_Cells", 31)) == (folder, 31)


def test_find_last_takes_the_newest_checkpoint_of_the_newest_run(tmp_path):
    make(tmp_path, "cells20240101T000000", "mask_rcnn_cells_0030.h5")
    make(tmp_path, "cells20240203T040506", "mask_rcnn_cells_0002.h5", "mask_rcnn_cells_0010.h5", "log.csv")
    make(tmp_path, "cellsbig20250101T000000", "mask_rcnn_cellsbig_0001.h5")
    make(tmp_path, "other20250101T000000", "mask_rcnn_other_0001.h5")
    (tmp_path / "cells20260101T000000").touch()  # no folder
    assert find_last(tmp_path, "Cells") == tmp_path / "cells20240203T040506" / "mask_rcnn_cells_0010.h5"


def test_find_last_without_a_run_or_a_checkpoint_says_so(tmp_path):
    with pytest.raises(MissingCheckpoint, match="no checkpoint of 'cells' there"):
        find_last(tmp_path, "Cells")
    make(tmp_path, "cells20240203T040506", "log.csv")
    with pytest.raises(FileNotFoundError, match="cells20240203T040506: no checkpoint"):
        find_last(tmp_path, "Cells")
    with pytest.raises(InputError):
        find_last(tmp_path / "missing", "Cells")
