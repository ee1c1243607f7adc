"""Does extraction keep its memory? Resident memory after 2,000 images as a growth over that after 200.

Usage: python benchmarks/extract_memory.py [--images 2000] [--early 200] [--size 64]

A ResNet-50 detector with random weights, leaned towards cells so that every image has its full number of detections,
extracts small drawn images with masks into a feature store, in a process of its own. Memory is read after each batch
of images; a figure is the mean over the tenth of the run before it, since single readings go up and down by the size
of what is waiting to be written.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

NAME = "extract_memory_growth"
BATCH = 8


def measure(images: int = 2000, early: int = 200, *, size: int = 64) -> dict[str, float]:
    """Extract in a process of its own and compare its memory late and early.

    Args:
        images: in all.
        early: images after which memory is taken for the first time.
        size: side of the images and of the network's input in pixels.

    Returns:
        Dict of `extract_memory_growth` in percent, and resident memory `early_mib` and `late_mib`.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--images", str(images), "--size", str(size), "--measure", folder]
        env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
    readings = json.loads(done.stdout.splitlines()[-1])
    span = max(early // 10, BATCH)
    at_early, at_late = (
        [mib for count, mib in readings if last - span < count <= last] for last in (early, readings[-1][0])
    )
    before, after = sum(at_early) / len(at_early), sum(at_late) / len(at_late)
    return {
        NAME: round(100.0 * (after / before - 1.0), 2),
        "early_mib": round(before, 1),
        "late_mib": round(after, 1),
    }


def extract(folder: Path, num_images: int, size: int) -> list[tuple[int, float]]:
    """Extract here and now; returns resident memory in MiB by the number of images dealt with."""
    import cv2
    import numpy as np

    from mrcnn.config import make_config
    from mrcnn.data.records import ImageRecord
    from mrcnn.features import extract_features
    from mrcnn.model import MaskRCNN

    random = np.random.default_rng(0)
    records = []
    for number in range(num_images):
        image = random.integers(200, 235, (size, size, 3), dtype=np.uint8)
        centre = tuple(int(v) for v in random.integers(size // 3, 2 * size // 3, 2))
        cv2.circle(image, centre, size // 5, (150, 60, 110), -1)
        path = folder / "images" / f"{number:05d}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), image)
        records.append(ImageRecord(path.name, path))
    config = make_config(
        {
            "BACKBONE": "resnet50",
            "IMAGE_MIN_DIM": size,
            "IMAGE_MAX_DIM": size,
            "RPN_ANCHOR_SCALES": [8, 16, 24, 32, 48],
            "PRE_NMS_LIMIT": 200,
            "POST_NMS_ROIS_INFERENCE": 20,
            "DETECTION_MIN_CONFIDENCE": 0.0,
            "DETECTION_MAX_INSTANCES": 2,
        }
    )
    detector = MaskRCNN("inference", config, folder / "detector")
    detector.parts.box_head.get_layer("mrcnn_class_logits").bias.assign([-5.0, 5.0])
    detector.save()
    readings, detect = [], detector.detect

    def detect_and_look(images, **options):
        results = detect(images, **options)
        readings.append((len(images) + (readings[-1][0] if readings else 0), resident_mib()))
        return results

    detector.detect = detect_and_look
    extract_features(detector, records, folder / "features.h5", centre="drawn", batch_size=BATCH)
    return readings


def resident_mib() -> float:
    """Resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmRSS; this benchmark needs Linux")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--early", type=int, default=200, help="images after which memory is taken first")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--measure", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(extract(Path(options.measure), options.images, options.size)))
        return
    result = measure(options.images, options.early, size=options.size)
    print(
        f"memory after {options.early} images {result['early_mib']:.0f} MiB, after {options.images} "
        f"{result['late_mib']:.0f} MiB: {NAME} {result[NAME]:+.1f} %"
    )


if __name__ == "__main__":
    main()
