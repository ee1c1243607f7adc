"""The small detector that ships, beside the ResNet-50 network and torchvision's, on the same images in one run.

    python benchmarks/shipped.py [--output runs/bench/shipped.json] [--repeats 3]

Images are those of the sample, seen at 160 px. `features` is all of the extraction, from the image file to the feature
store, start-up not counted; torchvision, measured where it is installed, only detects, on images in memory. The
ResNet-50 network and torchvision's have random weights and give one detection for each image.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks.results import Results, add, print_missed_goals
from benchmarks.stages import Smears, in_turn, training_step
from experiments.centres.centre import load_centre
from mrcnn.config import Config, SmallSmearConfig, SmearConfig, make_config
from mrcnn.data.images import read_image
from mrcnn.data.resizing import resize
from mrcnn.features import extract_features
from mrcnn.files.atomic import write_json
from mrcnn.model import MaskRCNN, load_detector

SIDE, BATCH = 160, 8
SAMPLE = Path(str(files("aecfe"))) / "sample" / "acevedo20"
MODELS = Path(str(files("aecfe"))) / "models"


def resnet50_config() -> Config:
    """The ResNet-50 network with the settings of the small one."""
    same = ("RPN_ANCHOR_SCALES", "TRAIN_ROIS_PER_IMAGE", "MAX_GT_INSTANCES")
    settings = {name: getattr(SmallSmearConfig, name) for name in same}
    sides = {"IMAGE_MIN_DIM": SIDE, "IMAGE_MAX_DIM": SIDE}
    return make_config(
        {**settings, **sides, "DETECTION_MAX_INSTANCES": 1, "DETECTION_MIN_CONFIDENCE": 0.0}, SmearConfig
    )


def images_per_second(results: Results, repeats: int) -> None:
    """Time the extraction with each detector, and torchvision's detection, in turn."""
    records = load_centre("acevedo20", SAMPLE, "csv").records
    with tempfile.TemporaryDirectory() as folder:
        large = MaskRCNN("inference", resnet50_config(), Path(folder) / "resnet50")
        large.save()
        calls: dict[str, Callable[[], object]] = {}
        for name, detector in (("small", load_detector("smear-small")), ("resnet50", large)):
            calls[name] = lambda name=name, detector=detector: extract_features(
                detector, records, Path(folder) / f"{name}.h5", centre="sample", batch_size=BATCH, overwrite=True
            )
        if (torchvision := torchvision_detection([read_image(record.path) for record in records])) is not None:
            calls["torchvision"] = torchvision
        times = {name: statistics.median(seconds) for name, seconds in in_turn(calls, repeats).items()}
    for name, seconds in times.items():
        add(results, f"features_{name}", len(records) / seconds, "images/s")
    for name in times.keys() - {"small"}:
        add(results, f"features_small_over_{name}", times[name] / times["small"], "times")


def torchvision_detection(images: Sequence[np.ndarray]) -> Callable[[], object] | None:
    """Detection by torchvision's Mask R-CNN with ResNet-50 on the images at the same size; None without torchvision."""
    try:
        import torch
        from torchvision.models.detection import maskrcnn_resnet50_fpn
    except ImportError:
        print("torchvision is not installed: not measured")
        return None
    torch.set_num_threads(os.cpu_count() or 1)
    sizes = {"min_size": SIDE, "max_size": SIDE, "box_score_thresh": 0.0, "box_detections_per_img": 1}
    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2, **sizes).eval()
    tensors = [
        torch.tensor(resize(image, (SIDE, SIDE)).transpose(2, 0, 1) / 255, dtype=torch.float32) for image in images
    ]

    def detect() -> None:
        with torch.inference_mode():
            for first in range(0, len(tensors), BATCH):
                network(tensors[first : first + BATCH])

    return detect


def training_steps(results: Results, repeats: int) -> None:
    """Compare a training step of both networks on the same batch."""
    configs = {"small": SmallSmearConfig(), "resnet50": resnet50_config()}
    smears = Smears(BATCH, SIDE)
    calls = {}
    for name, config in configs.items():
        config.IMAGES_PER_GPU = config.BATCH_SIZE = BATCH
        config.POST_NMS_ROIS_TRAINING = SmallSmearConfig.POST_NMS_ROIS_TRAINING
        calls[name] = training_step(config, smears, around_cells=True)[0]
    times = {name: statistics.median(seconds) for name, seconds in in_turn(calls, repeats).items()}
    add(results, "train_steps_small_over_resnet50", times["resnet50"] / times["small"], "times")


def first_result(results: Results) -> None:
    """Time one command from its start to its end on eight images, and take the memory that it had at most."""
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((SAMPLE / "images").iterdir())[:BATCH]:
            (Path(folder) / "cells").mkdir(exist_ok=True)
            (Path(folder) / "cells" / path.name).write_bytes(path.read_bytes())
        command = [sys.executable, "-m", "aecfe", "extract", f"{folder}/cells", "-o", f"{folder}/cells.h5"]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        add(results, "seconds_to_first_result", time.perf_counter() - started, "s")
    # Linux counts in KiB.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    add(results, "peak_memory", peak, "GiB")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="runs/bench/shipped.json", help="file for the results")
    parser.add_argument("--repeats", type=int, default=3, help="calls of each; the median counts")
    options = parser.parse_args(arguments)
    results: Results = {}
    first_result(results)
    size = sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) / 1e6
    add(results, "models_size", size, "MB")
    images_per_second(results, options.repeats)
    training_steps(results, options.repeats)
    write_json(options.output, results)
    print(f"\n{options.output}")
    print_missed_goals(results)


if __name__ == "__main__":
    main()
