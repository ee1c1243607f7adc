"""Provenance of a result: the command, the versions, the machine, and hashes of what it was made of."""

import hashlib
import json
import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("tensorflow", "keras", "numpy", "h5py", "scikit-learn", "imaug", "opencv-python-headless")
_BLOCK = 1 << 20


def command_text() -> str:
    """The command line of this process as one would type it, the program without its folder."""
    return shlex.join([*(Path(program).name for program in sys.argv[:1]), *sys.argv[1:]])


def versions(*more: str) -> dict[str, str]:
    """Versions of Python, of the libraries that results depend on and of `more` installed packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in (*LIBRARIES, *more)}}


def versions_text(libraries: tuple[str, ...]) -> str:
    """Versions of Python and of some installed packages, as one line."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in libraries)])


def machine_text() -> str:
    """Processor, cores, memory and the GPUs that TensorFlow sees."""
    import tensorflow as tf

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    gpus = len(tf.config.list_physical_devices("GPU"))
    return f"{os.cpu_count()} cores of {model}{memory}, {f'{gpus} GPUs' if gpus else 'no GPU'}"


def file_hash(*paths: str | os.PathLike) -> str:
    """SHA-256 of a file, or of several as one text."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as handle:
            while block := handle.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of a JSON value, the same for equal values whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hash_arrays(*arrays: Any) -> str:
    """SHA-256 over types, shapes and values of some NumPy arrays."""
    import numpy as np  # not needed by the command line's help

    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        # As bytes in place: features of a whole centre fill gigabytes, and so would a copy.
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()
