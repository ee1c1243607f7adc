"""Adaptation losses of the user's own: functions outside this package, named by where Python finds them.

A loss is called "module:function", as entry points of Python packages are. The name is all that a configuration keeps,
so that other processes, hosts and resumed trainings find the same function, and whoever only embeds needs none of it.
"""

import importlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from mrcnn.files.errors import InputError

# Of two sets of latents `(num_source, latent_size)` and `(num_target, latent_size)`, a float scalar.
OwnLoss = Callable[[Any, Any], Any]

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_own_loss(name: object) -> bool:
    """Whether a setting has the form "module:function"; the module is not looked for."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def find_own_loss(name: str) -> OwnLoss:
    """Import a loss.

    Args:
        name: "module:function"; the module is imported, and so its code runs.

    Returns:
        The function.

    Raises:
        InputError: if the module cannot be imported or has no such function.
    """
    module_name, function_name = name.split(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _refuse(name, f"module {module_name} cannot be imported", error) from error
        raise InputError(
            f"adaptation {name}: no module {module_name}; set PYTHONPATH to the folder of {module_name}.py"
        ) from error
    except Exception as error:  # whatever the user's code does
        raise _refuse(name, f"module {module_name} cannot be imported", error) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(f"adaptation {name}: {module_name} has no function {function_name}; correct the name")
    return function


def check_own_loss(name: str, latent_size: int) -> None:
    """Try a loss on a few random latents, so that a mistake is told before a training and not in the midst of it.

    Args:
        name: "module:function".
        latent_size: length of a latent.

    Raises:
        InputError: if the loss is not found, fails, or is not one finite number.
    """
    loss = find_own_loss(name)
    random = np.random.default_rng(0)
    source, target = (random.uniform(-1, 1, (rows, latent_size)).astype(np.float32) for rows in (4, 3))
    import tensorflow as tf

    try:
        value = np.asarray(loss(tf.constant(source), tf.constant(target)))
    except Exception as error:  # whatever the user's code does
        raise _refuse(name, f"it fails on latents of shape {source.shape} and {target.shape}", error) from error
    if value.shape != () or not np.issubdtype(value.dtype, np.floating) or not np.isfinite(value):
        found = f"{value} of type {value.dtype}" if value.shape == () else f"an array of shape {value.shape}"
        raise InputError(f"adaptation {name}: the loss must be one finite floating-point number, got {found}")


def _refuse(name: str, what: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:300]
    return InputError(f"adaptation {name}: {what} ({type(error).__name__}: {reason}); correct the file")
