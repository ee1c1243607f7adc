"""One process of a training that those in TF_CONFIG share, or without it a training on two devices.

    python worker_process.py SETTINGS STORES OUTPUT

SETTINGS and STORES are JSON. The weights go to OUTPUT.npz. Ends with status 2 and a line of text for an InputError, as
the command line does.
"""

import json
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from autoencoder.config import AutoencoderConfig  # noqa: E402
from autoencoder.training import train_autoencoder  # noqa: E402
from mrcnn.files.devices import multi_worker_strategy  # noqa: E402
from mrcnn.files.errors import InputError  # noqa: E402


def main(settings: str, stores: str, output: str) -> int:
    logging.basicConfig(level=logging.INFO)
    if "TF_CONFIG" in os.environ:
        strategy = multi_worker_strategy()
    else:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    try:
        config = AutoencoderConfig(**json.loads(settings))
        trained = train_autoencoder(config, json.loads(stores), output, strategy=strategy)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    np.savez(f"{output}.npz", *trained.model.get_weights())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
