"""Extraction that is killed and resumed gives the store of an undisturbed one, whole or in shards."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from mrcnn.config import make_config
from mrcnn.feature_store import FeatureStore, merge_stores, open_store

ROOT = Path(__file__).resolve().parents[2]
NUM_IMAGES = 60
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def images(tmp_path_factory, draw_cell):
    folder = tmp_path_factory.mktemp("images")
    for number in range(NUM_IMAGES):
        data = cv2.imencode(".png", draw_cell(number)[0])[1].tobytes()
        # Two images cannot be read, the second of them at the end of a batch.
        (folder / f"{number:02d}.png").write_bytes(data[: len(data) // 2] if number in (17, 43) else data)
    return folder


@pytest.fixture(scope="module")
def extractions():
    """The process of `extraction_process.py`."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, Path(__file__).with_name("extraction_process.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        yield process
        process.stdin.close()


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """Folder of a detector without a network."""
    folder = tmp_path_factory.mktemp("detector")
    config = make_config({"TOP_DOWN_PYRAMID_SIZE": 256, "NUM_CLASSES": 2})
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "weights.weights.h5").write_bytes(b"weights")
    return folder


def run(process, *, kill_at="", delay=0.0, **job):
    """Do a job; kill it `delay` seconds after it said `kill_at`. Returns how often it said "batch"."""
    process.stdin.write(json.dumps({**job, "kill_at": kill_at}, default=str) + "\n")
    process.stdin.flush()
    batches = 0
    for line in map(str.strip, process.stdout):
        word, _, rest = line.partition(" ")
        if word == "started":
            child = int(rest)
        batches += word == "batch"
        if line == kill_at:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
        if word == "ended":
            assert int(rest) == (-signal.SIGKILL if kill_at else 0)
            return batches
    raise AssertionError("the process of the extractions is gone")


def assert_same_stores(path, other_path):
    with open_store(path) as store, FeatureStore(other_path) as other:
        assert store.all_image_ids.tolist() == [f"{number:02d}.png" for number in range(NUM_IMAGES)]
        assert store.counts == other.counts and store.settings == other.settings
        for field in store.fields:
            rows = (each.read(field, 0, len(each)) for each in (store, other))
            np.testing.assert_array_equal(*rows, err_msg=field)
        for name in ("image_id", "reason", "num_detections", "num_cells"):
            np.testing.assert_array_equal(store.image_column(name), other.image_column(name), err_msg=name)


def test_extraction_killed_at_any_moment_loses_and_doubles_nothing(extractions, images, made_up, tmp_path):
    # A resumed run has the same images in each batch, so that a network computes the same to the last bit.
    job = {"detector": made_up, "images": images, "by_batch": True}
    whole = tmp_path / "whole.h5"
    assert run(extractions, output=whole, **job) == NUM_IMAGES / 4
    with FeatureStore(whole) as store:
        assert store.counts["unreadable"] == 2 and 20 < len(store) < NUM_IMAGES
    random = np.random.default_rng(5)
    for in_merge in (False, True):
        job["output"] = tmp_path / str(in_merge) / "north.h5"
        batches = run(extractions, kill_at=f"batch {random.integers(1, 14)}", delay=random.uniform(0, 0.03), **job)
        assert not job["output"].exists()
        if in_merge:
            run(extractions, kill_at="merging", delay=random.uniform(0, 0.01), **job)
            assert not job["output"].exists()
        again = run(extractions, **job)
        # A part that was on the disk is not computed again, except for the batch that it ends in.
        assert again == 0 if in_merge else NUM_IMAGES / 4 - batches <= again < NUM_IMAGES / 4 + 1
        assert_same_stores(job["output"], whole)
        assert [path.name for path in job["output"].parent.iterdir()] == ["north.h5"]


def test_shards_killed_and_resumed_are_the_whole_store(extractions, images, made_up, tmp_path):
    job = {"detector": made_up, "images": images}
    whole, random = tmp_path / "whole.h5", np.random.default_rng(6)
    run(extractions, output=whole, **job)
    shards = [tmp_path / f"north.shard-{number}-of-2.h5" for number in (1, 2)]
    for number, path in enumerate(shards, 1):
        part = {**job, "output": path, "shard": f"{number}/2"}
        run(extractions, kill_at=f"batch {random.integers(1, 4)}", delay=random.uniform(0, 0.03), **part)
        run(extractions, **part)
    assert_same_stores(shards, whole)
    merge_stores(shards, tmp_path / "joined.h5")
    assert_same_stores(tmp_path / "joined.h5", whole)
