"""Reading Keras 2's layout: every way the names were ever laid, and everything that a bad file may try."""

import h5py
import numpy as np
import pytest

from mrcnn.files.errors import InputError
from mrcnn.training.keras_h5 import StoredWeights, has_keras2_layout

KNOWN = {"conv1", "bn_conv1", "rpn_conv_shared", "rpn_class_raw", "mrcnn_mask_conv1"}
KERNEL = np.arange(12, dtype=np.float32).reshape(3, 4)


def shapes_in(path):
    with StoredWeights(path, KNOWN.__contains__) as stored:
        return stored.shapes


@pytest.mark.parametrize(
    "group, weight, expected",
    [
        ("conv1", "conv1/kernel:0", ("conv1", "kernel")),
        ("conv1", "conv1/kernel", ("conv1", "kernel")),
        ("conv1", "kernel:0", ("conv1", "kernel")),
        ("conv1", "conv1_1/kernel:0", ("conv1", "kernel")),
        ("conv1", "conv1/kernel_1:0", ("conv1", "kernel")),
        ("conv1", "conv1/conv1_W:0", ("conv1", "kernel")),
        ("conv1", "conv1_b:0", ("conv1", "bias")),
        ("bn_conv1", "bn_conv1/moving_mean:0", ("bn_conv1", "moving_mean")),
        ("bn_conv1", "bn_conv1_running_std:0", ("bn_conv1", "moving_variance")),
        ("mrcnn_mask_conv1", "mrcnn_mask_conv1/conv2d_5/kernel:0", ("mrcnn_mask_conv1", "kernel")),
        ("rpn_model", "rpn_model/rpn_conv_shared/kernel:0", ("rpn_conv_shared", "kernel")),
        ("other", "other/kernel:0", ("other", "kernel")),
    ],
)
def test_stored_weights_finds_layer_and_kind(tmp_path, write_keras2_file, group, weight, expected):
    path = write_keras2_file(tmp_path / "w.h5", {group: {weight: KERNEL}})
    assert shapes_in(path) == {expected[0]: {expected[1]: (3, 4)}}


def test_stored_weights_parts_the_layers_of_an_inner_model(tmp_path, write_keras2_file):
    names = ["rpn_conv_shared/kernel:0", "rpn_class_raw_1/kernel:0", "stranger/kernel:0"]
    path = write_keras2_file(tmp_path / "w.h5", {"rpn_model": dict.fromkeys(names, KERNEL)})
    assert set(shapes_in(path)) == {"rpn_conv_shared", "rpn_class_raw", "stranger"}


@pytest.mark.parametrize("options", [{}, {"under": "model_weights"}, {"part": 2}])
def test_stored_weights_reads_every_place_of_the_names(tmp_path, write_keras2_file, options):
    groups = {"input_1": {}, "conv1": {"conv1/kernel:0": KERNEL}, "relu": {}}
    path = write_keras2_file(tmp_path / "w.h5", groups, **options)
    with StoredWeights(path, KNOWN.__contains__) as stored:
        assert stored.layer_names == ("input_1", "conv1", "relu")
        assert stored.shapes == {"conv1": {"kernel": (3, 4)}}
        np.testing.assert_array_equal(stored.read("conv1", "kernel"), KERNEL)
    assert has_keras2_layout(path)


def test_stored_weights_reads_names_of_variable_length(tmp_path, write_keras2_file):
    path = write_keras2_file(tmp_path / "w.h5", {"conv1": {"conv1/kernel:0": KERNEL}})
    with h5py.File(path, "r+") as file:
        file["conv1"].attrs["weight_names"] = ["conv1/kernel:0"]
        assert file["conv1"].attrs.get_id("weight_names").dtype.kind == "O"
    assert shapes_in(path) == {"conv1": {"kernel": (3, 4)}}


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_stored_weights_gives_float32_of_any_number_type(tmp_path, write_keras2_file, dtype):
    path = write_keras2_file(tmp_path / "w.h5", {"conv1": {"conv1/kernel:0": KERNEL.astype(dtype)}})
    with StoredWeights(path, KNOWN.__contains__) as stored:
        value = stored.read("conv1", "kernel")
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, KERNEL)


def test_stored_weights_reads_a_compressed_file(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1"]
        group = file.create_group("conv1")
        group.attrs["weight_names"] = [b"kernel:0"]
        group.create_dataset("kernel:0", data=KERNEL, compression="gzip", shuffle=True)
    with StoredWeights(path, KNOWN.__contains__) as stored:
        np.testing.assert_array_equal(stored.read("conv1", "kernel"), KERNEL)


def replace_kernel(group, path):
    """Take the kernel's place, so that a test can put something else there."""
    del group["conv1/kernel:0"]
    return group["conv1"]


def link_out(group, path):
    other = path.with_name("other.h5")
    with h5py.File(other, "w") as file:
        file["secret"] = KERNEL
    replace_kernel(group, path)["kernel:0"] = h5py.ExternalLink(other.name, "/secret")


def link_softly(group, path):
    group.file["elsewhere"] = KERNEL
    replace_kernel(group, path)["kernel:0"] = h5py.SoftLink("/elsewhere")


def link_the_layer(group, path):
    group.file["elsewhere"] = group
    del group.file["conv1"]
    group.file["conv1"] = h5py.SoftLink("/elsewhere")


def store_outside(group, path):
    raw = path.with_name("raw.bin")
    raw.write_bytes(KERNEL.tobytes())
    replace_kernel(group, path).create_dataset("kernel:0", (3, 4), "float32", external=[(str(raw), 0, 48)])


def make_virtual(group, path):
    other = path.with_name("other.h5")
    with h5py.File(other, "w") as file:
        file["secret"] = KERNEL
    layout = h5py.VirtualLayout((3, 4), "float32")
    layout[:] = h5py.VirtualSource(str(other), "secret", (3, 4))
    replace_kernel(group, path).create_virtual_dataset("kernel:0", layout)


def put_text(group, path):
    replace_kernel(group, path)["kernel:0"] = np.array([b"a", b"b"])


def put_objects(group, path):
    replace_kernel(group, path).create_dataset("kernel:0", data=["a", "b"], dtype=h5py.string_dtype())


def put_nothing(group, path):
    replace_kernel(group, path)["kernel:0"] = h5py.Empty("f")


def put_a_group(group, path):
    replace_kernel(group, path).create_group("kernel:0")


def drop_the_kernel(group, path):
    replace_kernel(group, path)


def name_twice(group, path):
    group["conv1/kernel_1:0"] = KERNEL
    group.attrs["weight_names"] = [b"conv1/kernel:0", b"conv1/kernel_1:0"]


def name_numbers(group, path):
    group.attrs["weight_names"] = [1.0, 2.0]


def name_oddly(group, path):
    group.attrs["weight_names"] = [b"conv1/\x1b[31mkernel:0"]


def name_no_text(group, path):
    group.attrs["weight_names"] = [b"conv1/\xff:0"]


def list_a_missing_layer(group, path):
    group.file.attrs["layer_names"] = [b"conv1", b"bn_conv1"]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (link_out, "link"),
        (link_softly, "link"),
        (link_the_layer, "link"),
        (store_outside, "another file"),
        (make_virtual, "another file"),
        (put_text, "array of numbers"),
        (put_objects, "array of numbers"),
        (put_nothing, "array of numbers"),
        (put_a_group, "not a dataset"),
        (drop_the_kernel, "lacks"),
        (name_twice, "twice"),
        (name_numbers, "odd type"),
        (name_oddly, "odd name"),
        (name_no_text, "odd name"),
        (list_a_missing_layer, "lacks"),
    ],
)
def test_stored_weights_refuses_a_bad_file(tmp_path, write_keras2_file, spoil, message):
    path = write_keras2_file(tmp_path / "w.h5", {"conv1": {"conv1/kernel:0": KERNEL}})
    assert shapes_in(path)
    with h5py.File(path, "r+") as file:
        spoil(file["conv1"], path)
    with pytest.raises(InputError, match=message) as error:
        shapes_in(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def make_bomb(group):
    """A dataset that states more than it holds: it would read as that many zeros."""
    group.create_dataset("kernel:0", (2**30, 2**10), "float32")


def make_chunk_bomb(group):
    """One chunk of 16 MiB, compressed to almost nothing, behind a small array."""
    group.create_dataset("kernel:0", (3, 4), "float32", maxshape=(None, 4), chunks=(2**20, 4), compression="gzip")
    group["kernel:0"][...] = 1.0


def use_a_rare_filter(group):
    group.create_dataset("kernel:0", data=np.arange(12).reshape(3, 4), chunks=(3, 4), scaleoffset=0)


@pytest.mark.parametrize(
    "make, message",
    [(make_bomb, "does not hold"), (make_chunk_bomb, "chunks larger"), (use_a_rare_filter, "unusual way")],
)
def test_stored_weights_refuses_to_read_absurd_storage(tmp_path, make, message):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1"]
        group = file.create_group("conv1")
        group.attrs["weight_names"] = [b"kernel:0"]
        make(group)
    with StoredWeights(path, KNOWN.__contains__) as stored, pytest.raises(InputError, match=message):
        stored.read("conv1", "kernel")


@pytest.mark.parametrize(
    "kind, value, message",
    [
        ("kernel", np.nan, "NaN"),
        ("kernel", -np.inf, "infinity"),
        ("kernel", 1e300, "too large"),
        ("moving_variance", -1.0, "negative variances"),
    ],
)
def test_stored_weights_refuses_impossible_values(tmp_path, write_keras2_file, kind, value, message):
    data = np.ones(4)
    data[2] = value
    path = write_keras2_file(tmp_path / "w.h5", {"conv1": {f"conv1/{kind}:0": data}})
    with StoredWeights(path, KNOWN.__contains__) as stored, pytest.raises(InputError, match=message):
        stored.read("conv1", kind)


def test_stored_weights_refuses_what_is_no_such_file(tmp_path, write_keras2_file):
    whole = write_keras2_file(tmp_path / "whole.h5", {"conv1": {"conv1/kernel:0": np.ones((100, 100))}})
    cut, text, nameless = tmp_path / "cut.h5", tmp_path / "text.h5", tmp_path / "nameless.h5"
    cut.write_bytes(whole.read_bytes()[:5000])
    text.write_text("404: not found")
    with h5py.File(nameless, "w") as file:
        file["kernel"] = KERNEL
    faults = {
        tmp_path / "none.h5": "no such weights file",
        tmp_path: "cannot be read",
        cut: "damaged",
        text: "not an HDF5 file",
        nameless: "no layer_names",
    }
    for path, message in faults.items():
        with pytest.raises(InputError, match=message) as error:
            shapes_in(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
        assert not has_keras2_layout(path)


def test_stored_weights_names_a_file_of_keras_3(tmp_path):
    import keras

    path = tmp_path / "own.weights.h5"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="conv1")]).save_weights(path)
    with pytest.raises(InputError, match="Keras 3"):
        shapes_in(path)
    assert not has_keras2_layout(path)


def test_stored_weights_follows_no_link_in_search_of_the_names(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["model_weights"] = h5py.ExternalLink("gone.h5", "/model_weights")
    with pytest.raises(InputError, match="link"):
        shapes_in(path)
