"""Runs the scripts of examples/matterport as users of Matterport's package would."""

import csv
import hashlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "examples" / "matterport"
HEADS = ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")

pytestmark = pytest.mark.slow


@pytest.fixture
def run(monkeypatch, project, small_resnet):
    """Function `(script name, *arguments)` that runs a script in this process and returns its global names."""

    def run_script(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.syspath_prepend(SCRIPTS)  # as Python does for a script
        tf.config.run_functions_eagerly(True)  # compiling does not pay for the few steps of a script
        try:
            with small_resnet():
                return runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        finally:
            tf.config.run_functions_eagerly(False)

    return run_script


@pytest.fixture(scope="module")
def weights_folder(tmp_path_factory, small_resnet):
    """Files in Matterport's layout: coco.h5 (81 classes), backbone.h5 and leaning.h5 (4 classes, seldom background)."""
    folder = tmp_path_factory.mktemp("weights")
    with small_resnet():
        write_weights(folder / "coco.h5", num_classes=81)
        write_weights(folder / "backbone.h5", num_classes=2, prefixes=("conv1", "bn", "res"))
        write_weights(folder / "leaning.h5", num_classes=4, class_bias=[-5.0, 0.0, 5.0, 0.0])
    return folder


def write_weights(path, num_classes, prefixes=("",), class_bias=None, **settings):
    """Write random weights whose activations stay small, as trained ones do."""
    from mrcnn.config import Config
    from mrcnn.network.assembly import DetectorParts
    from mrcnn.training.weights import save_matterport

    settings |= {"NAME": "file", "BACKBONE": "resnet50", "NUM_CLASSES": num_classes}
    config_class = type("FileConfig", (Config,), settings)
    layers = DetectorParts(config_class()).named_layers()
    by_name = {layer.name: layer for layer in layers}
    by_name["conv1"].kernel.assign(by_name["conv1"].kernel / 100.0)
    for name, layer in by_name.items():
        if name.startswith("bn") and name.endswith("branch2c"):
            layer.gamma.assign(0.1 * np.ones(layer.gamma.shape, np.float32))
    if class_bias is not None:
        by_name["mrcnn_class_logits"].bias.assign(class_bias)
    save_matterport([layer for layer in layers if layer.name.startswith(prefixes)], path)


def stored(path, layer, kind="kernel"):
    """One weight of a file in Matterport's layout."""
    with h5py.File(path) as file:
        return file[f"{layer}/{layer}/{kind}:0"][()]


def check_result(result, image):
    """What `detect` promises for one image."""
    count = len(result["rois"])
    assert result["rois"].shape == (count, 4)
    assert result["class_ids"].shape == result["scores"].shape == (count,)
    assert result["masks"].shape == (*image.shape[:2], count) and result["masks"].dtype == bool
    assert result["feats"].shape == (count, 14, 14, 256)
    y1, x1, y2, x2 = result["rois"].T
    assert (y1 < y2).all() and (x1 < x2).all() and (result["rois"] >= 0).all()
    assert (y2 <= image.shape[0]).all() and (x2 <= image.shape[1]).all()
    return count


def test_balloon_trains_goes_on_and_splashes(run, project, coins, weights_folder, monkeypatch):
    from mrcnn.training import imagenet as downloads

    monkeypatch.setattr(downloads, "COCO_MODEL_URL", (weights_folder / "coco.h5").as_uri())
    monkeypatch.setattr(downloads, "COCO_HASH", hashlib.md5((weights_folder / "coco.h5").read_bytes()).hexdigest())
    run("balloon.py", "train", "--dataset", coins, "--weights=coco")
    fetched = project / "mask_rcnn_coco.h5"
    assert fetched.read_bytes() == (weights_folder / "coco.h5").read_bytes()
    (first,) = project.glob("logs/coin*/mask_rcnn_coin_0001.h5")
    # Heads learn, the backbone stays as it was loaded; 81 classes became 2.
    np.testing.assert_array_equal(stored(first, "conv1"), stored(fetched, "conv1"))
    assert not np.array_equal(stored(first, "fpn_p2"), stored(fetched, "fpn_p2"))
    assert stored(first, "mrcnn_class_logits").shape == (1024, 2)

    run("balloon.py", "train", "--dataset", coins, "--weights=last", "--epochs=2")
    assert [p.name[-7:] for p in sorted(first.parent.glob("mask_rcnn_coin_*.h5"))] == ["0001.h5", "0002.h5"]

    names = run("balloon.py", "splash", "--weights=last", "--image", coins / "val" / "4.png")
    assert names["model"].find_last().endswith("mask_rcnn_coin_0002.h5")
    image = cv2.imread(str(coins / "val" / "4.png"))[..., ::-1]
    check_result(names["result"], image)
    (splash,) = project.glob("samples/mine/splash_*.png")
    picture, inside = cv2.imread(str(splash))[..., ::-1], names["result"]["masks"].any(axis=-1)
    np.testing.assert_array_equal(picture[inside], image[inside])
    assert (np.ptp(picture[~inside].astype(int), axis=-1) == 0).all()


def test_shapes_trains_in_two_steps_and_looks_inside(run, project, weights_folder):
    (project / "mask_rcnn_coco.h5").write_bytes((weights_folder / "coco.h5").read_bytes())
    names = run("shapes.py", "train", "--weights=coco")

    num_anchors = 3 * (16**2 + 8**2 + 4**2 + 2**2 + 1)
    shapes = {"rpn_match": (2, num_anchors, 1), "batch_anchors": (num_anchors, 4), "rois": (2, 8, 4)}
    shapes |= {"mrcnn_class_ids": (2, 8, 1), "mrcnn_bbox": (2, 8, 4, 4), "mrcnn_mask": (2, 8, 28, 28, 4)}
    assert {name: names[name].shape for name in shapes} == shapes

    first, second = sorted(project.glob("logs/shapes*/mask_rcnn_shapes_*.h5"))
    assert (first.name, second.name) == ("mask_rcnn_shapes_0001.h5", "mask_rcnn_shapes_0002.h5")
    assert names["model_path"] == str(second)
    coco, saved = project / "mask_rcnn_coco.h5", names["saved_path"]
    np.testing.assert_array_equal(stored(first, "conv1"), stored(coco, "conv1"))
    assert not np.array_equal(stored(second, "conv1"), stored(coco, "conv1"))
    for layer in ("conv1", "fpn_p2", *HEADS):
        np.testing.assert_array_equal(stored(saved, layer), stored(second, layer))

    check_result(names["r"], names["original_image"])
    np.testing.assert_array_equal(names["molded_results"][0]["rois"], names["r"]["rois"])
    shapes = {"rpn_class": (num_anchors, 2), "proposals": (30, 4), "probs": (30, 4), "deltas": (30, 4, 4)}
    shapes |= {"detections": (8, 6), "masks": (8, 28, 28, 4)}
    assert {name: value.shape[1:] for name, value in names["activations"].items()} == shapes
    assert 0 <= names["AP"] <= 1 and 0 <= names["recall_of_proposals"] <= 1


def decode_lengths(text, shape):
    mask = np.zeros(shape[0] * shape[1], bool)
    numbers = [int(v) for v in text.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        mask[start - 1 : start - 1 + length] = True
    return mask.reshape(shape[1], shape[0]).T


def test_nucleus_trains_on_crops_and_writes_a_submission(run, project, grains, weights_folder, monkeypatch):
    from mrcnn.model import MaskRCNN

    monkeypatch.setattr(MaskRCNN, "get_imagenet_weights", lambda self: str(weights_folder / "backbone.h5"))
    run("nucleus.py", "train", "--dataset", grains, "--subset=train", "--weights=imagenet")
    found = sorted(project.glob("logs/grain*/mask_rcnn_grain_*.h5"))
    assert [p.name for p in found] == ["mask_rcnn_grain_0001.h5", "mask_rcnn_grain_0002.h5"]
    kernels = [stored(p, "conv1") for p in (weights_folder / "backbone.h5", *found)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[1], kernels[2])

    names = run("nucleus.py", "detect", "--dataset", grains, "--subset=test", "--weights=last")
    assert tuple(names["config"].MEAN_PIXEL) == (120.5, 95.0, 60.0)
    folder = Path(names["submit_dir"])
    assert folder.parent == project / "results" / "grain"
    assert sorted(p.name for p in folder.iterdir()) == ["grain005.png", "grain006.png", "submit.csv"]
    header, *lines = (folder / "submit.csv").read_text().splitlines()
    assert header == "ImageId,EncodedPixels"
    rows = [line.split(",") for line in lines]
    for name, (image, result) in zip(("grain005", "grain006"), names["results"], strict=True):
        check_result(result, image)
        pasted = [decode_lengths(text, image.shape[:2]) for source, text in rows if source == name]
        np.testing.assert_array_equal(np.any(pasted, axis=0), result["masks"].any(axis=-1))


def test_coco_trains_in_two_stages_with_crowds(run, project, coco_data, weights_folder, monkeypatch):
    from mrcnn.model import MaskRCNN

    monkeypatch.setattr(MaskRCNN, "get_imagenet_weights", lambda self: str(weights_folder / "backbone.h5"))
    names = run("coco.py", "train", "--dataset", coco_data, "--weights=imagenet")
    dataset = names["dataset_train"]
    crowded = dataset.load_mask(0)
    np.testing.assert_array_equal(crowded[1], [2, 1, -3])
    assert crowded[0][:10, 50:, 2].all() and crowded[0][..., 2].sum() == 140
    assert dataset.load_mask(4)[0].shape == (56, 64, 0)

    first, second = sorted(project.glob("logs/cells*/mask_rcnn_cells_*.h5"))
    np.testing.assert_array_equal(
        stored(first, "res4a_branch2a"), stored(weights_folder / "backbone.h5", "res4a_branch2a")
    )
    assert not np.array_equal(stored(second, "res4a_branch2a"), stored(first, "res4a_branch2a"))
    np.testing.assert_array_equal(stored(second, "res3a_branch2a"), stored(first, "res3a_branch2a"))


@pytest.mark.parametrize("eval_type", ["segm", "bbox"])
def test_coco_evaluates_with_pycocotools(run, coco_data, weights_folder, eval_type):
    leaning = weights_folder / "leaning.h5"
    names = run("coco.py", "evaluate", "--dataset", coco_data, "--weights", leaning, "--type", eval_type)
    assert names["evaluation"].stats.shape == (12,)
    assert names["evaluation"].params.iouType == eval_type
    assert {entry["image_id"] for entry in names["results"]} <= {6, 7, 8}
    # Internal class 2 is the one of COCO's id 7.
    assert {entry["category_id"] for entry in names["results"]} == {7}
    image = names["dataset_val"].load_image(0)
    (result,) = names["model"].detect([image])
    assert check_result(result, image) > 0 and set(result["class_ids"]) == {2}


def losses(folder):
    """Columns of a run's log.csv as numbers, by name."""
    with open(folder / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def test_phone_photos_are_taken_as_stored_and_the_best_weights_found(run, project, photos, weights_folder):
    from mrcnn.model import load_image_gt

    backbone = weights_folder / "backbone.h5"
    names = run("phone_photos.py", "train", "--dataset", photos, "--weights", backbone, "--epochs=3")
    config = names["PhotoConfig"]()
    for dataset in (names["dataset_train"], names["dataset_val"]):
        for image_id in dataset.image_ids:
            image, _, _, boxes, _ = load_image_gt(dataset, config, image_id)
            blue = (image[..., 2].astype(int) - image[..., 0]) > 40
            inside = [blue[y1:y2, x1:x2] for y1, x1, y2, x2 in boxes]
            assert sum(part.sum() for part in inside) >= 0.98 * blue.sum() > 0
            assert all(part.mean() > 0.5 for part in inside)

    (folder,) = project.glob("logs/photo*")
    best = int(np.argmin(losses(folder)["val_loss"])) + 1
    names = run("phone_photos.py", "detect", "--dataset", photos, "--weights=best.weights.h5")
    checkpoint = folder / f"mask_rcnn_photo_{best:04}.h5"
    for layer in ("conv1", "fpn_p2", *HEADS):
        loaded = names["model"].keras_model.get_layer(layer).get_weights()[0]
        np.testing.assert_array_equal(loaded, stored(checkpoint, layer))
    assert [check_result(r, np.zeros((48, 80, 3))) for r in names["results"]]


def test_early_stop_goes_on_with_the_best_weights_at_the_next_stage(run, project, grains, weights_folder):
    arguments = "--subset=train", "--weights", weights_folder / "backbone.h5", "--epochs=4"
    stages = run("early_stop.py", "train", "--dataset", grains, *arguments)["log"].stages
    assert [stage["epochs"] for stage in stages] == [[1, 2], [5, 6]]
    (folder,) = project.glob("logs/staged*")
    checkpoints = sorted(folder.glob("mask_rcnn_*.h5"))
    assert [path.name[-7:-3] for path in checkpoints] == ["0001", "0002", "0005", "0006"]
    # The first epoch of each stage is its best: no later loss is lower by so much.
    heads, whole = (project / "logs" / f"grain_{layers}.h5" for layers in ("heads", "all"))
    for layer in ("conv1", "fpn_p2", *HEADS):
        np.testing.assert_array_equal(stored(heads, layer), stored(checkpoints[0], layer))
        np.testing.assert_array_equal(stored(whole, layer), stored(checkpoints[2], layer))
    np.testing.assert_array_equal(stages[1]["kernel"], stored(heads, "fpn_p2"))
    assert not np.array_equal(stored(checkpoints[1], "fpn_p2"), stages[1]["kernel"])


def test_pneumonia_chooses_the_best_epoch_by_the_history(run, project, x_rays, weights_folder):
    arguments = "--dataset", x_rays, "--weights", weights_folder / "backbone.h5", "--epochs=2"
    names = run("pneumonia.py", "train", *arguments)
    dataset = names["load_dataset"]("train")
    np.testing.assert_array_equal(dataset.load_mask(0)[1], [1, 1])
    masks, class_ids = dataset.load_mask(2)
    assert masks.shape == (64, 64, 1) and not masks.any() and class_ids == [0]

    (folder,) = project.glob("logs/pneumonia*")
    terms = ["loss", *(f"{name}_loss" for name in ("rpn_class", "rpn_bbox", "mrcnn_class", "mrcnn_bbox", "mrcnn_mask"))]
    assert {*terms, *(f"val_{name}" for name in terms)} <= names["history"].keys()
    for name in ("loss", "val_loss", "val_mrcnn_mask_loss"):
        np.testing.assert_allclose(names["history"][name], losses(folder)[name], rtol=1e-5)
    best = int(np.argmin(losses(folder)["val_loss"])) + 1
    assert Path(names["model_path"]) == folder / f"mask_rcnn_pneumonia_{best:04}.h5"

    model = names["model"]
    np.testing.assert_array_equal(
        model.keras_model.get_layer("mrcnn_mask").get_weights()[0], stored(names["model_path"], "mrcnn_mask")
    )
    assert model.get_anchors((64, 64, 3)).shape == (3 * (16**2 + 8**2 + 4**2 + 2**2), 4)
    header, line = (project / "samples" / "mine" / "submission.csv").read_text().splitlines()
    assert header == "patientId,PredictionString" and line.startswith("p6,")
    # So few steps teach it that all is background.
    logits = model.keras_model.get_layer("mrcnn_class_logits")
    logits.set_weights([np.zeros((1024, 2)), np.array([-5.0, 5.0])])
    dataset = names["load_dataset"]("test")
    (result,) = model.detect([dataset.load_image(0)])
    found = np.array(names["predict"](model, dataset)[1].removeprefix("p6,").split(), float).reshape(-1, 5)
    np.testing.assert_allclose(found[:, 0], result["scores"], atol=1e-3)
    np.testing.assert_array_equal(found[:, [2, 1]], result["rois"][:, :2])
    np.testing.assert_array_equal(found[:, [2, 1]] + found[:, [4, 3]], result["rois"][:, 2:])
    assert len(found) > 0


def test_server_answers_at_once_what_it_answers_in_sequence(run, coco_data, weights_folder):
    folder = coco_data / "train2030"
    names = run("server.py", "try", "--dataset", folder, "--weights", weights_folder / "leaning.h5")
    assert len(names["answers"]) == 5
    for path, answer in zip(names["paths"], names["answers"], strict=True):
        (result,) = names["model"].detect([cv2.imread(path)[..., ::-1]])
        assert answer["rois"] == result["rois"].tolist() != []
        assert answer["class_ids"] == result["class_ids"].tolist()
        assert answer["areas"] == result["masks"].sum(axis=(0, 1)).tolist()
        np.testing.assert_allclose(answer["scores"], result["scores"], rtol=1e-6)


def test_own_anchors_maps_classes_evaluates_and_saves_the_network(run, coco_data, small_resnet, tmp_path):
    with small_resnet():
        write_weights(tmp_path / "start.h5", 3, class_bias=[-5.0, 0.0, 5.0], RPN_ANCHOR_RATIOS=[0.5, 1, 1.5, 2])
    arguments = "--dataset", coco_data, "--weights", tmp_path / "start.h5", "--type=bbox"
    names = run("own_anchors.py", "train", *arguments)
    assert names["dataset_train"].class_names == ["BG", "red", "white"]
    np.testing.assert_array_equal(names["dataset_train"].load_mask(0)[1], [2, 1, -1])
    assert names["truth"].stats[0] == 1
    assert names["evaluation"].params.iouType == "bbox" and names["evaluation"].stats.shape == (12,)
    assert {entry["category_id"] for entry in names["results"]} == {7}

    # Four ratios in every second place of each level
    num_anchors = 4 * (8**2 + 4**2 + 2**2 + 1 + 1)
    assert names["anchors"].shape == (1, num_anchors, 4)
    assert names["outputs"][0][5].shape == (1, num_anchors, 2)
    for own, opened in zip(*names["outputs"], strict=True):
        np.testing.assert_allclose(own, opened, atol=1e-5)
    (result,) = names["model"].detect([names["image"]])
    assert check_result(result, names["image"]) > 0
    np.testing.assert_array_equal(names["rois"], result["rois"])
    np.testing.assert_array_equal(names["class_ids"], result["class_ids"])
    np.testing.assert_array_equal(names["masks"], result["masks"])


def test_inspect_model_shows_the_heads_layer_by_layer(run, weights_folder):
    names = run("inspect_model.py", "look", "--weights", weights_folder / "leaning.h5")
    boxes = names["gt_boxes"][0][names["gt_boxes"][0].any(axis=1)]
    moved = names["refined"][names["class_ids"] > 0]
    assert len(moved) > 0 and (np.abs(moved[:, None] - boxes).max(axis=-1).min(axis=1) < 1e-3).all()

    rois, found = (1, 30), (1, 8)
    shapes = {"ROI": (*rois, 4), "roi_align_classifier": (*rois, 7, 7, 256), "mrcnn_class_conv1": (*rois, 1, 1, 1024)}
    shapes |= {"mrcnn_class_logits": (*rois, 4), "mrcnn_class": (*rois, 4), "mrcnn_bbox_fc": (*rois, 16)}
    shapes |= {"mrcnn_bbox": (*rois, 4, 4), "mrcnn_detection": (*found, 6), "roi_align_mask": (*found, 14, 14, 256)}
    shapes |= {f"mrcnn_mask_conv{i}": (*found, 14, 14, 256) for i in (1, 2, 3, 4)}
    shapes |= {"mrcnn_mask_deconv": (*found, 28, 28, 256), "mrcnn_mask": (*found, 28, 28, 4)}
    values = names["activations"]
    assert {name: value.shape for name, value in values.items()} == shapes
    for name, value in values.items():
        np.testing.assert_allclose(value, names["heads"][name], atol=1e-5)
    np.testing.assert_allclose(
        scipy.special.softmax(values["mrcnn_class_logits"], -1), values["mrcnn_class"], atol=1e-6
    )
    np.testing.assert_array_equal(values["mrcnn_bbox_fc"].reshape(*rois, 4, 4), values["mrcnn_bbox"])

    assert check_result(names["r"], names["image"]) == len(names["masks"]) > 0
    np.testing.assert_array_equal(names["boxes"][: len(names["masks"])], names["r"]["rois"])
    np.testing.assert_array_equal(np.stack(names["masks"], -1), names["r"]["masks"])
    assert {name: int(count.sum()) for name, count in names["counts"].items()} == {
        name: names["model"].keras_model.get_layer(name).get_weights()[0].size for name in names["counts"]
    }


def test_balloon_as_a_process_with_the_whole_backbone(project, coins):
    write_weights(project / "mask_rcnn_coco.h5", num_classes=81)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    command = [sys.executable, SCRIPTS / "balloon.py", "train", "--dataset", coins, "--weights=coco"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "IMAGE_MAX_DIM" in done.stdout and "Training network heads" in done.stdout
    (checkpoint,) = project.glob("logs/coin*/mask_rcnn_coin_0001.h5")
    assert np.isfinite(stored(checkpoint, "mrcnn_class_logits")).all()
