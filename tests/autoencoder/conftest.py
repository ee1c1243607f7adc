"""Tiny feature stores, made once for all tests of the autoencoder."""

import os
from pathlib import Path

import numpy as np
import pytest

from mrcnn.feature_store import Cell, FeatureStoreWriter

VECTORS = Path(os.environ.get("AECFE_PARITY", Path(__file__).parents[2] / "../shared/parity/reference_vectors.npz"))


@pytest.fixture(scope="session")
def vectors():
    """Inputs and outputs of the reference implementation, by name."""
    if not VECTORS.exists():
        pytest.skip(f"no reference vectors at {VECTORS}")
    with np.load(VECTORS) as file:
        return {name: file[name] for name in file.files}


def make_store(path: Path, centre: str, num_cells: int, *, detector: str = "detector-a", cell_types=()) -> Path:
    """Write a store of random cells; each centre has its own level and contrast, as stains have."""
    random = np.random.default_rng((0, len(centre), *centre.encode()))
    cell_types = cell_types or [f"type{number % 2}" for number in range(num_cells)]
    level, spread = random.uniform(0, 1), random.uniform(0.5, 2)
    with FeatureStoreWriter(path, centre=centre, detector={"hash": detector}) as writer:
        for number, cell_type in enumerate(cell_types):
            cell = Cell(
                features=level + spread * random.gamma(1.0, size=(14, 14, 256)),
                crop=random.integers(0, 256, (128, 128, 3), dtype=np.uint8),
                image=random.integers(0, 256, (128, 128, 3), dtype=np.uint8),
                box=np.array([1, 2, 30, 40], np.float32),
                score=0.5 + number / (2 * num_cells),
                class_id=1,
                image_shape=(64, 64),
            )
            writer.add(f"images/{number:03d}.png", [cell], label=cell_type.upper(), cell_type=cell_type)
    return path


@pytest.fixture(scope="session")
def store_maker():
    return make_store


@pytest.fixture
def typed_store(tmp_path):
    """Make a store of a centre of cells of the given types; "" is an unlabelled cell."""
    return lambda centre, types: make_store(tmp_path / f"{centre}.h5", centre, len(types), cell_types=types)


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    """Three centres of 12, 9 and 7 cells."""
    folder = tmp_path_factory.mktemp("stores")
    return {name: make_store(folder / f"{name}.h5", name, n) for name, n in (("anna", 12), ("bert", 9), ("cleo", 7))}


@pytest.fixture(scope="session")
def tiny_settings():
    """Settings of a training that takes about a second."""
    size = {"latent_size": 8, "image_size": 32, "global_batch_size": 6, "steps": 4}
    return size | {"checkpoint_every": 2, "log_every": 2, "seed": 3}


@pytest.fixture(scope="session")
def trained(stores, tiny_settings, tmp_path_factory):
    """A finished training, not to be changed."""
    from autoencoder.config import AutoencoderConfig
    from autoencoder.training import train_autoencoder

    folder = tmp_path_factory.mktemp("trained") / "autoencoder"
    return train_autoencoder(AutoencoderConfig(**tiny_settings), stores, folder)
