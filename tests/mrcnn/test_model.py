import json
import os
from pathlib import Path

import numpy as np
import pytest

from mrcnn.config import make_config
from mrcnn.data.molding import parse_image_meta
from mrcnn.files.errors import InputError
from mrcnn.model import CONFIG_NAME, WEIGHTS_NAME, MaskRCNN, detector_hash, load_detector, log
from mrcnn.utils import norm_boxes


@pytest.fixture(scope="module")
def model(tiny_detector):
    return tiny_detector


@pytest.fixture(scope="module")
def images(draw_cell):
    """A square, a larger, a wide and a tiny image."""
    return [draw_cell(0)[0], draw_cell(1, 100)[0], draw_cell(2)[0][10:50], draw_cell(3)[0][:9, :7]]


@pytest.fixture(scope="module")
def results(model, images):
    return model.detect(images)


def test_detect_returns_matterports_keys_and_types(results, images):
    assert sum(len(result["scores"]) for result in results) > 0
    for image, result in zip(images, results, strict=True):
        assert set(result) == {"rois", "class_ids", "scores", "masks", "small_masks", "feats"}
        count = len(result["scores"])
        expected = {
            "rois": ((count, 4), np.int32),
            "class_ids": ((count,), np.int32),
            "scores": ((count,), np.float32),
            "masks": ((*image.shape[:2], count), bool),
            "small_masks": ((count, 28, 28), np.float32),
            "feats": ((count, 14, 14, 32), np.float32),
        }
        assert {name: (value.shape, value.dtype) for name, value in result.items()} == expected
        y1, x1, y2, x2 = result["rois"].T
        assert (0 <= y1).all() and (y1 < y2).all() and (y2 <= image.shape[0]).all()
        assert (0 <= x1).all() and (x1 < x2).all() and (x2 <= image.shape[1]).all()
        assert (np.diff(result["scores"]) <= 0).all() and (result["class_ids"] == 1).all()


def test_detect_does_not_depend_on_the_batch_nor_boxes_on_the_masks(model, results, images):
    for image, expected in zip(images, results, strict=True):
        (alone,) = model.detect([image], masks=False)
        assert "masks" not in alone and "small_masks" not in alone
        np.testing.assert_array_equal(alone["rois"], expected["rois"])
        np.testing.assert_allclose(alone["feats"], expected["feats"], atol=1e-3)


def test_mold_inputs_gives_matterports_three_arrays(model, images):
    molded, metas, windows = model.mold_inputs(images)
    assert molded.shape == (4, 64, 64, 3) and molded.dtype == np.float32
    parsed = parse_image_meta(metas)
    np.testing.assert_array_equal(parsed["window"], windows)
    np.testing.assert_array_equal(parsed["original_image_shape"], [image.shape for image in images])
    np.testing.assert_array_equal(parsed["image_shape"], [[64, 64, 3]] * 4)
    np.testing.assert_allclose(parsed["scale"], [1, 0.64, 1, 64 / 9], rtol=1e-6)
    for image, window, of_network in zip(images[:3:2], windows[::2], molded[::2], strict=True):
        y1, x1, y2, x2 = window
        expected = image.astype(np.float32) - np.array(model.config.MEAN_PIXEL, np.float32)
        np.testing.assert_allclose(of_network[y1:y2, x1:x2], expected)


def test_load_detector_gives_the_same_detections_or_none_above_a_score_of_one(model, results, images, small_resnet):
    with small_resnet():
        again, strict = (load_detector(model.model_dir, each) for each in ({}, {"DETECTION_MIN_CONFIDENCE": 1.0}))
    assert again.config.to_dict() == model.config.to_dict()
    for found, expected in zip(again.detect(images), results, strict=True):
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
    for image, result in zip(images, strict.detect(images), strict=True):
        assert result["rois"].shape == (0, 4) and result["masks"].shape == (*image.shape[:2], 0)
        assert result["feats"].shape == (0, 14, 14, 32)


def test_initial_weights_follow_the_seed_whatever_the_global_state(model, tiny_config_class, small_resnet):
    def kernels(model):
        return [layer.kernel.numpy() for layer in model.parts.named_layers() if hasattr(layer, "kernel")]

    configs = [make_config({"SEED": seed}, tiny_config_class) for seed in (model.config.SEED, 99)]
    with small_resnet():
        same, other = (MaskRCNN("inference", config, "unused") for config in configs)
    for a, b, c in zip(kernels(model), kernels(same), kernels(other), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.allclose(a, c)


def test_detector_hash_names_weights_and_settings(model, tmp_path):
    first = detector_hash(model.model_dir)
    model.save(tmp_path)
    (tmp_path / CONFIG_NAME).write_text((Path(model.model_dir) / CONFIG_NAME).read_text() + " ")
    assert first == detector_hash(model.model_dir) != detector_hash(tmp_path)


def test_load_weights_refuses_other_architectures_and_damaged_files(model, tiny_config_class, small_resnet, tmp_path):
    path = Path(model.model_dir) / WEIGHTS_NAME
    for overrides in ({"NUM_CLASSES": 3}, {"NORMALIZATION": "batch"}):
        with small_resnet():
            other = MaskRCNN("inference", make_config(overrides, tiny_config_class), "unused")
        with pytest.raises(InputError, match="or of another network"):
            other.load_weights(path)
    (tmp_path / WEIGHTS_NAME).write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=WEIGHTS_NAME):
        model.load_weights(tmp_path / WEIGHTS_NAME)


def test_load_detector_names_what_is_wrong_with_a_folder(model, tmp_path):
    with pytest.raises(InputError, match="no trained detector there"):
        load_detector(tmp_path)
    (tmp_path / WEIGHTS_NAME).write_bytes((Path(model.model_dir) / WEIGHTS_NAME).read_bytes())
    before = {name: value for name, value in model.config.to_dict().items() if name != "ROI_ALIGN"}
    faults = {"{": "not valid JSON", '{"backbones": "resnet50"}': "config.json: .*did you mean .BACKBONE"}
    for settings, message in {**faults, json.dumps(before): "train it again"}.items():
        (tmp_path / CONFIG_NAME).write_text(settings)
        with pytest.raises(InputError, match=message):
            load_detector(tmp_path)


def test_what_cannot_be_is_refused(model, cell_dataset, tmp_path):
    with pytest.raises(InputError, match="training or inference; got 'test'"):
        MaskRCNN("test", model.config, "unused")
    with pytest.raises(InputError, match="mode='training'"):
        model.train(cell_dataset(1), [], 1e-3, 1, "all")
    with pytest.raises(InputError, match="must be an array of"):
        model.detect([np.zeros((64, 64, 3), "U1")])
    with pytest.raises(InputError, match="no such weights file"):
        model.load_weights(tmp_path / WEIGHTS_NAME)
    with pytest.raises(FileNotFoundError, match="no checkpoint of 'tiny' there"):
        model.find_last()


def test_fewer_anchor_scales_than_levels_train_and_detect(tiny_config_class, small_resnet, cell_dataset, tmp_path):
    """Matterport lays the anchors of scale i on level i, and levels beyond have none."""
    config = make_config({"RPN_ANCHOR_SCALES": (16, 32), "DETECTION_MIN_CONFIDENCE": 0}, tiny_config_class)
    with small_resnet():
        model = MaskRCNN("training", config, tmp_path)
        model.train(cell_dataset(2), [], 1e-3, 1, "all")
        model = load_detector(model.log_dir)
    assert model.anchors.shape == (3 * (256 + 64), 4) and model.config.RPN_LEVELS == ("P2", "P3")
    np.testing.assert_allclose(model.get_anchors((64, 64)), norm_boxes(model.anchors, (64, 64)), atol=1e-6)
    (found,) = model.detect([cell_dataset(1).load_image(0)])
    (molded,) = model.detect_molded(*model.mold_inputs([cell_dataset(1).load_image(0)])[:2])
    outputs = model.run_graph(
        [cell_dataset(1).load_image(0)], [("rpn", model.keras_model.get_layer("rpn_class").output)]
    )
    assert outputs["rpn"].shape == (1, 960, 2)
    np.testing.assert_array_equal(found["rois"], molded["rois"])


def test_set_trainable_goes_by_layer_name(model):
    learning = {}
    for layers in ("heads", "5+", "res", ".*"):  # the whole name has to match, which is that of no layer with "res"
        model.set_trainable(layers)
        learning[layers] = {layer.name for layer in model.parts.named_layers() if layer.trainable and layer.weights}
    assert "mrcnn_class_logits" in learning["heads"] and "res5a_branch2a" not in learning["heads"]
    assert "res5a_branch2a" in learning["5+"] and "res4a_branch2a" not in learning["5+"]
    assert not learning["res"] and learning["5+"] < learning[".*"]


def test_mask_rcnn_begins_a_dated_run_in_its_folder(model):
    folder, name = os.path.split(model.log_dir)  # text, as scripts add to it
    assert folder == str(model.model_dir) and name.startswith("tiny20") and model.epoch == 0
    assert not os.path.exists(model.log_dir)


def test_anchors_are_there_before_and_after_detection(tiny_config_class, small_resnet, tmp_path):
    with small_resnet():
        model = MaskRCNN("inference", make_config({"IMAGE_RESIZE_MODE": "pad64"}, tiny_config_class), tmp_path)
    before = model.anchors
    model.detect([np.zeros((64, 64, 3), np.uint8)], masks=False)
    np.testing.assert_array_equal(model.anchors, before)
    molded, metas, _ = model.mold_inputs([np.zeros((64, 64, 3), np.uint8)])
    model.detect_molded(np.concatenate([molded, molded], axis=2), metas)
    assert len(model.anchors) == 2 * len(before)  # images twice as wide


def test_detect_takes_images_of_other_types(model, images, results, capsys):
    (found,) = model.detect([images[0].astype(float)], verbose=1, masks=False)
    assert len(found["rois"]) == len(results[0]["rois"]) > 0
    np.testing.assert_allclose(found["scores"], results[0]["scores"], atol=1e-4)
    assert "Processing 1 images" in capsys.readouterr().out


def test_log_prints_a_text_and_what_an_array_holds(capsys):
    log("image", np.array([[1, 5]], np.uint8))
    log("nothing", np.zeros((0, 4)))
    log("plain")
    first, second, third = capsys.readouterr().out.splitlines()
    assert all(part in first for part in ("image", "(1, 2)", "1.00000", "5.00000", "uint8"))
    assert "(0, 4)" in second and "float64" in second and third == "plain"
