import json

import numpy as np
import pytest

from mrcnn.config import Config, SmearConfig, make_config, setting_names
from mrcnn.data.molding import mold_for_detection
from mrcnn.files.errors import InputError


def test_config_computes_batch_and_image_shape():
    class Shapes(Config):
        GPU_COUNT, IMAGES_PER_GPU, IMAGE_MIN_DIM, IMAGE_MAX_DIM, NUM_CLASSES = 2, 3, 128, 192, 4

    config = Shapes()
    assert config.BATCH_SIZE == 6
    np.testing.assert_array_equal(config.IMAGE_SHAPE, [192, 192, 3])
    assert config.IMAGE_META_SIZE == 12 + 4


def test_config_defaults_are_matterports():
    config = Config()
    assert (config.BACKBONE, config.LEARNING_RATE, config.WEIGHT_DECAY) == ("resnet101", 0.001, 0.0001)
    assert (config.TRAIN_ROIS_PER_IMAGE, config.DETECTION_NMS_THRESHOLD) == (200, 0.3)
    assert config.normalization == "frozen_batch"
    assert (config.ROI_ALIGN, config.STEM_PADDING, config.OPTIMIZER) == ("matterport", "same", "sgd")
    assert config.RPN_LEVELS == ("P2", "P3", "P4", "P5", "P6")


@pytest.mark.parametrize(
    ("overrides", "shape"),
    [
        ({}, (1024, 1024, 3)),
        ({"IMAGE_RESIZE_MODE": "crop", "IMAGE_MIN_DIM": 512}, (512, 512, 3)),
        ({"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 0}, (1024, 1024, 3)),
        ({"IMAGE_RESIZE_MODE": "none", "IMAGE_MIN_DIM": 900}, (1024, 1024, 3)),
        ({"IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": [120]}, (1024, 1024, 1)),
    ],
)
def test_config_image_shape_follows_mode_and_channels(overrides, shape):
    np.testing.assert_array_equal(make_config(overrides, Config).IMAGE_SHAPE, shape)


def test_config_takes_arrays_and_lists_as_matterports_scripts_give_them():
    class Mine(Config):
        MEAN_PIXEL = np.array([43.53, 39.56, 48.22])
        BACKBONE_STRIDES = [4, 8, 16, 32, 64]
        RPN_BBOX_STD_DEV = np.array([0.1, 0.1, 0.2, 0.2])
        MASK_SHAPE = [28, 28]
        RPN_ANCHOR_SCALES = [8, 16, 32, 64, 128]

    again = make_config(json.loads(json.dumps(Mine().to_dict())), Config)
    np.testing.assert_array_equal(again.MEAN_PIXEL, [43.53, 39.56, 48.22])
    assert again.RPN_ANCHOR_SCALES == (8, 16, 32, 64, 128)


def test_config_gives_arrays_where_scripts_compute_with_them():
    config = Config()
    np.testing.assert_allclose(config.MEAN_PIXEL / 255.0, [0.4851, 0.458, 0.4075], atol=1e-4)
    assert config.BBOX_STD_DEV.reshape(1, 4).astype(np.float32).dtype == np.float32


@pytest.mark.parametrize("overrides", [{"IMAGE_MAX_DIM": 512}, {"IMAGE_MIN_DIM": None, "IMAGE_MAX_DIM": 128}])
def test_config_needs_no_least_side_below_the_largest(overrides):
    config = type("Mine", (Config,), overrides)()
    image = np.zeros((100, 200, 3), np.uint8)
    molded = mold_for_detection(image, config)
    assert molded.image.shape == (config.IMAGE_MAX_DIM,) * 2 + (3,)
    assert molded.scale == config.IMAGE_MAX_DIM / 200


def test_config_of_a_script_is_written_and_read_whatever_it_added(tmp_path):
    class Mine(Config):
        STEPS_PER_EPOCH = 25 / 2
        WHERE = tmp_path
        WEIGHTS_BY_CLASS = {1: np.float32(0.5), 2: np.array([1, 2])}

    settings = json.loads(json.dumps(Mine().to_dict()))
    again = make_config(settings, Config, keep_unknown=True)
    assert (again.STEPS_PER_EPOCH, again.WHERE) == (13, str(tmp_path))
    assert again.WEIGHTS_BY_CLASS == {"1": 0.5, "2": [1, 2]}


def test_config_display_shows_what_is_computed_and_what_was_set_later(capsys):
    config = Config()
    config.MY_OWN = "thing"
    config.display()
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if len(line.split()) > 1)
    assert shown["IMAGE_SHAPE"] == "[1024, 1024, 3]" and shown["BATCH_SIZE"] == "2" and shown["MY_OWN"] == "thing"


def test_make_config_keeps_what_a_subclass_added_when_asked():
    class Mine(Config):
        WHERE_FROM = "Basel"

    settings = Mine().to_dict()
    assert make_config(settings, Config, keep_unknown=True).WHERE_FROM == "Basel"
    with pytest.raises(InputError, match="'WHERE_FROM' is unknown"):
        make_config(settings, Config)
    with pytest.raises(InputError, match="did you mean LEARNING_RATE"):
        make_config({"learning_rate": 1}, Config, keep_unknown=True)


def test_smear_config_trains_as_the_thesis_does():
    config = SmearConfig()
    assert (config.OPTIMIZER, config.LEARNING_RATE, config.normalization) == ("adam", 1e-3, "group")
    assert (config.NUM_CLASSES, config.AUGMENTATION, config.AUGMENTATION_SHARE) == (2, "thesis", 0.5)


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [({"TRAIN_BN": True}, "batch"), ({"TRAIN_BN": True, "NORMALIZATION": "group"}, "group")],
)
def test_config_normalization_follows_train_bn_unless_it_is_named(overrides, kind):
    assert make_config(overrides, Config).normalization == kind


def test_make_config_survives_json():
    first = make_config({"RPN_ANCHOR_SCALES": [8, 16, 32, 64, 96], "LEARNING_RATE": 2e-4, "SEED": 7})
    again = make_config(json.loads(json.dumps(first.to_dict())), Config)
    assert again.to_dict() == first.to_dict()
    assert again.RPN_ANCHOR_SCALES == (8, 16, 32, 64, 96)
    assert again.normalization == "group"


def test_make_config_leaves_the_base_class_alone():
    make_config({"LEARNING_RATE": 0.5, "LOSS_WEIGHTS": {"mrcnn_mask_loss": 2.0}})
    assert SmearConfig.LEARNING_RATE == 0.001
    assert SmearConfig.LOSS_WEIGHTS["mrcnn_mask_loss"] == 1.0


def test_make_config_merges_loss_weights():
    weights = make_config({"LOSS_WEIGHTS": {"mrcnn_mask_loss": 2.0}}).LOSS_WEIGHTS
    assert weights["mrcnn_mask_loss"] == 2.0 and weights["rpn_class_loss"] == 1.0


@pytest.mark.parametrize("whole", [0, 1])
def test_make_config_of_a_whole_number_for_a_fraction_takes_a_fraction_again(whole):
    trained = type(make_config({"DETECTION_MIN_CONFIDENCE": whole}))
    assert make_config({"DETECTION_MIN_CONFIDENCE": 0.05}, trained).DETECTION_MIN_CONFIDENCE == 0.05


def test_make_config_takes_whole_floats_for_counts():
    epochs = make_config({"STEPS_PER_EPOCH": 10.0}).STEPS_PER_EPOCH
    assert epochs == 10 and isinstance(epochs, int)
    assert make_config({"IMAGE_MIN_SCALE": 1.5}).IMAGE_MIN_SCALE == 1.5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"LERNING_RATE": 1}, "did you mean LEARNING_RATE"),
        ({"learning_rate": 1}, "did you mean LEARNING_RATE"),
        ({"XYZZY": 1}, "'XYZZY' is unknown$"),
        ({"AUGMENTATION_ZOOM": [1.6, 0.5]}, "AUGMENTATION_ZOOM must be two factors above 0, the least first"),
        ({"AUGMENTATION_ZOOM": [0.0, 1.0]}, "AUGMENTATION_ZOOM must be two factors above 0"),
        ({"AUGMENTATION_LEAST_RATIO": 0.0}, "AUGMENTATION_LEAST_RATIO must lie between 0.1 and 1"),
        ({"AUGMENTATION_ZOOM": [1.0]}, "AUGMENTATION_ZOOM must be two factors above 0"),
        ({"LEARNING_RATE": "fast"}, "LEARNING_RATE must be a number"),
        ({"LEARNING_RATE": None}, "LEARNING_RATE must be a number"),
        ({"LEARNING_RATE": True}, "LEARNING_RATE must be a number or a name"),
        ({"MAX_GT_INSTANCES": 2.5}, "MAX_GT_INSTANCES must be a whole number"),
        ({"SEED": None}, "SEED must be a number"),
        ({"STEPS_PER_EPOCH": float("nan")}, "STEPS_PER_EPOCH must be a whole number"),
        ({"USE_MINI_MASK": 1}, "USE_MINI_MASK must be true or false"),
        ({"RPN_ANCHOR_SCALES": 32}, "RPN_ANCHOR_SCALES must be a list"),
        ({"MEAN_PIXEL": ["red", 1, 2]}, "MEAN_PIXEL must be a list of numbers"),
        ({"LOSS_WEIGHTS": {"mask": 1}}, "LOSS_WEIGHTS does not know mask"),
        ({"LOSS_WEIGHTS": 1}, "LOSS_WEIGHTS does not know 1"),
        ({"BACKBONE": "vgg"}, "BACKBONE must be one of resnet50, resnet101"),
        ({"OPTIMIZER": "lion"}, "OPTIMIZER must be one of"),
        ({"AUGMENTATION": "wild"}, "AUGMENTATION must be one of"),
        ({"NORMALIZATION": "layer"}, "NORMALIZATION must be one of"),
        ({"IMAGE_RESIZE_MODE": "oval"}, "IMAGE_RESIZE_MODE must be one of square, pad64, crop, none"),
        ({"IMAGE_RESIZE_MODE": "crop", "IMAGE_MIN_DIM": 900}, "IMAGE_MIN_DIM must be a multiple of 64 where"),
        ({"IMAGE_RESIZE_MODE": "crop", "IMAGE_MIN_DIM": 0}, "IMAGE_MIN_DIM must be a multiple of 64 where"),
        ({"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 100}, "IMAGE_MIN_DIM must be 0 or a multiple of 64"),
        ({"IMAGE_CHANNEL_COUNT": 0}, "IMAGE_CHANNEL_COUNT must be at least 1"),
        ({"IMAGE_CHANNEL_COUNT": 4}, "MEAN_PIXEL needs one value for each of the 4 channels; got 3"),
        ({"IMAGE_CHANNEL_COUNT": 1}, "MEAN_PIXEL needs one value for each of the 1 channels; got 3"),
        ({"RPN_LEVELS": []}, "RPN_LEVELS must name some of P2, P3, P4, P5, P6"),
        ({"RPN_LEVELS": ["P3", "P2"]}, "RPN_LEVELS must name .* in this order"),
        ({"RPN_LEVELS": ["P3", "P3"]}, "RPN_LEVELS must name"),
        ({"RPN_LEVELS": ["P7"]}, "RPN_LEVELS must name"),
        ({"ROI_ALIGN": "torch"}, "ROI_ALIGN must be one of matterport, paper"),
        ({"STEM_PADDING": "valid"}, "STEM_PADDING must be one of same, symmetric"),
        ({"IMAGE_MAX_DIM": 1000}, "multiple of 32"),
        ({"BACKBONE_STRIDES": [2, 4, 8, 16, 32]}, "BACKBONE_STRIDES must be"),
        ({"RPN_ANCHOR_SCALES": [32, 64]}, "one scale for each of the 5 levels"),
        ({"MASK_SHAPE": [14, 14]}, "MASK_SHAPE must be twice MASK_POOL_SIZE"),
        ({"NUM_CLASSES": 0}, "NUM_CLASSES must be at least 1"),
        ({"AUGMENTATION_SHARE": 1.5}, "AUGMENTATION_SHARE must lie between 0 and 1"),
        ({"ROI_POSITIVE_RATIO": 0}, "ROI_POSITIVE_RATIO must be above 0"),
        ({"SEED": -1}, "SEED must be 0 or more"),
        ({"TOP_DOWN_PYRAMID_SIZE": 40}, "TOP_DOWN_PYRAMID_SIZE must be a multiple of 32"),
        ({"FPN_CLASSIF_FC_LAYERS_SIZE": 32}, "FPN_CLASSIF_FC_LAYERS_SIZE must be a multiple of 32 from 64"),
    ],
)
def test_make_config_refuses(overrides, message):
    with pytest.raises(InputError, match=message) as caught:
        make_config(overrides)
    assert "\n" not in str(caught.value)


def test_setting_names_follow_the_classes():
    class Mine(Config):
        OWN = 1

    names = setting_names(Mine)
    assert names[0] == "NAME" and names[-1] == "OWN" and len(names) == len(set(names))


def test_config_display_prints_every_setting(capsys):
    Config().display()
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*setting_names(Config), "BATCH_SIZE"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUM_CLASSES", 10**9),
        ("TOP_DOWN_PYRAMID_SIZE", 2**20),
        ("FPN_CLASSIF_FC_LAYERS_SIZE", 2**30),
        ("IMAGE_MAX_DIM", 2**20),
        ("POST_NMS_ROIS_INFERENCE", 0),
        ("RPN_NMS_THRESHOLD", 1.5),
        ("LEARNING_RATE", -1.0),
        ("RPN_ANCHOR_SCALES", (8, 16, 32, 64, -1)),
        ("RPN_ANCHOR_RATIOS", ()),
        ("MINI_MASK_SHAPE", (0, 56)),
        ("RPN_BBOX_STD_DEV", (0.1, 0.1, 0.2)),
        ("BBOX_STD_DEV", (0.1, 0.1, 0.2, 0.0)),
        ("MEAN_PIXEL", (0.0, float("inf"), 0.0)),
        ("LOSS_WEIGHTS", {"rpn_class_loss": -1.0}),
        ("NAME", 3),
        ("SEED", 2**40),
    ],
)
def test_numbers_that_no_network_has_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        type("Odd", (Config,), {name: value})()
