"""Number of proposals that a detector of white cells needs: its measures with fewer and fewer.

    python benchmarks/proposal_counts.py runs/real-small [--counts 1000 300 100 50 20] [--data FOLDER]

Takes a run that `aecfe run` made, and prints the measures of its centres with masks or boxes for each count.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

from experiments.cells.detector import evaluate_detector
from experiments.pipeline import CONFIG, Pipeline
from experiments.settings import load_settings

COLUMNS = ("box_ap50", "box_map", "mask_map", "precision", "recall")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--counts", nargs="+", type=int, default=[1000, 300, 100, 50, 20], help="proposals of an image")
    parser.add_argument("--data", help="folder that the centres' roots are relative to; default: the run's")
    options = parser.parse_args(arguments)
    settings = load_settings(Path(options.run) / CONFIG, {"data": options.data} if options.data else {})
    pipeline = Pipeline(settings)
    centres = {name: centre for name, centre in pipeline.open_centres().items() if centre.masks or centre.boxes}
    names = {name: settings.centres[name].box_names for name in centres}
    detector = Path(options.run) / "detector"
    print(f"{'centre':14} {'proposals':>9} " + " ".join(f"{column:>9}" for column in COLUMNS) + "   seconds")
    for count in options.counts:
        for name, centre in centres.items():
            started = time.monotonic()
            change = {"POST_NMS_ROIS_INFERENCE": count, "PRE_NMS_LIMIT": max(1000, 4 * count)}
            measured = evaluate_detector(
                detector, {name: centre}, pipeline.annotation_choices, names, overrides=change
            )[name]
            values = " ".join(f"{measured[c]:9.3f}" if measured.get(c) is not None else f"{'-':>9}" for c in COLUMNS)
            print(f"{name:14} {count:9} {values} {time.monotonic() - started:9.0f}", flush=True)


if __name__ == "__main__":
    main()
