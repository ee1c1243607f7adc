"""Loading weights by name: Matterport's layout goes in and comes back, and nothing is loaded in part or in silence."""

import h5py
import keras
import numpy as np
import pytest

from mrcnn.files.errors import InputError
from mrcnn.training.weights import RPN_LAYERS, choose_layers, load_by_name, save_matterport


def matterport_groups(layers, seed=0):
    """Random weights for `layers` as Matterport's `save_weights` groups them, with layers that have none between."""
    rng = np.random.default_rng(seed)
    groups = {"input_image": {}, "rpn_model": {}, "mrcnn_bbox": {}}
    for layer in layers:
        group = groups["rpn_model"] if layer.name in RPN_LAYERS else groups.setdefault(layer.name, {})
        for variable in layer.weights:
            value = rng.uniform(0.5, 1.5, variable.shape).astype(np.float32)
            group[f"{layer.name}/{variable.name}:0"] = value
    return groups


def flat(groups):
    return {
        tuple(name.removesuffix(":0").split("/")): value for group in groups.values() for name, value in group.items()
    }


def assert_same_values(one, other):
    assert set(one) == set(other)
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=str(key))


@pytest.fixture
def matterport_file(tmp_path, write_keras2_file):
    """Function: layers -> (path, groups) of a file that fits them; `change` may alter the groups before."""

    def make(layers, change=None, **options):
        groups = matterport_groups(layers)
        if change:
            change(groups)
        return write_keras2_file(tmp_path / "matterport.h5", groups, **options), groups

    return make


def test_load_by_name_takes_every_value_of_a_matterport_file(make_layers, matterport_file, values_of):
    layers = make_layers()
    path, groups = matterport_file(layers, under="model_weights", part=4)
    report = load_by_name(layers, path)
    assert_same_values(values_of(layers), flat(groups))
    assert report.matched == [layer.name for layer in layers]
    assert report.share == 1 and not report.missing + report.other_shape + report.excluded + report.unused
    assert report.path == path


def test_save_matterport_comes_back_and_has_the_layout(tmp_path, make_layers, matterport_file, values_of):
    layers, others = make_layers(), make_layers()
    load_by_name(layers, matterport_file(layers)[0])
    path = tmp_path / "new folder" / "saved.h5"
    save_matterport(layers[::-1], path)
    with h5py.File(path) as file:
        names = [name.decode() for name in file.attrs["layer_names"]]
        assert not set(names) & set(RPN_LAYERS) and names.count("rpn_model") == 1
        assert file["conv1/conv1/kernel:0"].dtype == np.float32
    load_by_name(others, path)
    assert_same_values(values_of(others), values_of(layers))


def test_save_matterport_is_read_by_the_loader_of_keras(tmp_path, make_layers, matterport_file):
    """Keras' own loader of that layout fills by position in a group, so this also holds the order of the weights."""
    from keras.src.legacy.saving import legacy_h5_format

    layers = make_layers()
    load_by_name(layers, matterport_file(layers)[0])
    save_matterport(layers, tmp_path / "saved.h5")
    images, level = keras.Input((16, 16, 3)), keras.Input((8, 8, 6))
    shared = keras.layers.Conv2D(5, 3, name="rpn_conv_shared")(level)
    heads = [
        keras.layers.Conv2D(6, 1, name="rpn_class_raw")(shared),
        keras.layers.Conv2D(12, 1, name="rpn_bbox_pred")(shared),
    ]
    rpn = keras.Model(level, heads, name="rpn_model")
    stem = keras.layers.BatchNormalization(name="bn_conv1")(keras.layers.Conv2D(4, 7, name="conv1")(images))
    model = keras.Model([images, level], [stem, *rpn(level)])
    with h5py.File(tmp_path / "saved.h5") as file:
        legacy_h5_format.load_weights_from_hdf5_group_by_name(file, model)
    ours = {layer.name: layer for layer in layers}
    found = [model.get_layer("conv1"), model.get_layer("bn_conv1"), *(rpn.get_layer(name) for name in RPN_LAYERS)]
    for layer in found:
        for value, expected in zip(layer.get_weights(), ours[layer.name].get_weights(), strict=True):
            np.testing.assert_array_equal(value, expected)


def test_load_by_name_refuses_another_shape_and_says_what_to_exclude(make_layers, matterport_file, values_of):
    path, groups = matterport_file(make_layers(num_classes=81))
    layers = make_layers(num_classes=3)
    before = values_of(layers)
    with pytest.raises(InputError, match="of another shape .3.: mrcnn_class_logits") as error:
        load_by_name(layers, path)
    message = str(error.value)
    assert 'exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask"]' in message and "\n" not in message
    assert "mrcnn_class_logits/kernel ours (8, 3), file (8, 81)" in message
    assert_same_values(values_of(layers), before)

    exclude = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]
    report = load_by_name(layers, path, exclude)
    assert report.excluded == ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask"]
    assert report.share == 1 and len(report.matched) == len(layers) - 3
    expected = {key: before[key] if key[0] in exclude else value for key, value in flat(groups).items()}
    assert_same_values(values_of(layers), expected)


def test_load_by_name_fails_when_too_little_matches(make_layers, matterport_file, values_of):
    layers = make_layers()
    gone = ["fpn_c5p5", "mrcnn_mask"]
    path, _ = matterport_file(layers, lambda groups: [groups.pop(name) for name in gone])
    before = values_of(layers)
    with pytest.raises(InputError, match="12 of 14 layers matched.*at least 90%") as error:
        load_by_name(layers, path)
    assert all(name in str(error.value) for name in gone) and "\n" not in str(error.value)
    assert_same_values(values_of(layers), before)
    report = load_by_name(layers, path, exclude=gone)
    assert report.share == 1 and report.excluded == gone and not report.missing


@pytest.mark.parametrize(
    "have, give, advice", [("group", "batch", '"frozen_batch"'), ("batch", "group", 'NORMALIZATION to "group"')]
)
def test_load_by_name_does_not_mix_kinds_of_normalisation(make_layers, matterport_file, have, give, advice):
    class Group(keras.layers.GroupNormalization):
        def __init__(self, name):
            super().__init__(2, name=name)

    kinds = {"group": Group, "batch": keras.layers.BatchNormalization}
    path, _ = matterport_file(make_layers(norm=kinds[give]))
    layers = make_layers(norm=kinds[have])
    with pytest.raises(InputError, match=advice) as error:
        load_by_name(layers, path)
    assert "missing in the file (3): bn_conv1, bn2a_branch2a, mrcnn_class_bn1" in str(error.value)


@pytest.mark.parametrize("with_top", [True, False])
def test_load_by_name_judges_a_backbone_file_by_the_backbone(make_layers, matterport_file, values_of, with_top):
    """The old ImageNet files have Matterport's names and Keras 1's kinds."""
    kinds = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}

    def cut(groups):
        for name in list(groups):
            weights = groups.pop(name)
            if name in ("conv1", "bn_conv1", "res2a_branch2a", "bn2a_branch2a"):
                old = {key.split("/")[1][:-2]: value for key, value in weights.items()}
                groups[name] = {f"{name}_{kinds.get(kind, kind)}:0": value for kind, value in old.items()}
        if with_top:
            groups["fc1000"] = {"fc1000_W:0": np.ones((4, 10))}

    layers = make_layers()
    expected = flat(matterport_groups(layers))
    path, _ = matterport_file(layers, cut)
    report = load_by_name(layers, path)
    assert report.matched == ["conv1", "bn_conv1", "res2a_branch2a", "bn2a_branch2a"]
    assert report.share == 1 and not report.missing and report.unused == ["fc1000"] * with_top
    assert "backbone alone" in str(report)
    assert_same_values({k: v for k, v in values_of(layers).items() if k[0] in report.matched},
                       {k: v for k, v in expected.items() if k[0] in report.matched})  # fmt: skip


def test_choose_layers_freezes_those_of_other_names_in_nested_models_too(make_layers):
    layers, inputs = make_layers(), keras.Input((8, 8, 6))
    nested = keras.Model(inputs, keras.layers.Conv2D(5, 3, name="rpn_inner")(inputs), name="rpn_model")
    chosen = {layer.name for layer in choose_layers([*layers, nested], "heads")}
    assert chosen == {n for n in (*(x.name for x in layers), "rpn_inner") if n.startswith(("rpn", "fpn", "mrcnn"))}
    assert choose_layers(layers, "all") == layers
    assert choose_layers(layers, r"res2.*") == [x for x in layers if x.trainable] == [layers[2]]
    with pytest.raises(InputError, match="not a regular expression"):
        choose_layers(layers, "(")
