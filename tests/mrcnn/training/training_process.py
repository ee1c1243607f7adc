"""Train a tiny detector on one thread, in a process that may be killed.

python training_process.py FOLDER EPOCHS
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parents[2])]

import conftest  # noqa: E402

from mrcnn.config import make_config  # noqa: E402
from mrcnn.files.determinism import compute_on_one_thread  # noqa: E402
from mrcnn.model import MaskRCNN  # noqa: E402
from mrcnn.network import backbone  # noqa: E402


def main(folder: str, epochs: str) -> None:
    compute_on_one_thread()
    backbone.STAGE_BLOCKS, backbone.STAGE_FILTERS = {"resnet50": (1, 1, 1, 1)}, (32, 32, 64, 64)
    overrides = {"AUGMENTATION": "strong", "AUGMENTATION_SHARE": 0.8, "STEPS_PER_EPOCH": 4, "VALIDATION_STEPS": 1}
    config = make_config(overrides, conftest.tiny_config_class.__wrapped__())
    make_dataset = conftest.cell_dataset.__wrapped__()
    model = MaskRCNN("training", config, folder)
    model.train(make_dataset(7), make_dataset(3, 50), 1e-3, int(epochs), "all", folder=folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
