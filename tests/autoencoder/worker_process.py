"""One process of a training that several share, or a training alone; for the tests of both.

    python worker_process.py KIND SETTINGS STORES OUTPUT

KIND is "workers" to share each batch with the processes that TF_CONFIG names, or "alone" to train on one device, and
again into OUTPUT-mirrored on two. SETTINGS and STORES are JSON. The weights go to OUTPUT.npz. Ends with status 2 and a
line of text for an InputError, as the command line does.
"""

import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from autoencoder.config import AutoencoderConfig  # noqa: E402
from autoencoder.training import train_autoencoder  # noqa: E402
from mrcnn.files.devices import multi_worker_strategy  # noqa: E402
from mrcnn.files.errors import InputError  # noqa: E402


def main(kind: str, settings: str, stores: str, output: str) -> int:
    logging.basicConfig(level=logging.INFO)
    if kind == "workers":
        strategies = {output: multi_worker_strategy()}
    else:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategies = {output: None, f"{output}-mirrored": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])}
    config = AutoencoderConfig(**json.loads(settings))
    for folder, strategy in strategies.items():
        try:
            trained = train_autoencoder(config, json.loads(stores), folder, strategy=strategy)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        np.savez(f"{folder}.npz", *trained.model.get_weights())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
