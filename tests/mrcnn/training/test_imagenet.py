"""Pretrained weights: fetched once and whole, and a `keras.applications` ResNet computes the same as our backbone."""

from hashlib import md5

import keras
import numpy as np
import pytest

from mrcnn.files.errors import InputError
from mrcnn.network.backbone import STAGE_BLOCKS, resnet
from mrcnn.training import imagenet
from mrcnn.training.imagenet import download_trained_weights, imagenet_weights_path
from mrcnn.training.weights import load_by_name


def seeded_resnet50():
    """A `keras.applications` ResNet whose every weight is random, normalisation statistics included.

    Variances are small enough for the epsilons to matter; gammas go with them, so that activations stay finite.
    """
    rng = np.random.default_rng(5)
    model = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(64, 64, 3))
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


def our_backbone(norm="frozen_batch", channels=3):
    images = keras.Input((64, 64, channels))
    return keras.Model(images, resnet(images, "resnet50", norm, stem_padding="symmetric"))


@pytest.fixture(scope="module")
def resnet50_file(tmp_path_factory, write_keras2_file):
    model = seeded_resnet50()
    groups = {layer.name: {f"{layer.name}/{v.name}:0": v.numpy() for v in layer.weights} for layer in model.layers}
    return model, write_keras2_file(tmp_path_factory.mktemp("imagenet") / "resnet50.h5", groups)


def test_load_by_name_makes_our_resnet50_compute_what_theirs_does(resnet50_file):
    """Both are fed the same picture, each in its own convention."""
    theirs, path = resnet50_file
    ours = our_backbone()
    report = load_by_name(ours.layers, path)
    assert len(report.matched) == 106 and report.share == 1 and not report.unused
    names = [f"conv{stage}_block{blocks}_out" for stage, blocks in enumerate(STAGE_BLOCKS["resnet50"], 2)]
    stages = keras.Model(theirs.input, [theirs.get_layer(name).output for name in names])
    picture = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    expected = stages.predict_on_batch(keras.applications.resnet.preprocess_input(picture.copy()))
    rgb = picture - np.array([123.68, 116.779, 103.939], np.float32)
    for found, wanted in zip(ours.predict_on_batch(rgb), expected, strict=True):
        assert found.shape == wanted.shape and np.all(np.isfinite(wanted)) and wanted.std() > 0.1
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_load_by_name_sums_the_colours_for_grey_images(resnet50_file):
    """A grey image gives what the same image in three equal channels gives."""
    theirs, path = resnet50_file
    grey = our_backbone(channels=1)
    load_by_name(grey.layers, path)
    expected = theirs.get_layer("conv1_conv").kernel.numpy().sum(axis=2, keepdims=True)
    np.testing.assert_allclose(grey.get_layer("conv1").kernel, expected, rtol=1e-5)


def test_imagenet_sources_are_those_of_the_installed_keras(resnet50_file):
    from keras.src.applications import resnet as theirs

    assert imagenet.BASE_URL == theirs.BASE_WEIGHTS_PATH
    assert imagenet.FILE_HASHES == {name: theirs.WEIGHTS_HASHES[name][1] for name in imagenet.FILE_HASHES}
    model, _ = resnet50_file
    epsilons = {layer.epsilon for layer in model.layers if hasattr(layer, "epsilon")}
    assert epsilons == {imagenet.KERAS_EPSILON}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder that stands for the sites of the weights, with a cache of Keras' beside it."""
    from keras.src.utils import file_utils

    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path / "cache"))
    site = tmp_path / "site"
    (tmp_path / "cache").mkdir(), site.mkdir()
    monkeypatch.setattr(imagenet, "BASE_URL", f"{site.as_uri()}/")
    monkeypatch.setattr(imagenet, "COCO_MODEL_URL", (site / "coco.h5").as_uri())
    for name in imagenet.FILE_HASHES:
        monkeypatch.setitem(imagenet.FILE_HASHES, name, md5(b"weights").hexdigest())
    monkeypatch.setattr(imagenet, "COCO_HASH", md5(b"weights").hexdigest())
    return site


def test_imagenet_weights_path_fetches_once_and_keeps_the_file(published, tmp_path, capsys):
    name = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    (published / name).write_bytes(b"weights")
    path = imagenet_weights_path("resnet50")
    assert path == tmp_path / "cache" / "models" / name and path.read_bytes() == b"weights"
    (published / name).unlink()
    assert imagenet_weights_path("resnet50") == path
    assert capsys.readouterr().out == ""  # which is for results alone
    (published / name.replace("50", "101")).write_bytes(b"a portal's login page")
    for other, message in (("101", "could not be fetched.*give the path"), ("152", "resnet50, resnet101")):
        with pytest.raises(InputError, match=message):
            imagenet_weights_path(f"resnet{other}")


def test_download_trained_weights_replaces_a_file_by_a_whole_one_alone(published, tmp_path, capsys):
    target = tmp_path / "new" / "mask_rcnn_coco.h5"
    (published / "coco.h5").write_bytes(b"weights")
    download_trained_weights(str(target), verbose=0)
    assert target.read_bytes() == b"weights" and capsys.readouterr() == ("", "")
    (published / "coco.h5").write_bytes(b"weig")
    with pytest.raises(InputError, match="could not be fetched"):
        download_trained_weights(target)
    assert target.read_bytes() == b"weights" and list(target.parent.iterdir()) == [target]
