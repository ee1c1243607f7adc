"""A script in the manner of the first AE-CFE's feature extraction, as a process that says nothing but its own."""

import gzip
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from mrcnn.files.start_up import LOG_VARIABLE

ROOT = Path(__file__).parents[2]
CONFIG = """
import json
from mrcnn.config import Config, make_config
from mrcnn.network import backbone

backbone.STAGE_BLOCKS, backbone.STAGE_FILTERS = {"resnet50": (1, 1, 1, 1)}, (32, 32, 64, 64)
CellsConfig = type(make_config(json.load(open("settings.json")), Config))
"""
EXTRACTION = """
import autoencoder.training
from config import CellsConfig
import mrcnn.model_feat_extract as modellib
import gzip, os, pickle
import cv2, skimage

model = modellib.MaskRCNN(mode="inference", config=CellsConfig(), model_dir="trained_model")
model.load_weights(model.find_last(), by_name=True)
features = {}
for label in os.listdir("images"):
    for image in os.listdir(os.path.join("images", label)):
        img = skimage.io.imread(os.path.join("images", label, image))
        img = cv2.resize(img, (48, 48))
        output = model.detect([img])[0]
        features[image] = {"label": label, **{name: output[name] for name in ("feats", "rois", "masks")}}
with gzip.open("north.dat.gz", "wb") as f:
    pickle.dump(features, f)
"""


def test_feature_extraction_of_the_first_ae_cfe_runs_and_is_quiet(tiny_detector, draw_cell, tmp_path):
    folder = tmp_path / "trained_model" / "cells20220215T1028"
    (tmp_path / "images" / "MON").mkdir(parents=True)
    folder.mkdir(parents=True)
    image = draw_cell(0)[0]
    cv2.imwrite(str(tmp_path / "images" / "MON" / "a.png"), image[..., ::-1])
    tiny_detector.keras_model.save_weights(str(folder / "mask_rcnn_cells_0004.h5"))
    (tmp_path / "settings.json").write_text(json.dumps({**tiny_detector.config.to_dict(), "NAME": "cells"}))
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "extract.py").write_text(EXTRACTION)
    env = {name: value for name, value in os.environ.items() if name != LOG_VARIABLE} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "extract.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with gzip.open(tmp_path / "north.dat.gz") as file:
        found = pickle.load(file)
    (expected,) = tiny_detector.detect([cv2.resize(image, (48, 48))])
    assert list(found) == ["a.png"] and found["a.png"].pop("label") == "MON" and len(expected["rois"])
    for name, values in found["a.png"].items():
        np.testing.assert_allclose(values, expected[name], atol=1e-4)
