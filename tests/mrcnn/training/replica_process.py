"""Train a tiny detector in a process of its own, since devices and clusters are settled when TensorFlow starts.

    python replica_process.py KIND FOLDER OUTPUT

KIND is the number of logical CPU devices that share each batch, or "workers" to share it with the processes that
TF_CONFIG names. The weights before and after the training and the rows of the log go to OUTPUT (.npz).
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parents[2])]

import conftest  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from mrcnn.config import make_config  # noqa: E402
from mrcnn.files.devices import mirrored_strategy, multi_worker_strategy  # noqa: E402
from mrcnn.model import MaskRCNN  # noqa: E402
from mrcnn.network import backbone  # noqa: E402


def main(kind: str, folder: str, output: str) -> None:
    strategy = None
    if kind == "workers":
        strategy = multi_worker_strategy()
    elif int(kind) > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(kind))
        strategy = mirrored_strategy(int(kind), [f"CPU:{i}" for i in range(int(kind))])
    backbone.STAGE_BLOCKS, backbone.STAGE_FILTERS = {"resnet50": (1, 1, 1, 1)}, (32, 32, 64, 64)
    overrides = {"IMAGES_PER_GPU": 6, "STEPS_PER_EPOCH": 1, "VALIDATION_STEPS": 1, "OPTIMIZER": "sgd"}
    # A norm that the gradient passes: clipping must see the whole batch's gradient.
    config = make_config({**overrides, "GRADIENT_CLIP_NORM": 0.5}, conftest.tiny_config_class.__wrapped__())
    make_dataset = conftest.cell_dataset.__wrapped__()
    model = MaskRCNN("training", config, folder, strategy=strategy)
    before = model.parts.get_weights()
    rows = model.train(make_dataset(6), make_dataset(6, 50), 1e-2, 1, "all", folder=folder)
    after = model.parts.get_weights()
    losses = [float(value) for row in rows for name, value in sorted(row.items()) if name not in ("epoch", "step")]
    np.savez(output, *before, *after, losses=losses)


if __name__ == "__main__":
    main(*sys.argv[1:])
