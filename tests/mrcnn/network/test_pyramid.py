import keras
import numpy as np
import pytest

from mrcnn.network.backbone import feature_pyramid

SIDES = (16, 8, 4, 2)


def build(norm: str) -> keras.Model:
    stages = [keras.Input((side, side, 4 * 2**i)) for i, side in enumerate(SIDES)]
    return keras.Model(stages, feature_pyramid(stages, 32, norm))


def zeros() -> list[np.ndarray]:
    return [np.zeros((1, side, side, 4 * 2**i), np.float32) for i, side in enumerate(SIDES)]


def test_feature_pyramid_has_five_levels_of_one_width():
    outputs = build("frozen_batch")(zeros())
    assert [tuple(level.shape) for level in outputs] == [(1, s, s, 32) for s in (16, 8, 4, 2, 1)]


def test_feature_pyramid_takes_every_second_cell_of_p5_for_p6():
    inputs = zeros()
    inputs[3] += np.random.default_rng(0).normal(size=inputs[3].shape).astype(np.float32)
    outputs = build("frozen_batch")(inputs)
    np.testing.assert_array_equal(outputs[4], outputs[3][:, ::2, ::2])


@pytest.mark.parametrize("stage", range(4))
def test_feature_pyramid_flows_from_coarse_to_fine_only(stage):
    model, inputs = build("frozen_batch"), zeros()
    before = model(inputs)
    inputs[stage] = inputs[stage] + 1.0
    changed = [not np.allclose(a, b) for a, b in zip(model(inputs), before, strict=True)]
    assert changed == [level <= stage or (stage == 3 and level == 4) for level in range(5)]


def test_feature_pyramid_normalises_with_group_norm_only():
    names = {norm: {layer.name for layer in build(norm).layers} for norm in ("frozen_batch", "group")}
    assert names["group"] - names["frozen_batch"] >= {"fpn_p2_gn", "fpn_p3_gn", "fpn_p4_gn", "fpn_p5_gn"}
