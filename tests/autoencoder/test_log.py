import math

import numpy as np
import pandas as pd
import pytest

from autoencoder.log import PATIENCE, CollapseWatch, TrainingLog

HEADER = b"step,loss,seconds\n"
ROWS = b"10,0.5,1.0\n20,nan,2.0\n"
CALM = {"latent_deviation": 0.2, "discriminator_loss": 0.8, "discriminator_accuracy": 0.6}


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (HEADER + ROWS + b"30,0.1", ["10,0.5,1.0", "20,nan,2.0"]),
        (HEADER + ROWS + b"30,0.1,a\n", ["10,0.5,1.0", "20,nan,2.0"]),
        (b"step,other,seconds\n10,0.5,1.0\n", []),
        (b"\xff\xfe", []),
    ],
)
def test_log_resumes_after_what_is_whole(tmp_path, content, kept):
    (tmp_path / "log.csv").write_bytes(content)
    with TrainingLog(tmp_path, ("loss",), every=10, start_step=30) as log:
        assert np.isfinite(log.seconds)
    assert (tmp_path / "log.csv").read_text().splitlines() == ["step,loss,seconds", *kept]


def test_log_writes_means_and_drops_rows_after_the_checkpoint(tmp_path):
    names = ("loss", "feature_loss")
    with TrainingLog(tmp_path, names, every=2) as log:
        for step in range(1, 7):
            log.add(step, np.full(2, float(step)))
    with TrainingLog(tmp_path, names, every=2, start_step=4) as log:
        assert log.add(5, np.full(2, 50.0), last=True) == {"loss": 50.0, "feature_loss": 50.0}
    rows = pd.read_csv(tmp_path / "log.csv")
    assert (rows["step"].tolist(), rows["loss"].tolist()) == ([2, 4, 5], [1.5, 3.5, 50.0])


def watch(rows, caplog):
    watching = CollapseWatch(3)
    for number, row in enumerate(rows, start=1):
        watching.add(20 * number, {**CALM, **row})
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"latent_deviation": 0.001}, "the latents have shrunk"),
        ({"discriminator_accuracy": 1.0}, "knows the centre of nearly every cell"),
        ({"discriminator_accuracy": 0.33, "discriminator_loss": math.log(3)}, "the discriminator only guesses"),
    ],
)
def test_watch_warns_once_of_what_lasts(row, message, caplog):
    (warning,) = watch([row] * (3 * PATIENCE), caplog)
    assert warning.startswith("step 100: ") and message in warning


def test_watch_is_quiet_where_nothing_lasts(caplog):
    assert not watch([*[{"latent_deviation": 0.001}] * (PATIENCE - 1), {}] * 3, caplog)
    # A low accuracy alone is no guessing: the discriminator may just have confused two centres.
    assert not watch([{"discriminator_accuracy": 0.1, "discriminator_loss": 0.5}] * 20, caplog)
