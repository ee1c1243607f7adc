"""Weights to begin a training with, fixed by the seed."""

import zlib

from mrcnn.config import Config
from mrcnn.network.assembly import DetectorParts


def seeded_parts(config: Config) -> DetectorParts:
    """Build the parts with initial kernels that SEED and each layer's name fix, whatever the global random state."""
    parts = DetectorParts(config)
    for layer in parts.named_layers():
        if hasattr(layer, "kernel"):
            settings = layer.kernel_initializer.get_config()
            settings["seed"] = zlib.crc32(f"{config.SEED}/{layer.name}".encode())
            layer.kernel.assign(type(layer.kernel_initializer).from_config(settings)(layer.kernel.shape))
    return parts
