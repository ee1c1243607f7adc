"""AE-CFE from Python: the functions that a notebook needs, imported when they are first asked for.

    import aecfe

    centre = aecfe.load_centre("north", "smears/north")
    detector = aecfe.load_detector("runs/demo/detector")
    aecfe.extract_features(detector, centre.records, "north.h5", centre="north")

The command line is `aecfe.cli`.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "load_centre": "experiments.centres.centre",
    "load_detector": "mrcnn.model",
    "find_images": "experiments.cells.detect",
    "detect_images": "experiments.cells.detect",
    "extract_features": "mrcnn.features",
    "open_store": "mrcnn.feature_store",
    "AutoencoderConfig": "autoencoder.config",
    "train_autoencoder": "autoencoder.training",
    "load_autoencoder": "autoencoder.folder",
    "embed": "autoencoder.embedding",
    "evaluate_files": "experiments.evaluation.evaluate",
    "load_settings": "experiments.settings",
    "Pipeline": "experiments.pipeline",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
