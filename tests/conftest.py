"""Fixtures that several packages' tests share: a tiny configuration, drawn cells, a shortened backbone."""

import os

# Before anything imports TensorFlow: its start-up notes would fill the report of every failing test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # each of several processes has a core of its own
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

# A run that a shell started in the background ignores Ctrl+C, and so would the commands that are tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

IMAGE_SIZE = 64
# Files whose tests train networks or start commands. They come first: no process is to wait for another at the end.
LONGEST = ("test_scripts", "test_exactness", "test_export", "test_pages", "test_workers", "test_notebook", "test_step")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def draw_cell_image(seed: int, size: int = IMAGE_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Draw a purple ellipse on a pale ground: uint8 (size, size, 3), and its mask, bool (size, size, 1)."""
    rng = np.random.default_rng(seed)
    image = rng.integers(205, 235, (size, size, 3)).astype(np.uint8)
    centre = tuple(int(v) for v in rng.integers(size * 3 // 8, size * 5 // 8, 2))
    axes = tuple(int(v) for v in rng.integers(size // 6, size // 4, 2))
    mask = np.zeros((size, size), np.uint8)
    cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1)
    image[mask > 0] = np.array([110, 60, 150]) + rng.integers(-10, 10, (int(mask.sum()), 3))
    return image, mask[..., np.newaxis] > 0


@pytest.fixture(scope="session", autouse=True)
def no_bars():
    """Bars would fill the output of failing tests."""
    from mrcnn.files.progress import hide_bars

    hide_bars()


@pytest.fixture(scope="session")
def draw_cell():
    return draw_cell_image


@pytest.fixture(scope="session")
def tiny_config_class():
    """Settings under which a network of 64 x 64 px takes a training step in a fraction of a second."""
    from mrcnn.config import Config

    class TinyConfig(Config):
        NAME = "tiny"
        BACKBONE = "resnet50"
        NORMALIZATION = "group"
        NUM_CLASSES = 2
        IMAGE_MIN_DIM = IMAGE_SIZE
        IMAGE_MAX_DIM = IMAGE_SIZE
        TOP_DOWN_PYRAMID_SIZE = 32
        FPN_CLASSIF_FC_LAYERS_SIZE = 64
        RPN_ANCHOR_SCALES = (8, 16, 32, 48, 64)
        POST_NMS_ROIS_TRAINING = 40
        POST_NMS_ROIS_INFERENCE = 30
        TRAIN_ROIS_PER_IMAGE = 12
        MAX_GT_INSTANCES = 4
        DETECTION_MAX_INSTANCES = 6
        IMAGES_PER_GPU = 2
        STEPS_PER_EPOCH = 2
        VALIDATION_STEPS = 0
        OPTIMIZER = "adam"
        TRAIN_ON_GT_BOXES = True
        SEED = 3

    return TinyConfig


@pytest.fixture(scope="session")
def small_resnet():
    """A context in which "resnet50" is built with one narrow block in each stage, to keep compiling short."""
    from mrcnn.network import backbone

    @contextmanager
    def patched():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backbone, "STAGE_BLOCKS", {"resnet50": (1, 1, 1, 1)})
            patch.setattr(backbone, "STAGE_FILTERS", (32, 32, 64, 64))
            yield

    return patched


@pytest.fixture(scope="session")
def see_cells():
    """Function that makes an untrained network take more regions for cells than for background."""

    def lean(parts):
        parts.box_head.get_layer("mrcnn_class_logits").bias.assign([-5.0, 5.0])

    return lean


@pytest.fixture(scope="session")
def call_saved_models(tmp_path_factory):
    """Function that calls SavedModels in a process that has TensorFlow and none of our packages.

    It takes their folders by name, and for each of these names the inputs by "case/signature/input"; it gives for each
    the outputs by "case/signature/output".
    """

    def call(folders, inputs):
        folder, arguments = tmp_path_factory.mktemp("foreign"), []
        for name, path in folders.items():
            np.savez(folder / f"{name}.npz", **inputs[name])
            arguments += [path, f"{name}.npz", f"{name}-results.npz"]
        command = [sys.executable, "-I", Path(__file__).with_name("saved_model_process.py"), *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return {name: dict(np.load(folder / f"{name}-results.npz").items()) for name in folders}

    return call


@pytest.fixture(scope="session")
def cell_dataset():
    """Function `(num_images, first_seed=0, size=64)` -> a prepared Dataset of drawn cells, kept in memory."""
    from mrcnn.data.dataset import Dataset

    class DrawnCells(Dataset):
        def __init__(self, num_images: int, first_seed: int = 0, size: int = IMAGE_SIZE):
            super().__init__()
            self.add_class("drawn", 1, "cell")
            for seed in range(first_seed, first_seed + num_images):
                self.add_image("drawn", seed, f"{seed}.png", sample=draw_cell_image(seed, size))
            self.prepare()

        def load_image(self, image_id: int) -> np.ndarray:
            return self.image_info[image_id]["sample"][0]

        def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
            return self.image_info[image_id]["sample"][1], np.ones(1, np.int32)

    return DrawnCells


@pytest.fixture(scope="session")
def cell_records(tmp_path_factory):
    """Five readable PNG images of drawn cells and, as the third record, a truncated one."""
    from mrcnn.data.records import ImageRecord

    folder = tmp_path_factory.mktemp("centre")
    records = []
    for index in range(6):
        path = folder / f"{index}.png"
        data = cv2.imencode(".png", draw_cell_image(index)[0])[1].tobytes()
        path.write_bytes(data[: len(data) // 2] if index == 2 else data)
        records.append(ImageRecord(path.name, path, label=f"L{index % 2}", cell_type="monocyte"))
    return records
