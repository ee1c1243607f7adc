"""Adaptation losses of the user's own: functions outside this package, named "module:function".

The name is all that a configuration keeps, so that other processes, hosts and resumed trainings find the same function,
and whoever only embeds needs none of it.
"""

import importlib
import re
from collections.abc import Callable
from typing import Any

from mrcnn.files.errors import InputError, one_line

# Of two sets of latents `(num_source, latent_size)` and `(num_target, latent_size)`, a float scalar.
CustomLoss = Callable[[Any, Any], Any]

NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def find_custom_loss(name: str) -> CustomLoss:
    """Import the function that "module:function" names; the module's code runs.

    Raises:
        InputError: if the module cannot be imported or has no such function.
    """
    module_name, function_name = name.split(":")
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # whatever the user's code does
        advice = f"set PYTHONPATH to the folder of {module_name}.py, or correct the name or the file"
        raise InputError(f"adaptation {name}: {one_line(error)}; {advice}") from error


def check_custom_loss(name: str, latent_size: int) -> None:
    """Try the loss "module:function" on a few random latents, so that a mistake is told before a training.

    Raises:
        InputError: if the loss is not found, fails, or is not one finite number.
    """
    import numpy as np
    import tensorflow as tf

    loss = find_custom_loss(name)
    random = np.random.default_rng(0)
    source, target = (random.uniform(-1, 1, (rows, latent_size)).astype(np.float32) for rows in (4, 3))
    try:
        value = np.asarray(loss(tf.constant(source), tf.constant(target)))
    except Exception as error:  # whatever the user's code does
        shapes = f"latents of shape {source.shape} and {target.shape}"
        raise InputError(f"adaptation {name}: fails on {shapes} ({one_line(error)}); correct the file") from error
    if value.shape != () or not np.issubdtype(value.dtype, np.floating) or not np.isfinite(value):
        found = f"{value} of type {value.dtype}" if value.shape == () else f"an array of shape {value.shape}"
        raise InputError(f"adaptation {name}: the loss must be one finite floating-point number, got {found}")
