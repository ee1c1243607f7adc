"""Train a tiny detector in a process of its own: devices, clusters and threads are settled when TensorFlow starts.

    python training_process.py KIND FOLDER

KIND "thread" trains for five epochs on one thread. A number has so many logical CPU devices share the batch of a
single step, "workers" the processes that TF_CONFIG names; the weights before and after it and the rows of the log go
to FOLDER.npz.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parents[2])]

import conftest  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from mrcnn.config import make_config  # noqa: E402
from mrcnn.files.devices import compute_on_one_thread, mirrored_strategy, multi_worker_strategy  # noqa: E402
from mrcnn.model import MaskRCNN  # noqa: E402
from mrcnn.network import backbone  # noqa: E402

THREAD = {"AUGMENTATION": "strong", "AUGMENTATION_SHARE": 0.8, "STEPS_PER_EPOCH": 4, "VALIDATION_STEPS": 1}
# A norm that the gradient passes: clipping must see the whole batch's gradient.
SHARED = {
    "IMAGES_PER_GPU": 6,
    "STEPS_PER_EPOCH": 1,
    "VALIDATION_STEPS": 1,
    "OPTIMIZER": "sgd",
    "GRADIENT_CLIP_NORM": 0.5,
}


def strategy_of(kind: str) -> tf.distribute.Strategy | None:
    if kind == "workers":
        return multi_worker_strategy()
    if int(kind) == 1:
        return None
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(kind))
    return mirrored_strategy(int(kind), [f"CPU:{i}" for i in range(int(kind))])


def main(kind: str, folder: str) -> None:
    backbone.STAGE_BLOCKS, backbone.STAGE_FILTERS = {"resnet50": (1, 1, 1, 1)}, (32, 32, 64, 64)
    config_class, make_dataset = conftest.tiny_config_class.__wrapped__(), conftest.cell_dataset.__wrapped__()
    if kind == "thread":
        compute_on_one_thread()
        model = MaskRCNN("training", make_config(THREAD, config_class), folder)
        model.train(make_dataset(7), make_dataset(3, 50), 1e-3, 5, "all", folder=folder)
        return
    model = MaskRCNN("training", make_config(SHARED, config_class), folder, strategy=strategy_of(kind))
    before = model.parts.get_weights()
    model.train(make_dataset(6), make_dataset(6, 50), 1e-2, 1, "all", folder=folder)
    history = sorted(model.keras_model.history.history.items())
    losses = [values[0] for name, values in history if name not in ("step", "seconds")]
    np.savez(f"{folder}.npz", *before, *model.parts.get_weights(), losses=losses)


if __name__ == "__main__":
    main(*sys.argv[1:])
