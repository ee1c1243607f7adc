"""Extracts features in processes of their own, so that a test can kill them; started by `test_features_resume.py`.

Imports TensorFlow once, then reads a job, a line of JSON, from stdin and forks a child that does it. Prints "started
PID" when the child begins, what the child has to say, and "ended STATUS" when it is gone. A child says "batch K" when
the network has done batch K. It goes on, but stands still two batches after `hold_after`, so that a kill that comes
late still comes in the middle.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from mrcnn.config import make_config
from mrcnn.data.records import ImageRecord
from mrcnn.feature_store import writer as store_parts
from mrcnn.feature_store.shards import Shard
from mrcnn.features import extract_features

FOREVER = 600.0


class MeanDetector:
    """One cell on each image, none where the first value is odd; `by_batch` gives the batch a part in its features."""

    def __init__(self, folder, by_batch=False, hold_after=None):
        self.model_dir, self.by_batch, self.hold_after, self.number = Path(folder), by_batch, hold_after, 0
        self.config = make_config({"TOP_DOWN_PYRAMID_SIZE": 256, "NUM_CLASSES": 2})

    def detect(self, images, masks=True, paste=True):
        time.sleep(FOREVER if self.hold_after is not None and self.number == self.hold_after + 2 else 0.002)
        batch = np.mean([image.mean() for image in images]) if self.by_batch else 0.0
        self.number += 1
        say("batch", self.number)
        return [self.result(image, batch) for image in images]

    def result(self, image, batch):
        count = 1 - image[0, 0, 0] % 2
        return {
            "rois": np.array([[10, 12, 40, 44]] * count, np.int32).reshape(-1, 4),
            "scores": np.full(count, 0.9, np.float32),
            "class_ids": np.ones(count, np.int32),
            "feats": np.full((count, 14, 14, 256), (image.mean() + batch) / 255.0, np.float32),
            "small_masks": np.full((count, 28, 28), 0.5, np.float32),
        }


def say(*words):
    print(*words, flush=True)


def hold_in_merge():
    copy_rows = store_parts._copy_rows

    def copy_and_stand_still(*arguments):
        copy_rows(*arguments)
        say("merging")
        time.sleep(FOREVER)

    store_parts._copy_rows = copy_and_stand_still


def extract(images, output, detector, by_batch=False, shard=None, kill_at=""):
    if kill_at == "merging":
        hold_in_merge()
    hold_after = int(kill_at.split()[1]) if kill_at.startswith("batch") else None
    paths = sorted(Path(images).iterdir())
    extract_features(
        MeanDetector(detector, by_batch, hold_after),
        [ImageRecord(path.name, path, f"L{i % 3}", "monocyte") for i, path in enumerate(paths)],
        output,
        centre="north",
        batch_size=4,
        part_size=7,
        shard=Shard.parse(shard) if shard else None,
    )


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        extract(**json.loads(line))
        os._exit(0)
    say("started", child)
    say("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
