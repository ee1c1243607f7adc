"""The log of a training after it was broken off: what is whole is kept, and what is damaged is no reason to stop."""

import numpy as np
import pytest

from autoencoder.log import TrainingLog

HEADER = b"step,loss,seconds\n"
ROWS = b"10,0.5,1.0\n20,nan,2.0\n"


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (HEADER + ROWS, ["10,0.5,1.0", "20,nan,2.0"]),
        (HEADER + ROWS + b"30,0.1", ["10,0.5,1.0", "20,nan,2.0"]),
        (HEADER + ROWS + b"30,0.1,a\n", ["10,0.5,1.0", "20,nan,2.0"]),
        (HEADER + b"10,0.5,1.0\n\xc2\xb2,0.5,2.0\n", ["10,0.5,1.0"]),
        (HEADER + b"9" * 5000 + b",0.5,2.0\n", []),
        (HEADER + b"10," + b"9" * 200_000 + b",2.0\n", []),
        (HEADER + b"10,0.5,inf\n", ["10,0.5,inf"]),
        (b"step,other,seconds\n10,0.5,1.0\n", []),
        (b"\xff\xfe", []),
        (b"", []),
    ],
)
def test_log_goes_on_after_what_is_whole(tmp_path, content, kept):
    (tmp_path / "log.csv").write_bytes(content)
    with TrainingLog(tmp_path, ("loss",), every=10, start_step=30) as log:
        assert np.isfinite(log.seconds)
    assert (tmp_path / "log.csv").read_text().splitlines() == ["step,loss,seconds", *kept]
