import keras
import numpy as np
import pytest

from mrcnn.network.backbone import feature_pyramid, resnet, small_resnet

# Without the top layer, as keras.applications counts them: all, and those that no BatchNorm statistics are.
NUM_PARAMETERS = {"resnet50": (23_587_712, 23_534_592), "resnet101": (42_658_176, 42_552_832)}
SIDES = (16, 8, 4, 2)


@pytest.mark.parametrize(
    ("architecture", "norm", "last"),
    [("resnet50", "group", "res4f_branch2c"), ("resnet101", "batch", "res4w_branch2c")],
)
def test_resnet_shapes_and_parameters(architecture, norm, last):
    images = keras.Input((64, 96, 3))
    stages = resnet(images, architecture, norm)
    assert [tuple(stage.shape[1:]) for stage in stages] == [(16, 24, 256), (8, 12, 512), (4, 6, 1024), (2, 3, 2048)]
    model = keras.Model(images, stages)
    with_statistics, without = NUM_PARAMETERS[architecture]
    assert model.count_params() == (without if norm == "group" else with_statistics)
    assert {last, "bn_conv1", "res2a_branch1"} <= {layer.name for layer in model.layers}


def test_small_resnet_has_the_strides_of_resnet_and_few_channels():
    images = keras.Input((64, 96, 3))
    stages = small_resnet(images, "group")
    assert [tuple(stage.shape[1:]) for stage in stages] == [(16, 24, 48), (8, 12, 96), (4, 6, 160), (2, 3, 256)]
    model = keras.Model(images, stages)
    assert model.count_params() < NUM_PARAMETERS["resnet50"][0] / 5
    # 48 and 96 channels are no multiples of 32 both.
    groups = {layer.name: layer.groups for layer in model.layers if layer.name.endswith("_norm")}
    assert groups["small2a_conv1_norm"] == 16 and groups["small3a_conv1_norm"] == 32
    assert all(np.isfinite(stage).all() for stage in model(np.zeros((1, 64, 96, 3), np.float32)))


def pyramid_of(norm: str) -> keras.Model:
    stages = [keras.Input((side, side, 4 * 2**i)) for i, side in enumerate(SIDES)]
    return keras.Model(stages, feature_pyramid(stages, 32, norm))


@pytest.mark.parametrize("stage", [0, 3])
def test_feature_pyramid_flows_from_coarse_to_fine_only(stage):
    model = pyramid_of("frozen_batch")
    inputs = [np.zeros((1, side, side, 4 * 2**i), np.float32) for i, side in enumerate(SIDES)]
    before = model(inputs)
    assert [tuple(level.shape) for level in before] == [(1, s, s, 32) for s in (16, 8, 4, 2, 1)]
    inputs[stage] = inputs[stage] + 1.0
    after = model(inputs)
    changed = [not np.allclose(a, b) for a, b in zip(after, before, strict=True)]
    assert changed == [level <= stage or (stage == 3 and level == 4) for level in range(5)]
    np.testing.assert_array_equal(after[4], after[3][:, ::2, ::2])


def test_feature_pyramid_is_merged_in_its_hidden_width_and_widened_last():
    stages = [keras.Input((side, side, 4 * 2**i)) for i, side in enumerate(SIDES)]
    model = keras.Model(stages, feature_pyramid(stages, 32, "group", hidden=12))
    assert [tuple(level.shape[1:]) for level in model.outputs] == [(s, s, 32) for s in (16, 8, 4, 2, 1)]
    widths = {layer.name: layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
    assert {widths.pop(f"fpn_p{level}_wide") for level in (2, 3, 4, 5)} == {32}
    assert len(widths) == 8 and {*widths.values()} == {12}
