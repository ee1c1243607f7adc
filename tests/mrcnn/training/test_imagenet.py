"""ImageNet weights: a `keras.applications` ResNet imported into our backbone computes the same."""

import h5py
import keras
import numpy as np
import pytest

from mrcnn.files.errors import InputError
from mrcnn.network.backbone import STAGE_BLOCKS, resnet
from mrcnn.training import imagenet
from mrcnn.training.imagenet import convert, imagenet_weights_path, matterport_name
from mrcnn.training.weights import is_matterport_file, load_by_name

APPLICATIONS = {"resnet50": keras.applications.ResNet50, "resnet101": keras.applications.ResNet101}


def seeded_application(architecture):
    """A `keras.applications` ResNet whose every weight is random, normalisation statistics included.

    Variances are small enough for the epsilons to matter; gammas go with them, so that activations stay finite.
    """
    rng = np.random.default_rng(5)
    model = APPLICATIONS[architecture](weights=None, include_top=False, input_shape=(64, 64, 3))
    for layer in model.layers:
        values = {v.name: v.shape for v in layer.weights}
        if "kernel" in values:
            shape = values["kernel"]
            scale = np.float32(np.sqrt(1 / np.prod(shape[:3])))
            values = [rng.standard_normal(shape, np.float32) * scale, rng.normal(0, 0.1, values["bias"])]
        elif values:
            size = values["gamma"]
            variance = rng.uniform(0.005, 0.5, size)
            gamma = rng.uniform(0.4, 0.9, size) * np.sqrt(variance)
            values = [gamma, rng.normal(0, 0.1, size), rng.normal(0, 0.1, size), variance]
        if values:
            layer.set_weights(values)
    return model


def our_backbone(architecture, norm="frozen_batch", channels=3):
    images = keras.Input((64, 64, channels))
    return keras.Model(images, resnet(images, architecture, norm, stem_padding="symmetric"))


def named_groups(model):
    return {layer.name: {f"{layer.name}/{v.name}:0": v.numpy() for v in layer.weights} for layer in model.layers}


@pytest.fixture(scope="module")
def resnet50_file(tmp_path_factory, write_keras2_file):
    model = seeded_application("resnet50")
    return model, write_keras2_file(tmp_path_factory.mktemp("imagenet") / "resnet50.h5", named_groups(model))


def stage_outputs(model, architecture):
    names = [f"conv{stage}_block{blocks}_out" for stage, blocks in enumerate(STAGE_BLOCKS[architecture], 2)]
    return keras.Model(model.input, [model.get_layer(name).output for name in names])


def assert_same_stages(theirs, ours, architecture):
    """Feed both the same picture, each in its own convention."""
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    caffe = keras.applications.resnet.preprocess_input(picture.copy())
    rgb = picture - np.array([123.68, 116.779, 103.939], np.float32)
    expected = stage_outputs(theirs, architecture).predict_on_batch(caffe)
    for found, wanted in zip(ours.predict_on_batch(rgb), expected, strict=True):
        assert found.shape == wanted.shape and np.all(np.isfinite(wanted)) and wanted.std() > 0.1
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_load_by_name_makes_our_resnet50_compute_what_theirs_does(resnet50_file):
    theirs, path = resnet50_file
    ours = our_backbone("resnet50")
    report = load_by_name(ours.layers, path)
    assert len(report.matched) == 106 and report.share == 1 and not report.unused
    assert_same_stages(theirs, ours, "resnet50")


@pytest.mark.slow
def test_load_by_name_makes_our_resnet101_compute_what_theirs_does(tmp_path):
    """The file comes from Keras' own writer of the layout, which leaves out the ":0"."""
    from keras.src.legacy.saving import legacy_h5_format

    theirs = seeded_application("resnet101")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, theirs)
    ours = our_backbone("resnet101")
    assert len(load_by_name(ours.layers, tmp_path / "w.h5").matched) == 208
    assert_same_stages(theirs, ours, "resnet101")


def test_load_by_name_leaves_the_heads_alone_when_it_loads_imagenet(resnet50_file, make_layers, values_of):
    _, path = resnet50_file
    heads = [layer for layer in make_layers() if not layer.name.startswith(("conv1", "bn", "res"))]
    before = values_of(heads)
    report = load_by_name([*our_backbone("resnet50").layers, *heads], path)
    assert report.share == 1 and len(report.matched) == 106
    assert all(np.array_equal(before[key], value) for key, value in values_of(heads).items())
    assert is_matterport_file(path)


def test_load_by_name_gives_groupnorm_no_statistics_of_imagenet(resnet50_file):
    _, path = resnet50_file
    with pytest.raises(InputError, match='53 GroupNorm layers.*NORMALIZATION to "frozen_batch"') as error:
        load_by_name(our_backbone("resnet50", "group").layers, path)
    assert "only 53 of 106 layers matched" in str(error.value)


def test_load_by_name_refuses_resnet50_for_resnet101(resnet50_file):
    _, path = resnet50_file
    with pytest.raises(InputError, match="only 106 of 208.*res4g_branch2a.*BACKBONE"):
        load_by_name(our_backbone("resnet101").layers, path)


def test_load_by_name_sums_the_colours_for_grey_images(resnet50_file):
    """A grey image gives what the same image in three equal channels gives."""
    _, path = resnet50_file
    colour, grey = our_backbone("resnet50"), our_backbone("resnet50", channels=1)
    load_by_name(colour.layers, path)
    load_by_name(grey.layers, path)
    image = np.random.default_rng(2).normal(0, 50, (1, 64, 64, 1)).astype(np.float32)
    expected = colour.get_layer("conv1")(np.pad(np.repeat(image, 3, -1), ((0, 0), (3, 3), (3, 3), (0, 0))))
    found = grey.get_layer("conv1")(np.pad(image, ((0, 0), (3, 3), (3, 3), (0, 0))))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_load_by_name_knows_no_kernel_for_four_channels(resnet50_file):
    _, path = resnet50_file
    layers = our_backbone("resnet50", channels=4).layers
    with pytest.raises(InputError, match=r"\(7, 7, 4, 64\), file \(7, 7, 3, 64\).*exclude=\[\"conv1\"\]"):
        load_by_name(layers, path)
    assert load_by_name(layers, path, exclude=["conv1_conv"]).excluded == ("conv1",)


def test_load_by_name_refuses_resnet_v2(tmp_path, write_keras2_file, make_layers):
    groups = {name: {f"{name}/kernel:0": np.ones(2)} for name in ("conv1_conv", "conv2_block1_preact_bn")}
    with pytest.raises(InputError, match="ResNet V2"):
        load_by_name(make_layers(), write_keras2_file(tmp_path / "v2.h5", groups))


def test_matterport_name_maps_theirs_onto_ours(resnet50_file):
    theirs, _ = resnet50_file
    ours = [layer.name for layer in our_backbone("resnet50").layers if layer.weights]
    names = [matterport_name(layer.name) for layer in theirs.layers if layer.weights]
    assert sorted(names) == sorted(ours)
    assert not any(matterport_name(layer.name) for layer in theirs.layers if not layer.weights)
    assert matterport_name("conv4_block23_2_conv") == "res4w_branch2b"
    assert matterport_name("conv2_block1_0_bn") == "bn2a_branch1"
    for stranger in ("conv4_block36_1_conv", "conv6_block1_1_conv", "conv2_block1_4_bn", "conv2_block0_1_bn", "fc"):
        assert matterport_name(stranger) is None


def test_convert_keeps_what_a_normalisation_computes():
    rng = np.random.default_rng(3)
    values = {
        "gamma": rng.normal(size=8),
        "beta": rng.normal(size=8),
        "moving_mean": rng.normal(size=8),
        "moving_variance": np.array([0, 1e-9, 1e-6, 1e-5, 1e-3, 0.1, 1, 100]),
    }
    values = {kind: value.astype(np.float32) for kind, value in values.items()}
    x = rng.normal(size=(5, 8)).astype(np.float32)
    found = []
    for epsilon, weights in ((1.001e-5, values), (1e-3, None)):
        layer = keras.layers.BatchNormalization(epsilon=epsilon)
        layer.build((None, 8))
        weights = weights or convert("bn_conv1", values, layer)
        layer.set_weights([weights[kind] for kind in ("gamma", "beta", "moving_mean", "moving_variance")])
        found.append(np.array(layer(x, training=False)))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-4)
    kept = convert("bn_conv1", values, layer)["moving_variance"]
    np.testing.assert_array_equal(kept, values["moving_variance"])


def test_imagenet_sources_are_those_of_the_installed_keras(resnet50_file):
    from keras.src.applications import resnet as theirs

    assert imagenet.BASE_URL == theirs.BASE_WEIGHTS_PATH
    assert imagenet.FILE_HASHES == {name: theirs.WEIGHTS_HASHES[name][1] for name in imagenet.FILE_HASHES}
    model, _ = resnet50_file
    epsilons = {layer.epsilon for layer in model.layers if hasattr(layer, "epsilon")}
    assert epsilons == {imagenet.KERAS_EPSILON}


@pytest.fixture
def keras_cache(tmp_path, monkeypatch):
    """Put Keras' cache into a temporary folder, and the network into the test's hands."""
    from keras.src.utils import file_utils

    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))

    def serve(download):
        monkeypatch.setattr(file_utils, "urlretrieve", download)

    return serve


def test_imagenet_weights_path_fetches_once_and_keeps_the_file(tmp_path, keras_cache, monkeypatch):
    from hashlib import md5

    asked = []

    def download(url, target):
        asked.append(url)
        with open(target, "wb") as file:
            file.write(b"weights")

    keras_cache(download)
    monkeypatch.setitem(imagenet.FILE_HASHES, "resnet50", md5(b"weights").hexdigest())
    path = imagenet_weights_path("resnet50")
    assert path == imagenet_weights_path("resnet50") == tmp_path / "models" / path.name
    assert path.read_bytes() == b"weights"
    assert asked == [imagenet.BASE_URL + "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"]


def test_imagenet_weights_path_refuses_a_file_of_another_checksum(keras_cache):
    def download(url, target):
        with open(target, "wb") as file:
            file.write(b"a portal's login page")

    keras_cache(download)
    with pytest.raises(InputError, match="resnet101.*give the path"):
        imagenet_weights_path("resnet101")


def test_imagenet_weights_path_says_what_to_do_without_a_network(tmp_path, keras_cache):
    from urllib.error import URLError

    def download(url, target):
        raise URLError("no route to host")

    keras_cache(download)
    with pytest.raises(InputError, match="no route to host.*download https://.*give the path") as error:
        imagenet_weights_path("resnet50")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "models").iterdir())


def test_imagenet_weights_path_names_the_architectures():
    with pytest.raises(InputError, match="resnet50, resnet101"):
        imagenet_weights_path("resnet152")
