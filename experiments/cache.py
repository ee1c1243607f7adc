"""Results that are kept under the hash of all that they depend on, so that nothing is computed twice."""

import os
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.files.arrays import read_arrays
from mrcnn.files.atomic import atomic_path, write_json
from mrcnn.files.provenance import hash_json

# To be raised whenever this software computes another result from the same inputs.
BEHAVIOUR = 1
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "scikit-image", "umap-learn", "tensorflow", "keras")


@cache
def software() -> dict[str, str]:
    """What computes results: the behaviour of this software, and the versions of the libraries beneath it."""
    return {"behaviour": str(BEHAVIOUR), **{name: version(name) for name in _LIBRARIES}}


class Cache:
    """A folder of results by kind and hash of their inputs and of the software that computes them.

    Without the software, a table would show what an older release found beside the versions of the present one. Beside
    each result lie its inputs, as JSON, so that a person can tell what it belongs to.

    Args:
        folder: where to keep them.
        overwrite: compute each result again, the first time that it is asked for.
    """

    def __init__(self, folder: str | os.PathLike, *, overwrite: bool = False):
        self.folder, self.overwrite = Path(folder), overwrite
        self.num_made = 0
        self._made: set[Path] = set()

    def arrays(
        self, kind: str, inputs: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Arrays by name, none of them of Python objects, which `make` computes where they are not there yet.

        Args:
            kind: what they are, a folder's name.
            inputs: everything that they depend on, as JSON values.
            make: computes them.

        Raises:
            InputError: if the stored file is damaged.
        """
        described = {**inputs, "software": software()}
        path = self.folder / kind / f"{hash_json(described)[:32]}.npz"
        if path.exists() and (not self.overwrite or path in self._made):
            return read_arrays(path, advice="delete it, and it is computed again")
        arrays = dict(make())
        with atomic_path(path) as temporary, open(temporary, "wb") as handle:
            np.savez_compressed(handle, **arrays)
        write_json(path.with_suffix(".json"), described)
        self._made.add(path)
        self.num_made += 1
        return arrays
