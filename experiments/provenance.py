"""What made a result, in words for a page that shows it: the command, the versions, the machine."""

import os
import platform
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def command_text(command: Sequence[str]) -> str:
    """A command line as one would type it, the program without its folder.

    Args:
        command: the program and its arguments.
    """
    return shlex.join([*(Path(program).name for program in command[:1]), *command[1:]])


def versions_text(libraries: Sequence[str]) -> str:
    """Versions of Python and of some installed packages."""
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


LIBRARIES = ("tensorflow", "keras", "numpy", "h5py", "scikit-learn", "imaug", "opencv-python-headless")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
