"""The exported detector, in a process that has TensorFlow and none of our packages, against `MaskRCNN.detect`."""

import json

import numpy as np
import pytest
import tensorflow as tf

from aecfe.cli import main
from mrcnn.config import make_config
from mrcnn.export import export_detector, signatures
from mrcnn.files.errors import InputError
from mrcnn.model import MaskRCNN, detector_hash

MAX_DETECTIONS = 6
SIGNATURES = ("serving_default", "full_masks", "features", "boxes")


@pytest.fixture(scope="module")
def images(draw_cell):
    """Batches of one size each: as the network takes them, larger, smaller and wide, grey, with transparency.

    They are resized by whole factors, at which no sum lies so near a half that it could be rounded either way.
    """
    opaque = np.full((128, 64, 1), 255, np.uint8)
    return {
        "as it is": np.stack([draw_cell(0)[0], draw_cell(1)[0]]),
        "larger": draw_cell(2, 192)[0][np.newaxis],
        "half a size": draw_cell(3, 128)[0][np.newaxis],
        "wide": draw_cell(4)[0][np.newaxis, 10:50],
        "tiny": draw_cell(5)[0][np.newaxis, 28:36, 28:36],
        "grey": draw_cell(6, 128)[0][np.newaxis, :, :, :1],
        "transparent": np.concatenate([draw_cell(7, 128)[0][:, 32:96], opaque], axis=-1)[np.newaxis],
    }


@pytest.fixture(scope="module")
def exported(tiny_detector, tmp_path_factory):
    return export_detector(tiny_detector, tmp_path_factory.mktemp("models") / "detector" / "1")


@pytest.fixture(scope="module")
def found(exported, images, call_saved_models):
    """Function `(batch, signature)` -> output -> array."""
    inputs = {f"{batch}/{name}/images": images[batch] for batch in images for name in SIGNATURES}
    results = call_saved_models({"detector": exported}, {"detector": inputs})["detector"]
    return lambda *place: {k.split("/")[2]: v for k, v in results.items() if k.split("/")[:2] == list(place)}


@pytest.fixture(scope="module")
def expected(tiny_detector, images):
    """Name of the batch -> what `detect` finds on each of its images."""
    return {name: tiny_detector.detect(list(batch)) for name, batch in images.items()}


def test_exported_model_finds_what_detect_finds(found, expected):
    assert sum(len(result["scores"]) for results in expected.values() for result in results) > 10
    for batch, results in expected.items():
        outputs = found(batch, "serving_default")
        assert outputs["num_detections"].tolist() == [len(result["scores"]) for result in results]
        for i, result in enumerate(results):
            real = slice(len(result["scores"]))
            assert np.abs(outputs["boxes"][i, real] - result["rois"]).max(initial=0.0) <= 0.5 + 1e-3
            np.testing.assert_allclose(outputs["scores"][i, real], result["scores"], atol=1e-4)
            np.testing.assert_array_equal(outputs["class_ids"][i, real], result["class_ids"])
            np.testing.assert_allclose(outputs["features"][i, real], result["feats"], atol=1e-3)
            np.testing.assert_allclose(outputs["masks"][i, real], result["small_masks"], atol=1e-3)


def test_exported_model_pads_with_zeros(found, images):
    for batch, count in zip(images, map(len, images.values()), strict=True):
        outputs = found(batch, "serving_default")
        shapes = {name: (value.shape, value.dtype) for name, value in outputs.items()}
        assert shapes == {
            "boxes": ((count, MAX_DETECTIONS, 4), np.float32),
            "scores": ((count, MAX_DETECTIONS), np.float32),
            "class_ids": ((count, MAX_DETECTIONS), np.int32),
            "num_detections": ((count,), np.int32),
            "masks": ((count, MAX_DETECTIONS, 28, 28), np.float32),
            "features": ((count, MAX_DETECTIONS, 14, 14, 32), np.float32),
        }
        for name in ("boxes", "scores", "class_ids", "masks", "features"):
            for row, number in zip(outputs[name], outputs["num_detections"], strict=True):
                assert not row[number:].any()


def test_full_masks_are_those_of_detect(found, expected, images):
    for batch, results in expected.items():
        masks = found(batch, "full_masks")["masks"]
        assert masks.shape == (len(results), MAX_DETECTIONS, *images[batch].shape[1:3]) and masks.dtype == np.uint8
        for full, result in zip(masks, results, strict=True):
            count = result["masks"].shape[-1]
            assert not full[count:].any()
            # A probability within rounding of one half may fall on either side.
            different = full[:count] != result["masks"].transpose(2, 0, 1)
            assert different.sum(axis=(1, 2)).max(initial=0) <= 2


def test_signatures_take_pad64_and_one_channel(tiny_config_class, small_resnet, see_cells, draw_cell):
    settings = {"IMAGE_RESIZE_MODE": "pad64", "IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": [120.0]}
    config = make_config({**settings, "DETECTION_MIN_CONFIDENCE": 0.0}, tiny_config_class)
    with small_resnet():
        model = MaskRCNN("inference", config, "unused")
    see_cells(model.parts)
    image = np.repeat(draw_cell(8, 100)[0][:70, :, :1], 3, axis=-1)  # its grey is the same however it is weighted
    (expected,) = model.detect([image])
    outputs = signatures(model.parts, config)["serving_default"](tf.constant(image[np.newaxis]))
    count = len(expected["scores"])
    assert count > 0 and outputs["num_detections"].numpy().tolist() == [count]
    assert np.abs(outputs["boxes"][0, :count] - expected["rois"]).max() <= 0.5 + 1e-3
    # A grey level half-way between two whole ones may be rounded to either.
    np.testing.assert_allclose(outputs["features"][0, :count], expected["feats"], atol=1e-2)


def test_exported_detector_of_nuclei_gives_the_scores_and_nuclei_of_detect(nucleus_detector, draw_cell, tmp_path):
    image = draw_cell(3)[0]
    (expected,) = nucleus_detector.detect([image])
    count = len(expected["scores"])
    assert count > 1 and expected["nucleus_masks"].shape == expected["masks"].shape == (64, 64, count)
    loaded = tf.saved_model.load(export_detector(nucleus_detector, tmp_path / "1"))
    for name in ("serving_default", "boxes", "full_masks"):
        outputs = loaded.signatures[name](images=tf.constant(image[np.newaxis]))
        np.testing.assert_allclose(outputs["scores"][0, :count], expected["scores"], atol=1e-4)
        assert outputs["num_detections"].numpy().tolist() == [count]
        if name == "serving_default":
            small = outputs["nucleus_masks"][0, :count]
            np.testing.assert_allclose(small, expected["small_nucleus_masks"], atol=1e-3)
    different = outputs["nucleus_masks"][0, :count].numpy() != expected["nucleus_masks"].transpose(2, 0, 1)
    assert outputs["nucleus_masks"].shape == (1, MAX_DETECTIONS, 64, 64) and different.mean() < 0.01


def test_export_replaces_nothing_unasked(tiny_detector, exported, tmp_path):
    before = (exported / "fingerprint.pb").read_bytes()
    with pytest.raises(InputError, match="is there already"):
        export_detector(tiny_detector, exported)
    assert (exported / "fingerprint.pb").read_bytes() == before
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(InputError, match="holds something else"):
        export_detector(tiny_detector, tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_export_command_writes_a_folder_that_says_what_it_is(tiny_detector, small_resnet, tmp_path, capsys):
    run, output = tmp_path / "run", tmp_path / "models" / "1"
    tiny_detector.save(run / "detector")
    options = ["--min-score", "0.25", "--max-detections", "40"]
    with small_resnet():
        assert main(["export", "detector", str(run), str(output), *options]) == 0
    assert capsys.readouterr().out.strip() == str(output) and tf.saved_model.contains_saved_model(output)
    assert [path.name for path in output.parent.iterdir()] == ["1"]
    config, description = (
        json.loads((output / "assets.extra" / f"{n}.json").read_text()) for n in ("config", "export")
    )
    # The detector's own 30 proposals could not give so many detections.
    changed = {"DETECTION_MIN_CONFIDENCE": 0.25, "DETECTION_MAX_INSTANCES": 40, "POST_NMS_ROIS_INFERENCE": 40}
    assert config == {**tiny_detector.config.to_dict(), **changed}
    assert description["detector"] == detector_hash(run / "detector")
    assert description["versions"]["tensorflow"] == tf.__version__
