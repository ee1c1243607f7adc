import keras
import numpy as np
import pytest

from autoencoder.layers import FlattenedGroupNormalization


@pytest.mark.parametrize(("name", "groups"), [("gn0", 32), ("gn1", 30), ("gn2", 20)])
def test_flattened_group_normalization_equals_the_reference(vectors, name, groups):
    inputs = vectors[f"{name}_x"].transpose(0, 2, 3, 1)
    layer = FlattenedGroupNormalization(groups)
    np.testing.assert_allclose(layer(inputs), vectors[f"{name}_y_default"].transpose(0, 2, 3, 1), atol=1e-5)
    layer.set_weights([vectors[f"{name}_gamma"].ravel(), vectors[f"{name}_beta"].ravel()])
    np.testing.assert_allclose(layer(inputs), vectors[f"{name}_y_affine"].transpose(0, 2, 3, 1), atol=1e-5)


def test_flattened_group_normalization_makes_unit_runs_across_channels():
    inputs = np.random.default_rng(0).gamma(2.0, size=(2, 3, 2, 4)).astype(np.float32)
    # Three runs of eight values: each is one channel of six and a third of the next.
    outputs = FlattenedGroupNormalization(3, epsilon=0.0)(inputs).numpy()
    runs = outputs.transpose(0, 3, 1, 2).reshape(2, 3, 8)
    np.testing.assert_allclose(runs.mean(axis=-1), 0.0, atol=1e-6)
    np.testing.assert_allclose(runs.std(axis=-1, ddof=1), 1.0, rtol=1e-5)


def test_flattened_group_normalization_round_trips_and_keeps_half_precision(tmp_path):
    inputs = keras.Input((4, 4, 6))
    model = keras.Model(inputs, FlattenedGroupNormalization(3, dtype="mixed_float16")(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    values = np.random.default_rng(2).normal(size=(1, 4, 4, 6)).astype(np.float32)
    assert loaded(values).dtype.name == "float16"
    np.testing.assert_array_equal(loaded(values), model(values))


@pytest.mark.parametrize("groups", [5, 96])
def test_flattened_group_normalization_refuses_uneven_runs(groups):
    with pytest.raises(ValueError, match="cannot share 96 values evenly"):
        FlattenedGroupNormalization(groups).build((None, 4, 4, 6))
