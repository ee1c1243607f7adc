"""`MaskRCNN.keras_model`, the network as scripts for Matterport's package take it apart, against `detect`."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from mrcnn.utils import denorm_boxes, norm_boxes

# Names that such scripts ask `get_layer` for.
LAYERS = [
    *("input_image", "input_image_meta", "input_anchors", "conv1", "res2a_branch2a", "fpn_p2", "fpn_p5", "fpn_p6"),
    *("rpn_model", "rpn_class", "rpn_bbox", "ROI", "roi_align_classifier", "mrcnn_class_conv1", "mrcnn_class_bn1"),
    *("mrcnn_class_logits", "mrcnn_class", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_detection", "roi_align_mask"),
    *("mrcnn_mask_conv1", "mrcnn_mask_bn4", "mrcnn_mask_deconv", "mrcnn_mask"),
]
NUM_ANCHORS = 3 * (256 + 64 + 16 + 4 + 1)


@pytest.fixture(scope="module")
def model(tiny_detector):
    return tiny_detector


@pytest.fixture(scope="module")
def images(draw_cell):
    return [draw_cell(1, 50)[0][:, :40], draw_cell(0)[0]]


@pytest.fixture(scope="module")
def outputs(model, images):
    """The seven outputs for both images, and what went in."""
    molded, metas, windows = model.mold_inputs(images)
    anchors = np.stack([model.get_anchors(molded.shape[1:])] * len(images))
    return [np.array(v) for v in model.keras_model([molded, metas.astype(np.float32), anchors])], windows


def test_keras_model_has_matterports_layers_inputs_and_outputs(model, outputs):
    assert {layer.name for layer in model.keras_model.layers} >= set(LAYERS)
    assert [tensor.name for tensor in model.keras_model.inputs] == ["input_image", "input_image_meta", "input_anchors"]
    (detections, mrcnn_class, mrcnn_bbox, mrcnn_mask, rois, rpn_class, rpn_bbox), _ = outputs
    assert detections.shape == (2, 6, 6) and rois.shape == (2, 30, 4)
    assert mrcnn_class.shape == (2, 30, 2) and mrcnn_bbox.shape == (2, 30, 2, 4)
    assert mrcnn_mask.shape == (2, 6, 28, 28, 2)
    assert rpn_class.shape == (2, NUM_ANCHORS, 2) and rpn_bbox.shape == (2, NUM_ANCHORS, 4)
    np.testing.assert_allclose(mrcnn_class.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(rpn_class.sum(axis=-1), 1, atol=1e-5)


def test_keras_model_finds_what_detect_finds(model, images, outputs):
    (detections, _, _, masks, *_), windows = outputs
    for i, (image, expected) in enumerate(zip(images, model.detect(images), strict=True)):
        boxes, class_ids, scores, full_masks = model.unmold_detections(
            detections[i], masks[i], image.shape, (64, 64, 3), windows[i]
        )
        assert len(scores) > 0
        np.testing.assert_array_equal(boxes, expected["rois"])
        np.testing.assert_array_equal(class_ids, expected["class_ids"])
        np.testing.assert_allclose(scores, expected["scores"], atol=1e-4)
        assert full_masks.shape == expected["masks"].shape and (full_masks != expected["masks"]).mean() < 1e-3


def test_keras_model_of_a_detector_of_nuclei_gives_the_masks_of_whole_cells(nucleus_detector, draw_cell):
    image = draw_cell(0)[0]
    (expected,) = nucleus_detector.detect([image])
    molded, metas, windows = nucleus_detector.mold_inputs([image])
    anchors = nucleus_detector.get_anchors(molded.shape[1:])[np.newaxis]
    detections, _, _, masks, *_ = nucleus_detector.keras_model([molded, metas.astype(np.float32), anchors])
    assert masks.shape == (1, 6, 56, 56, 2)
    shapes = image.shape, (64, 64, 3)
    boxes, _, _, full_masks = nucleus_detector.unmold_detections(detections[0], masks[0], *shapes, windows[0])
    # The scores of `detect` also tell how clearly the nucleus is seen, and so its order is another.
    order = [next(i for i, box in enumerate(boxes) if (box == wanted).all()) for wanted in expected["rois"]]
    assert len(order) > 1 and (full_masks[..., order] != expected["masks"]).mean() < 1e-3


def test_keras_model_shares_its_weights_with_detect(model):
    of_parts, of_graph = model.parts.named_layers(), model.keras_model.weighted_layers()
    assert {id(v) for layer in of_graph for v in layer.weights} == {id(v) for layer in of_parts for v in layer.weights}


def tensors(model, *names):
    return [(name, model.keras_model.get_layer(name).output) for name in names]


def test_run_graph_gives_tensors_by_name_those_of_rois_by_image(model, images, outputs):
    detections, probabilities, deltas, masks, rois, *_ = outputs[0]
    of_rois = ("mrcnn_class_logits", "mrcnn_bbox", "mrcnn_class_bn1", "roi_align_classifier", "pool_squeeze")
    of_detections = ("mrcnn_mask", "roi_align_mask", "mrcnn_mask_conv4")
    wanted = tensors(model, "ROI", "mrcnn_detection", "fpn_p3", "conv1", *of_rois, *of_detections)
    values = model.run_graph(images, wanted)
    assert list(values) == [name for name, _ in wanted]
    assert values["fpn_p3"].shape == (2, 8, 8, 32) and values["conv1"].shape == (2, 32, 32, 64)
    assert {values[name].shape[:2] for name in of_rois} == {(2, 30)}
    assert {values[name].shape[:2] for name in of_detections} == {(2, 6)}
    logits = np.exp(values["mrcnn_class_logits"])
    np.testing.assert_allclose(logits / logits.sum(axis=-1, keepdims=True), probabilities, atol=1e-5)
    found = {"ROI": rois, "mrcnn_detection": detections, "mrcnn_bbox": deltas, "mrcnn_mask": masks}
    for name, expected in found.items():
        np.testing.assert_allclose(values[name], expected, atol=1e-4)
    alone = model.run_graph(images[1:], tensors(model, "roi_align_classifier"))["roi_align_classifier"]
    np.testing.assert_allclose(values["roi_align_classifier"][1:], alone, atol=1e-4)


def test_run_graph_gives_the_steps_of_the_proposals(model, images, outputs):
    pillar = model.keras_model.get_layer("ROI").output
    steps = ("pre_nms_anchors", "refined_anchors", "refined_anchors_clipped", "rpn_non_max_suppression")
    values = model.run_graph(images, [(step, model.ancestor(pillar, f"ROI/{step}:0")) for step in steps])
    anchors, refined, clipped, kept = (values[step] for step in steps)
    everywhere = norm_boxes(model.anchors, model.config.IMAGE_SHAPE)
    assert anchors.shape == refined.shape == clipped.shape and anchors.shape[:1] == (2,)
    assert all(np.abs(everywhere - anchor).sum(axis=1).min() < 1e-5 for anchor in anchors[0, :20])
    np.testing.assert_allclose(clipped, np.clip(refined, 0, 1), atol=1e-6)
    np.testing.assert_allclose(clipped[0, kept], outputs[0][4][0, : len(kept)], atol=1e-5)


def test_run_graph_takes_molded_images_with_their_metas(model, images, outputs):
    molded, metas, _ = model.mold_inputs(images)
    values = model.run_graph(molded, tensors(model, "mrcnn_detection"), image_metas=metas)
    np.testing.assert_allclose(values["mrcnn_detection"], outputs[0][0], atol=1e-4)


def test_run_graph_refuses_a_tensor_of_another_network(model, images):
    nothing = model.ancestor(model.keras_model.outputs[0], "no_such_layer")
    with pytest.raises(ValueError, match="thing: None instead of a tensor"):
        model.run_graph(images, [("thing", nothing)])
    stranger = keras.layers.Dense(1, name="stranger")(keras.Input((2,)))
    with pytest.raises(ValueError, match="not connected"):
        model.run_graph(images, [("x", stranger)])


def test_ancestor_finds_the_tensor_on_the_way(model):
    detections = model.keras_model.outputs[0]
    for name in ("res2a_out", "res2a_out/Relu:0", "ROI", "ROI:0"):
        layer = model.keras_model.get_layer(name.split("/")[0].split(":")[0])
        assert model.ancestor(detections, name) is layer.output
    assert model.ancestor(detections, "ROI/rpn_non_max_suppression/NonMaxSuppressionV3:0").shape == (None,)
    assert model.ancestor(detections, "ROI/whatever:0") is model.ancestor(detections, "no_such_layer") is None


def test_get_anchors_normalises_those_in_pixels(model):
    anchors = model.get_anchors((64, 96, 3))
    assert anchors.dtype == np.float32 and len(anchors) == 3 * (16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2)
    np.testing.assert_allclose(denorm_boxes(anchors, (64, 96)), np.rint(model.anchors), atol=1)
    np.testing.assert_allclose(model.anchors[1], [-4, -4, 4, 4])


def test_trainable_layers_are_reached_by_matterports_names(model):
    names = {layer.name for layer in model.get_trainable_layers()}
    assert {"conv1", "fpn_c5p5", "rpn_class_raw", "mrcnn_mask"} <= names
    conv = keras.layers.Conv2D(2, 1)
    assert model.find_trainable_layer(keras.layers.TimeDistributed(conv)) is conv
    assert model.find_trainable_layer(conv) is conv


@pytest.mark.parametrize("name", ["of keras.weights.h5", "of matterport.h5"])
def test_keras_model_weights_round_trip_in_both_layouts(model, tmp_path, name):
    before, rng = model.parts.get_weights(), np.random.default_rng(0)
    values = [rng.uniform(0.5, 1.5, weight.shape).astype(np.float32) for weight in before]
    model.parts.set_weights(values)
    model.keras_model.save_weights(tmp_path / name)
    model.parts.set_weights(before)
    model.keras_model.load_weights(str(tmp_path / name), by_name=True)
    found = model.parts.get_weights()
    model.parts.set_weights(before)
    for value, expected in zip(found, values, strict=True):
        np.testing.assert_array_equal(value, expected)


HEAD_LAYERS = [
    *(f"mrcnn_class_{name}" for name in ("conv1", "bn1", "relu1", "conv2", "bn2", "relu2", "logits")),
    *("pool_squeeze", "mrcnn_class", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask_deconv", "mrcnn_mask"),
    *(f"mrcnn_mask_{name}{number}" for name in ("conv", "bn", "relu") for number in range(1, 5)),
]


def test_every_head_layer_has_its_place_between_the_inputs_and_outputs_of_the_model(model, images, outputs):
    tensors = [model.keras_model.get_layer(name).output for name in HEAD_LAYERS]
    assert {tuple(tensor.shape[:2]) for tensor in tensors} == {(None, 30), (None, 6)}
    molded, metas, _ = model.mold_inputs(images)
    inputs = [molded, metas.astype(np.float32), np.stack([model.get_anchors(molded.shape[1:])] * len(images))]
    values = dict(
        zip(HEAD_LAYERS, keras.Model(model.keras_model.input, tensors).predict(inputs, verbose=0), strict=True)
    )
    for name, expected in zip(("mrcnn_class", "mrcnn_bbox", "mrcnn_mask"), outputs[0][1:4], strict=True):
        np.testing.assert_allclose(values[name], expected, atol=1e-3)


FOREIGN = """
import sys
import keras
import numpy as np
import mrcnn.model
model = keras.saving.load_model(sys.argv[1])
with np.load(sys.argv[2]) as arrays:
    outputs = model([arrays[name] for name in ("image", "meta", "anchors")])
    for number, value in enumerate(outputs):
        np.testing.assert_allclose(value, arrays[f"arr_{number}"], atol=1e-4)
"""


def test_keras_model_opens_in_a_process_that_only_imports_the_package(model, images, outputs, tmp_path):
    model.keras_model.save(tmp_path / "detector.keras")
    molded, metas, _ = model.mold_inputs(images)
    anchors = np.stack([model.get_anchors(molded.shape[1:])] * len(images))
    np.savez(tmp_path / "io.npz", *outputs[0], image=molded, meta=metas.astype(np.float32), anchors=anchors)
    command = [sys.executable, "-c", FOREIGN, tmp_path / "detector.keras", tmp_path / "io.npz"]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]


def test_keras_model_is_harmless_to_servers_of_keras_2(model):
    assert model.keras_model._make_predict_function() is None
