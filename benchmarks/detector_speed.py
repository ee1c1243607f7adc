"""What the parts of detection cost, as ratios within one run.

    python benchmarks/detector_speed.py [--size 160] [--images 32]

Times a ResNet-50 detector with random weights on drawn smears: batches of 8 against single images, and with the mask
head against without it. All scores are accepted, so that every image has its full number of detections.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from experiments.synthetic import CENTRES, draw_cell_image
from mrcnn.config import make_config
from mrcnn.model import MaskRCNN


def seconds_per_image(model: MaskRCNN, images: list[np.ndarray], batch_size: int, masks: bool, repeats: int) -> float:
    """Median time of detecting on one image."""
    model.detect(images[:batch_size], masks=masks)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        for start in range(0, len(images), batch_size):
            model.detect(images[start : start + batch_size], masks=masks)
        times.append((time.perf_counter() - started) / len(images))
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=160, help="side of the network's input in pixels")
    parser.add_argument("--images", type=int, default=32, help="images in a pass")
    parser.add_argument("--detections", type=int, default=4, help="detections on each image")
    parser.add_argument("--repeats", type=int, default=3, help="passes; the median counts")
    arguments = parser.parse_args()
    config = make_config(
        {
            "BACKBONE": "resnet50",
            "IMAGE_MIN_DIM": arguments.size,
            "IMAGE_MAX_DIM": arguments.size,
            "RPN_ANCHOR_SCALES": [16, 32, 64, 96, 128],
            "PRE_NMS_LIMIT": 1000,
            "POST_NMS_ROIS_INFERENCE": 100,
            "DETECTION_MIN_CONFIDENCE": 0.0,
            "DETECTION_MAX_INSTANCES": arguments.detections,
        }
    )
    model = MaskRCNN("inference", config, "runs/benchmark")
    # Untrained heads call most things background; lean them towards the cell, so that there is something to detect.
    model.parts.box_head.get_layer("mrcnn_class_logits").bias.assign([-5.0, 5.0])
    style, types = CENTRES["north"], ("monocyte", "neutrophil_segmented")
    rng = np.random.default_rng(0)
    images = [draw_cell_image(style, types[i % 2], rng).image for i in range(arguments.images)]
    base = seconds_per_image(model, images, 8, False, arguments.repeats)
    print(f"features, batches of 8:        {1000 * base:7.1f} ms an image   1.00")
    for text, batch_size, masks in (
        ("features, single images:", 1, False),
        ("features and masks, batches of 8:", 8, True),
    ):
        seconds = seconds_per_image(model, images, batch_size, masks, arguments.repeats)
        print(f"{text:30} {1000 * seconds:7.1f} ms an image   {seconds / base:.2f}")


if __name__ == "__main__":
    main()
