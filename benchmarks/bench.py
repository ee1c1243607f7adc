"""Cost of the detector in units of one forward pass of a plain ResNet-50 on the same images.

    python benchmarks/bench.py [--output runs/bench/bench.json] [--repeats 9] [--images 2000]

The unit is `keras.applications.ResNet50(include_top=False)`, compiled, at the same input size and batch, timed in turn
with what is measured, so that other work on the machine slows both. Weights are random; the score from which on a
detection counts is set so that an image has about four. Results are printed, stage by stage, and written as JSON:
name -> value, unit, goal. `autoencoder_speed.py` adds its own.
"""

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import tensorflow as tf

from benchmarks import extract_memory
from benchmarks.results import Results, add, print_missed_goals
from benchmarks.stages import (
    Smears,
    backbone_forward,
    count_proposals,
    in_turn,
    open_model,
    reference,
    stages_of_detection,
    training_step,
)
from mrcnn.config import Config, SmearConfig, make_config
from mrcnn.files.atomic import write_json
from mrcnn.files.provenance import machine_text

DEFAULT_SIDE, SOURCE_SIDE = 256, 400


def detection(results: Results, name: str, config: Config, batch: int, masks: bool, repeats: int) -> None:
    """Time detection on images of `SOURCE_SIDE` px and its stages."""
    images = [Smears(batch, SOURCE_SIDE).load_image(i) for i in range(batch)]
    model = open_model(config, images)
    side = int(config.IMAGE_SHAPE[0])
    found = [len(result["scores"]) for result in model.detect(images, masks=masks)]
    proposals = count_proposals(model, images)
    stages = stages_of_detection(model, images, masks)
    times = in_turn({"unit": reference(batch, side), **stages}, repeats)
    unit = statistics.median(times.pop("unit"))
    units = {stage: statistics.median(seconds) / unit for stage, seconds in times.items()}
    counts = f"{proposals:.0f} proposals and {sum(found) / batch:.1f} cells an image"
    print(f"\n{name}: {batch} x {side} px, {counts}, unit {1000 * unit:.0f} ms")
    before = 0.0
    for stage, value in units.items():
        add(results, f"{name}: {stage}", value - before, "units")
        before = value
    add(results, name, before, "units")
    quartiles = statistics.quantiles([t / unit for t in times[list(stages)[-1]]], n=4)
    print(f"{'':34} quartiles of {repeats} calls: {quartiles[0]:.2f} to {quartiles[2]:.2f}")


def training(results: Results, repeats: int) -> None:
    """Time a training step with Matterport's settings at 256 px.

    An untrained network proposes nothing that overlaps a cell well, and without positive RoIs the mask head rests. So
    the step that counts takes its RoIs around the cells, as good proposals lie; the other is shown beside it.
    """
    config = make_config(default_settings(), Config)
    for name, around_cells in (("train_step_default", True), ("train_step_without_positives", False)):
        step, positives = training_step(config, Smears(4, SOURCE_SIDE), around_cells)
        times = in_turn({"unit": reference(config.BATCH_SIZE, DEFAULT_SIDE), name: step}, repeats)
        unit = statistics.median(times["unit"])
        rois = config.TRAIN_ROIS_PER_IMAGE
        print(f"\n{config.BATCH_SIZE} images, {rois} RoIs each, {positives} positive in all, unit {1000 * unit:.0f} ms")
        add(results, name, statistics.median(times[name]) / unit, "units")


def normalisation(results: Results, repeats: int) -> None:
    """Time the backbone with each normalisation."""
    kinds = ("frozen_batch", "group", "keras_group")
    calls = {kind: backbone_forward(kind, 8, DEFAULT_SIDE) for kind in kinds}
    times = in_turn({"unit": reference(8, DEFAULT_SIDE), **calls}, repeats)
    unit = statistics.median(times.pop("unit"))
    print(f"\nbackbone, 8 x {DEFAULT_SIDE} px")
    for kind, seconds in times.items():
        add(results, f"backbone: {kind}", statistics.median(seconds) / unit, "units")


def default_settings() -> dict[str, Any]:
    """Matterport's defaults with the ResNet-50 and the size that its TensorFlow 2 port was measured with."""
    return {
        "BACKBONE": "resnet50",
        "IMAGE_MIN_DIM": DEFAULT_SIDE,
        "IMAGE_MAX_DIM": DEFAULT_SIDE,
        "NUM_CLASSES": 2,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="runs/bench/bench.json", help="file for the results")
    parser.add_argument("--repeats", type=int, default=9, help="calls of each; the median counts")
    parser.add_argument("--images", type=int, default=2000, help="images for the growth of memory; 0 leaves it out")
    options = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)
    results: Results = {}
    add(results, "machine", machine_text(), "")
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}, aecfe {version('aecfe')}"
    add(results, "versions", f"{versions}, Python {platform.python_version()}", "")
    smear = SmearConfig()
    detection(results, "detect_default", make_config(default_settings(), Config), 1, True, options.repeats)
    detection(results, "detect_smear", smear, 1, True, options.repeats)
    detection(results, "extract_smear", smear, 8, False, options.repeats)
    training(results, options.repeats)
    normalisation(results, options.repeats)
    write_json(options.output, results)
    if options.images:
        print()
        growth = extract_memory.measure(images=options.images)["extract_memory_growth"]
        add(results, "extract_memory_growth", float(growth), "%")
    write_json(options.output, results)
    print(f"\n{options.output}")
    print_missed_goals(results)


if __name__ == "__main__":
    main()
