import subprocess
import sys
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import pytest

from autoencoder.batches import make_batches, prepare_images, read_batches
from autoencoder.config import AutoencoderConfig
from autoencoder.scaling import FeatureScaling
from autoencoder.training import train_autoencoder
from mrcnn.feature_store import FeatureStoreWriter
from mrcnn.files.errors import InputError

ROOT = Path(__file__).parents[2]


def take(batches, number):
    return [{name: value.numpy() for name, value in batch.items()} for batch in islice(batches, number)]


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in ("features", "images", "centre_id"))


@pytest.fixture
def scaling(stores):
    return FeatureScaling.fit("minmax", stores)


@pytest.mark.parametrize("image_size", [128, 64, 32])
def test_prepare_images_averages_areas(image_size):
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    factor = 128 // image_size
    expected = images.reshape(2, image_size, factor, image_size, factor, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(prepare_images(images, image_size), expected, atol=1e-6)


def test_prepare_images_takes_stain_and_light_away_where_asked():
    rng = np.random.default_rng(0)
    dark = rng.uniform(60, 120, (1, 128, 128, 3))
    # The same cell in another lab: each channel of the picture in another strength and brightness.
    other = dark * np.array([1.5, 0.8, 1.2]) + np.array([20, 40, -10])
    pair = np.round(np.concatenate([dark, other])).astype(np.uint8)
    first, second = prepare_images(pair, 32, "standardised").numpy()
    # Rounding to whole grey levels is all that tells them apart.
    np.testing.assert_allclose(first, second, atol=0.02)
    np.testing.assert_allclose(first.mean(axis=(0, 1)), 0.6, atol=0.01)
    np.testing.assert_allclose(first.std(axis=(0, 1)), 0.2, atol=0.01)
    stored = prepare_images(pair, 32).numpy()
    assert np.abs(stored[0] - stored[1]).max() > 0.1


def test_prepare_images_leaves_an_image_of_one_colour_even():
    images = np.full((1, 128, 128, 3), 200, np.uint8)
    # Not its rounding errors, blown up.
    np.testing.assert_allclose(prepare_images(images, 64, "standardised"), 0.6, atol=2e-3)


def test_make_batches_gives_scaled_float_batches(stores, scaling):
    config = AutoencoderConfig(global_batch_size=7, image_size=32, seed=4)
    (batch,) = take(make_batches(config, stores, scaling), 1)
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "features": ((7, 14, 14, 256), "float32"),
        "images": ((7, 32, 32, 3), "float32"),
        "centre_id": ((7,), "int32"),
    }
    np.testing.assert_allclose(np.max(batch["features"], axis=(1, 2, 3)), 1.0, atol=1e-6)
    np.testing.assert_allclose(np.min(batch["features"], axis=(1, 2, 3)), -1.0, atol=1e-6)
    assert np.bincount(batch["centre_id"]).tolist() == [3, 2, 2]


def test_make_batches_gives_what_is_read_scaled(stores):
    config = AutoencoderConfig(global_batch_size=7, image_source="image", seed=4)
    scaling = FeatureScaling.fit("centre", stores)
    read = islice(read_batches(stores, (3, 2, 2), image_source="image", seed=4, start_step=2), 3)
    for raw, batch in zip(read, take(make_batches(config, stores, scaling, start_step=2), 3), strict=True):
        np.testing.assert_array_equal(batch["centre_id"], raw["centre_id"])
        np.testing.assert_allclose(batch["images"], raw["images"] / 255, atol=1e-6)
        for centre, name in enumerate(stores):
            rows = raw["centre_id"] == centre
            np.testing.assert_allclose(batch["features"][rows], scaling.apply(raw["features"][rows], name), atol=1e-5)


def test_make_batches_gives_the_same_to_all_at_once(stores, scaling):
    config = AutoencoderConfig(global_batch_size=7, image_size=32)
    whole = take(make_batches(config, stores, scaling), 5)
    first, second = (make_batches(config, stores, scaling) for _ in range(2))
    for expected in whole:
        assert same({name: value.numpy() for name, value in next(first).items()}, expected)
        assert same({name: value.numpy() for name, value in next(second).items()}, expected)


@pytest.mark.parametrize("balance", ["none", "type"])
def test_make_batches_of_all_pipelines_is_that_of_one(stores, scaling, balance):
    config = AutoencoderConfig(global_batch_size=12, image_size=32, balance=balance)
    whole = take(make_batches(config, stores, scaling, num_replicas=4), 12)
    for pipeline in (0, 1):
        batches = make_batches(
            config, stores, scaling, start_step=1, num_replicas=4, num_pipelines=2, pipeline=pipeline
        )
        own = take(batches, 4)
        for step in (1, 2):
            for part in (0, 1):
                assert same(own[2 * (step - 1) + part], whole[4 * step + 2 * pipeline + part])


def test_make_batches_by_type_needs_labels_of_the_source(stores, scaling, typed_store, caplog):
    mixed = {"anna": stores["anna"], "dora": typed_store("dora", [""] * 5)}
    config = AutoencoderConfig(global_batch_size=6, image_size=32, balance="type")
    with pytest.raises(InputError, match="dora.h5: no cell has a type or label"):
        make_batches(config, mixed, scaling, source=1)
    with caplog.at_level("INFO", logger="autoencoder.batches"):
        (batch,) = take(make_batches(config, mixed, scaling, source=0), 1)
    assert batch["centre_id"].tolist() == [0, 0, 0, 1, 1, 1]
    assert "'type0', 'type1'" in caplog.text


def test_make_batches_refuses_uneven_replicas_and_empty_stores(stores, scaling, tmp_path):
    with pytest.raises(InputError, match="choose a multiple of 2"):
        make_batches(AutoencoderConfig(global_batch_size=7), stores, scaling, num_replicas=2)
    with pytest.raises(ValueError, match="3 replicas cannot be divided among 2 pipelines"):
        make_batches(AutoencoderConfig(global_batch_size=6), stores, scaling, num_replicas=3, num_pipelines=2)
    FeatureStoreWriter(tmp_path / "empty.h5", centre="empty", detector={"hash": "x"}).finish()
    with pytest.raises(InputError, match="empty.h5: holds no cells"):
        make_batches(AutoencoderConfig(), {"empty": tmp_path / "empty.h5"}, scaling)


@pytest.fixture
def store_with_nan(store_maker, tmp_path):
    path = store_maker(tmp_path / "nan.h5", "bert", 9)
    with h5py.File(path, "r+") as file:
        file["cells/features"][6, 2, 3, 4] = np.nan
    return path


def test_make_batches_tells_what_the_reader_found(stores, scaling, store_with_nan):
    config = AutoencoderConfig(global_batch_size=7, image_size=32)
    batches = make_batches(config, stores | {"bert": store_with_nan}, scaling)
    with pytest.raises(InputError, match=r"nan.h5: features of cell 6 \(images/006.png\)"):
        next(batches)


def test_training_on_features_that_are_not_finite_is_an_input_error(stores, store_with_nan, tmp_path, tiny_settings):
    config = AutoencoderConfig.from_dict(tiny_settings)
    with pytest.raises(InputError) as raised:
        train_autoencoder(config, stores | {"bert": store_with_nan}, tmp_path / "run")
    message = str(raised.value)
    assert message.startswith(f"{store_with_nan}: features of cell 6 (images/006.png)") and "\n" not in message


ENDING = """
import sys
import autoencoder.batches
from autoencoder.config import AutoencoderConfig
from autoencoder.batches import make_batches
from autoencoder.scaling import FeatureScaling

autoencoder.batches.READ_AHEAD_BYTES *= 8  # still reading when the end comes
stores = {"anna": sys.argv[1]}
config = AutoencoderConfig(global_batch_size=2, image_size=32)
batches = make_batches(config, stores, FeatureScaling.fit("minmax", stores))
next(batches)
print("batch", flush=True)
raise RuntimeError("nobody catches this")
"""


def test_make_batches_does_not_keep_a_program_from_ending(stores):
    """Batches that are alive at the end of the interpreter still have a thread that wants to read."""
    command = [sys.executable, "-c", ENDING, str(stores["anna"])]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert process.stdout == "batch\n" and process.returncode == 1
    assert process.stderr.rstrip().endswith("RuntimeError: nobody catches this")
