import h5py
import numpy as np
import pytest

from autoencoder.scaling import FeatureScaling
from mrcnn.feature_store import FeatureStore
from mrcnn.files.errors import InputError


def read_features(path):
    with FeatureStore(path) as store:
        return store.read("features", 0, len(store)).astype(np.float64)


def test_minmax_brings_each_sample_to_its_range_and_constants_to_zero():
    features = np.random.default_rng(0).normal(size=(3, 14, 14, 4)).astype(np.float16)
    features[1] = 7.0
    scaling = FeatureScaling.fit("minmax", {"anna": "not read"})
    scaled = scaling.apply(features, "anyone")
    np.testing.assert_allclose(scaled[[0, 2]].min(axis=(1, 2, 3)), -1.0, atol=1e-6)
    np.testing.assert_allclose(scaled[[0, 2]].max(axis=(1, 2, 3)), 1.0, atol=1e-6)
    np.testing.assert_array_equal(scaled[1], 0.0)


def test_channel_and_centre_scaling_standardise_over_all_centres_and_within_each(stores):
    scaling, features = FeatureScaling.fit("channel", stores), {c: read_features(path) for c, path in stores.items()}
    everything = np.concatenate([*features.values()])
    np.testing.assert_allclose(scaling.mean[0], everything.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(scaling.deviation[2], everything.std(axis=(0, 1, 2)), rtol=1e-6)
    within = FeatureScaling.fit("centre", stores)
    over_all = np.concatenate([scaling.apply(own, centre) for centre, own in features.items()])
    for scaled in (over_all, *(within.apply(own, centre) for centre, own in features.items())):
        np.testing.assert_allclose(scaled.mean(axis=(0, 1, 2)), 0.0, atol=1e-5)
        np.testing.assert_allclose(scaled.std(axis=(0, 1, 2)), 1.0, atol=1e-5)


@pytest.mark.parametrize("kind", ["minmax", "channel", "centre"])
def test_scaling_survives_its_file_and_takes_centres_together(stores, tmp_path, kind):
    FeatureScaling.fit(kind, stores).save(tmp_path / "scaling.npz")
    scaling = FeatureScaling.load(tmp_path / "scaling.npz")
    assert scaling.kind == kind and scaling.centres == tuple(stores)
    features = np.stack([read_features(path)[0] for path in stores.values()]).astype(np.float16)
    expected = np.concatenate([scaling.apply(features[i : i + 1], centre) for i, centre in enumerate(stores)])
    np.testing.assert_allclose(scaling.apply_tensor(features, np.arange(3, dtype=np.int32)), expected, atol=1e-5)


def test_unknown_centre_is_refused_only_where_it_matters(stores):
    features = read_features(stores["anna"])
    FeatureScaling.fit("channel", stores).apply(features, "dora")
    with pytest.raises(InputError, match="'dora' has no feature statistics .known: anna, bert, cleo"):
        FeatureScaling.fit("centre", stores).apply(features, "dora")


@pytest.mark.parametrize(
    "changes", [{"kind": "other"}, {"centres": np.array(["a"])}, {"deviation": np.ones((2, 255), np.float32)}]
)
def test_load_refuses_statistics_that_cannot_be(stores, tmp_path, changes):
    path = tmp_path / "scaling.npz"
    FeatureScaling.fit("centre", stores).save(path)
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, **changes})
    with pytest.raises(InputError, match="scaling.npz: .*not a feature scaling"):
        FeatureScaling.load(path)


def test_fit_only_centres_constant_channels_and_refuses_features_that_are_not_finite(store_maker, tmp_path):
    path = store_maker(tmp_path / "anna.h5", "anna", 3)
    with h5py.File(path, "r+") as file:
        file["cells/features"][..., 7] = 4.0
    scaling = FeatureScaling.fit("channel", {"anna": path})
    assert scaling.deviation[0, 7] == 1 and np.all(scaling.apply(read_features(path), "anna")[..., 7] == 0)
    with h5py.File(path, "r+") as file:
        file["cells/features"][1, 2, 3, 4] = np.nan
    with pytest.raises(InputError, match="anna.h5: .*001.png.*extract this centre again"):
        FeatureScaling.fit("centre", {"anna": path})
