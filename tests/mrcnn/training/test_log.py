import numpy as np
import pytest

from mrcnn.files.errors import InputError
from mrcnn.training.folder import checkpoints
from mrcnn.training.log import EpochLog, check_finite, read_rows, write_rows
from mrcnn.training.step import LOSS_NAMES


def test_check_finite_names_the_term():
    losses = dict.fromkeys(("loss", *LOSS_NAMES), 1.0)
    check_finite(Trained(), losses)
    with pytest.raises(InputError, match="mrcnn_bbox_loss is not finite at step 20"):
        check_finite(Trained(), losses | {"loss": np.nan, "mrcnn_bbox_loss": np.inf})


class Trained:
    """What the log asks of a model."""

    variables = ()

    class optimizer:
        iterations, variables = 20, ()

    def save_weights(self, path):
        path.write_text("weights")


@pytest.mark.parametrize("writes", [True, False], ids=["the chief", "another worker"])
def test_epoch_log_keeps_rows_and_the_newest_checkpoint(tmp_path, writes):
    rows = [{"epoch": 1, "step": 10, "loss": "2"}]
    log = EpochLog(tmp_path if writes else None, rows)
    log.add(Trained(), 2, {"loss": 1.23456789, "val_loss": 3.0})
    assert rows[1:] == [{"epoch": 2, "step": 20, "loss": "1.23457", "val_loss": "3"}]
    log.add(Trained(), 3, {"loss": 0.5})
    assert [epoch for epoch, _ in checkpoints(tmp_path)] == ([3] if writes else [])
    assert read_rows(tmp_path / "log.csv", 9)[:1] == [rows[0] | {"val_loss": ""}] * writes


def test_read_rows_takes_what_write_rows_wrote_up_to_an_epoch(tmp_path):
    rows = [{"epoch": i, "step": 10 * i, "loss": f"{1 / i:.6g}"} for i in (1, 2, 3)]
    write_rows(tmp_path / "log.csv", rows)
    assert read_rows(tmp_path / "log.csv", 3) == rows
    assert read_rows(tmp_path / "log.csv", 2) == rows[:2]
    assert read_rows(tmp_path / "log.csv", 0) == read_rows(tmp_path / "missing.csv", 3) == []


@pytest.mark.parametrize(
    "content",
    [b"epoch,step\na,1\n", b"step\n1\n", b"epoch,step\n1,\xff\n", b"epoch,step\n1,2,3\n"],
)
def test_read_rows_refuses_another_log(tmp_path, content):
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"log\.csv: .+remove it"):
        read_rows(tmp_path / "log.csv", 9)
