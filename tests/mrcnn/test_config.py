import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.config import Config, SmearConfig, make_config
from mrcnn.data.molding import mold_for_detection
from mrcnn.files.errors import InputError


def read_back(config, **options):
    return make_config(json.loads(json.dumps(config.to_dict())), Config, **options)


@pytest.mark.parametrize(
    ("overrides", "shape"),
    [
        ({}, (1024, 1024, 3)),
        ({"IMAGE_RESIZE_MODE": "crop", "IMAGE_MIN_DIM": 512}, (512, 512, 3)),
        ({"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 0}, (1024, 1024, 3)),
        ({"IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": [120]}, (1024, 1024, 1)),
    ],
)
def test_config_computes_what_follows(overrides, shape):
    config = make_config({"GPU_COUNT": 2, "IMAGES_PER_GPU": 3, "NUM_CLASSES": 4, **overrides}, Config)
    np.testing.assert_array_equal(config.IMAGE_SHAPE, shape)
    assert (config.BATCH_SIZE, config.IMAGE_META_SIZE) == (6, 12 + 4)


def test_config_defaults_are_matterports_and_each_is_checked():
    config = Config()
    assert (config.BACKBONE, config.LEARNING_RATE, config.WEIGHT_DECAY) == ("resnet101", 0.001, 0.0001)
    assert (config.TRAIN_ROIS_PER_IMAGE, config.DETECTION_NMS_THRESHOLD) == (200, 0.3)
    assert config.normalization == "frozen_batch"
    assert (config.ROI_ALIGN, config.STEM_PADDING, config.OPTIMIZER) == ("matterport", "same", "sgd")
    assert config.RPN_LEVELS == ("P2", "P3", "P4", "P5", "P6")
    assert list(config.to_dict()) == list(Config.__annotations__)


def test_config_takes_what_matterports_scripts_give(tmp_path):
    class Mine(Config):
        MEAN_PIXEL = np.array([43.53, 39.56, 48.22])
        BACKBONE_STRIDES, MASK_SHAPE = [4, 8, 16, 32, 64], [28, 28]
        USE_MINI_MASK, TRAIN_BN, USE_RPN_ROIS = 1, np.bool_(False), 1
        STEPS_PER_EPOCH, VALIDATION_STEPS, LEARNING_RATE = 25 / 2, np.int64(7), np.float32(0.25)
        RPN_ANCHOR_SCALES = tuple(np.int64(v) for v in (8, 16, 32, 64, 128))
        GRADIENT_CLIP_NORM = 5
        WHERE = tmp_path
        WEIGHTS_BY_CLASS = {1: np.float32(0.5), 2: np.array([1, 2])}

    assert Mine().normalization == "frozen_batch"
    again = read_back(Mine(), keep_unknown=True)
    np.testing.assert_array_equal(again.MEAN_PIXEL, [43.53, 39.56, 48.22])
    assert isinstance(again.MEAN_PIXEL, np.ndarray) and isinstance(Config().BBOX_STD_DEV, np.ndarray)
    assert again.RPN_ANCHOR_SCALES == (8, 16, 32, 64, 128)
    assert again.USE_MINI_MASK is True and again.TRAIN_BN is False and again.LEARNING_RATE == 0.25
    assert (again.STEPS_PER_EPOCH, again.VALIDATION_STEPS, again.WHERE) == (13, 7, str(tmp_path))
    assert again.WEIGHTS_BY_CLASS == {"1": 0.5, "2": [1, 2]}
    assert make_config({"WHERE": "there", "SEED": 1}, type(again)).WHERE == "there"
    # Whole numbers stay so, in what is written again too.
    assert '"GRADIENT_CLIP_NORM": 5,' in json.dumps(again.to_dict())
    with pytest.raises(InputError, match="unknown setting.*WHERE"):
        read_back(Mine())


@pytest.mark.parametrize("overrides", [{"IMAGE_MAX_DIM": 512}, {"IMAGE_MIN_DIM": None, "IMAGE_MAX_DIM": 128}])
def test_config_needs_no_least_side_below_the_largest(overrides):
    config = type("Mine", (Config,), overrides)()
    molded = mold_for_detection(np.zeros((100, 200, 3), np.uint8), config)
    assert molded.image.shape == (config.IMAGE_MAX_DIM,) * 2 + (3,)
    assert molded.scale == config.IMAGE_MAX_DIM / 200


@pytest.mark.parametrize("nothing", [False, np.bool_(False), None, 0])
def test_config_takes_false_for_no_side_and_no_scale(nothing):
    sides = dict.fromkeys(("IMAGE_MIN_DIM", "IMAGE_MAX_DIM", "IMAGE_MIN_SCALE", "GRADIENT_CLIP_NORM"), nothing)
    config = type("Mine", (Config,), {"IMAGE_RESIZE_MODE": "pad64", **sides})()
    for each in (config, read_back(config)):
        assert each.IMAGE_SHAPE.tolist() == [0, 0, 3]
        assert mold_for_detection(np.zeros((60, 100, 3), np.uint8), each).image.shape == (64, 128, 3)
    square = type("Mine", (Config,), {"IMAGE_MIN_DIM": nothing, "IMAGE_MIN_SCALE": nothing})()
    assert mold_for_detection(np.zeros((60, 100, 3), np.uint8), square).scale == 1
    with pytest.raises(InputError, match="IMAGE_MAX_DIM"):
        make_config({"IMAGE_MAX_DIM": nothing})


@pytest.mark.parametrize("num_levels", [1, 2, 4, 5])
def test_config_has_anchors_on_the_levels_that_have_a_scale(num_levels):
    scales, names = (8, 16, 32, 48, 64)[:num_levels], ("P2", "P3", "P4", "P5", "P6")[:num_levels]
    config = type("Mine", (Config,), {"RPN_ANCHOR_SCALES": scales})()
    for each in (config, read_back(config)):
        assert (each.RPN_ANCHOR_SCALES, each.RPN_LEVELS) == (scales, names)
    short = {"RPN_ANCHOR_SCALES": scales, "BACKBONE_STRIDES": (4, 8, 16, 32, 64)[:num_levels]}
    assert make_config(short, Config).RPN_LEVELS == names
    if num_levels < 4:  # P5, which SmearConfig names, has none
        with pytest.raises(InputError, match="RPN_LEVELS must be among the"):
            make_config({"RPN_ANCHOR_SCALES": scales})


def test_config_display_shows_what_is_computed_and_what_was_set_later(capsys):
    config = Config()
    config.MY_OWN = "thing"
    config.display()
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if len(line.split()) > 1)
    assert shown["IMAGE_SHAPE"] == "[1024, 1024, 3]" and shown["BATCH_SIZE"] == "2" and shown["MY_OWN"] == "thing"


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [({"TRAIN_BN": True}, "batch"), ({"TRAIN_BN": True, "NORMALIZATION": "group"}, "group")],
)
def test_config_normalization_follows_train_bn_unless_it_is_named(overrides, kind):
    assert make_config(overrides, Config).normalization == kind


def test_make_config_leaves_the_base_class_alone_and_survives_json():
    changed = make_config({"LEARNING_RATE": 0.5, "LOSS_WEIGHTS": {"mrcnn_mask_loss": 2.0}, "SEED": 7})
    assert changed.LOSS_WEIGHTS == {**SmearConfig.LOSS_WEIGHTS, "mrcnn_mask_loss": 2.0}
    assert SmearConfig.LEARNING_RATE == 0.001 and SmearConfig.LOSS_WEIGHTS["mrcnn_mask_loss"] == 1.0
    again = read_back(changed)
    assert again.to_dict() == changed.to_dict() and again.normalization == "group"


def test_make_config_takes_whole_numbers_and_fractions_for_each_other():
    steps = make_config({"STEPS_PER_EPOCH": 10.0}).STEPS_PER_EPOCH
    assert steps == 10 and isinstance(steps, int)
    trained = type(make_config({"DETECTION_MIN_CONFIDENCE": 1}))
    assert make_config({"DETECTION_MIN_CONFIDENCE": 0.05}, trained).DETECTION_MIN_CONFIDENCE == 0.05


REFUSED = [
    ("AUGMENTATION_ZOOM", [1.6, 0.5]),
    ("LEARNING_RATE", "fast"),
    ("MAX_GT_INSTANCES", 2.5),
    ("STEPS_PER_EPOCH", float("nan")),
    ("USE_MINI_MASK", 2),
    ("RPN_ANCHOR_SCALES", [8, 16, 32, 64, -1]),
    ("RPN_ANCHOR_SCALES", [8, 16, 32, 64, 128, 256]),
    ("RPN_ANCHOR_SCALES", []),
    ("LOSS_WEIGHTS", {"mask": 1}),
    ("IMAGE_MAX_DIM", 1000),
    ("RPN_LEVELS", ["P3", "P2"]),
    ("MASK_SHAPE", [14, 14]),
    ("MASK_SHAPE", [42, 42]),
    ("MASK_PARTS", ["cell", "nucleus", "cell"]),
    ("MASK_PARTS", []),
    ("ROI_POSITIVE_RATIO", 0),
    ("TOP_DOWN_PYRAMID_SIZE", 40),
    ("FPN_CLASSIF_FC_LAYERS_SIZE", 32),
    ("NAME", "two\nlines"),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_values_that_cannot_be_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=rf"^{name}\b") as caught:
        make_config({name: value})
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=name):
        type("Odd", (SmearConfig,), {name: value})()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"IMAGE_RESIZE_MODE": "crop", "IMAGE_MIN_DIM": 900}, "IMAGE_MIN_DIM"),
        ({"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 100}, "IMAGE_MIN_DIM"),
        ({"IMAGE_CHANNEL_COUNT": 4}, "MEAN_PIXEL.* 4 channels"),
        ({"LERNING_RATE": 1, "SEED": -1}, "SEED .*-1.*LERNING_RATE.*LEARNING_RATE"),
    ],
)
def test_all_faults_of_settings_are_told(overrides, message):
    with pytest.raises(InputError, match=message):
        make_config(overrides)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda v: st.lists(v, max_size=5)
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(sorted(SmearConfig().to_dict())), JSON, min_size=1, max_size=3))
def test_any_values_make_a_configuration_or_one_error(values):
    try:
        config = make_config(values)
    except InputError:
        return
    assert make_config(config.to_dict(), Config).to_dict() == config.to_dict()
