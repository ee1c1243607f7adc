"""Versions of what results depend on, for the record of a training."""

import platform
from importlib.metadata import version

LIBRARIES = ("tensorflow", "keras", "numpy", "h5py", "scikit-learn", "imaug", "opencv-python-headless")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
