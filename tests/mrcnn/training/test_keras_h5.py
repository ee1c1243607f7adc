"""Reading Keras 2's layout: every way the names were ever laid, and what a bad file may try."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.files.errors import InputError
from mrcnn.training.keras_h5 import open_weights

KNOWN = {"conv1", "bn_conv1", "rpn_conv_shared", "rpn_class_raw", "mrcnn_mask_conv1"}
KERNEL = np.arange(12, dtype=np.float32).reshape(3, 4)


def shapes_in(path):
    with open_weights(path, KNOWN.__contains__) as stored:
        return stored.shapes


@pytest.mark.parametrize(
    "group, weight, expected",
    [
        ("conv1", "conv1/kernel:0", ("conv1", "kernel")),
        ("conv1", "kernel", ("conv1", "kernel")),
        ("conv1", "conv1_1/kernel:0", ("conv1", "kernel")),
        ("conv1", "conv1/kernel_1:0", ("conv1", "kernel")),
        ("conv1", "conv1/conv1_W:0", ("conv1", "kernel")),
        ("bn_conv1", "bn_conv1_running_std:0", ("bn_conv1", "moving_variance")),
        ("mrcnn_mask_conv1", "mrcnn_mask_conv1/conv2d_5/kernel:0", ("mrcnn_mask_conv1", "kernel")),
        ("rpn_model", "rpn_model/rpn_conv_shared/kernel:0", ("rpn_conv_shared", "kernel")),
        ("other", "other/kernel:0", ("other", "kernel")),
    ],
)
def test_open_weights_finds_layer_and_kind(tmp_path, write_keras2_file, group, weight, expected):
    path = write_keras2_file(tmp_path / "w.h5", {group: {weight: KERNEL}})
    assert shapes_in(path) == {expected[0]: {expected[1]: (3, 4)}}


def test_open_weights_parts_the_layers_of_an_inner_model(tmp_path, write_keras2_file):
    names = ["rpn_conv_shared/kernel:0", "rpn_class_raw_1/kernel:0", "stranger/kernel:0"]
    path = write_keras2_file(tmp_path / "w.h5", {"rpn_model": dict.fromkeys(names, KERNEL)})
    assert set(shapes_in(path)) == {"rpn_conv_shared", "rpn_class_raw", "stranger"}


@pytest.mark.parametrize("options", [{}, {"under": "model_weights"}, {"part": 2}])
def test_open_weights_reads_every_place_of_the_names_and_float32(tmp_path, write_keras2_file, options):
    groups = {"input_1": {}, "conv1": {"conv1/kernel:0": KERNEL.astype(np.float64)}, "relu": {}}
    path = write_keras2_file(tmp_path / "w.h5", groups, **options)
    with open_weights(path, KNOWN.__contains__) as stored:
        assert stored.layer_names == ["input_1", "conv1", "relu"]
        assert stored.shapes == {"conv1": {"kernel": (3, 4)}}
        value = stored.read("conv1", "kernel")
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, KERNEL)


def test_open_weights_refuses_a_bad_file(tmp_path, write_keras2_file):
    path, twice = tmp_path / "w.h5", {"conv1/kernel:0": KERNEL, "conv1/kernel_1:0": KERNEL}
    for groups in ({"conv1": {"conv1/kernel:0": np.array([b"a", b"b"])}}, {"conv1": twice}, {}):
        with pytest.raises(InputError, match=r"w\.h5"):
            shapes_in(write_keras2_file(path, groups))
    write_keras2_file(path, {"conv1": {"conv1/kernel:0": KERNEL}})
    for attribute, names in (("layer_names", [b"conv1", b"bn_conv1"]), ("layer_names", [1.0, 2.0])):
        with h5py.File(path, "r+") as file:
            file.attrs[attribute] = names
        with pytest.raises(InputError, match=r"w\.h5"):
            shapes_in(path)


@pytest.mark.parametrize("kind, value", [("kernel", np.nan), ("kernel", 1e300), ("moving_variance", -1.0)])
def test_open_weights_refuses_impossible_values(tmp_path, write_keras2_file, kind, value):
    path = write_keras2_file(tmp_path / "w.h5", {"conv1": {f"conv1/{kind}:0": np.array([1.0, 1.0, value])}})
    with open_weights(path, KNOWN.__contains__) as stored, pytest.raises(InputError, match="NaN, infinity or a neg"):
        stored.read("conv1", kind)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory, write_keras2_file):
    groups = {"conv1": {"conv1/kernel:0": KERNEL, "conv1/bias:0": np.ones(4)}, "relu": {}}
    return write_keras2_file(tmp_path_factory.mktemp("whole") / "w.h5", groups).read_bytes()


@given(data=st.data())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_open_weights_of_damaged_bytes_are_read_or_refused(whole_file, tmp_path_factory, data):
    damaged = bytearray(whole_file)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "w.h5"
    path.write_bytes(damaged[: data.draw(st.sampled_from([len(damaged), len(damaged) // 2]))])
    try:
        with open_weights(path, KNOWN.__contains__) as stored:
            for layer, kinds in stored.shapes.items():
                for kind, shape in kinds.items():
                    assert stored.read(layer, kind).shape == shape
    except InputError as error:
        assert "\n" not in str(error)
