"""The benchmark of measurements by expert attributes, on made-up ones."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.attributes import ATTRIBUTES, SINGLE, read_measurements, score_attributes
from mrcnn.files.errors import InputError


def test_measurements_that_tell_everything_score_one(tmp_path):
    number = np.arange(60) % 2
    attributes = pd.DataFrame({name: np.where(number, "yes", "no") for name in ATTRIBUTES})
    for attribute, high, low in SINGLE.values():
        attributes[attribute] = np.where(number, f"{high}-a", f"{low}-b")
    attributes.index = [f"{i}.jpg" for i in range(60)]
    table = pd.DataFrame({name: number + 0.1 for name in SINGLE}).assign(image=[f"x/{i}.jpg" for i in range(60)])
    table.iloc[:50].to_csv(tmp_path / "cells.csv")
    scores = score_attributes(read_measurements(tmp_path / "cells.csv"), attributes)
    assert scores.pop("images") == 50
    assert list(scores.values()) == pytest.approx([1.0] * (len(SINGLE) + len(ATTRIBUTES) + 1))
    table.drop(columns="image").to_csv(tmp_path / "nameless.csv")
    with pytest.raises(InputError, match="image_id"):
        read_measurements(tmp_path / "nameless.csv")
