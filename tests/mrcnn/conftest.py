"""Fixtures for weights files: an independent writer of Keras 2's layout, and a handful of layers."""

import h5py
import numpy as np
import pytest


@pytest.fixture(scope="session")
def write_keras2_file():
    """Function `(path, {group: {weight name: array}}, under=None, part=None)` that writes the layout by hand.

    `under` puts everything into that group, as a whole saved model has it; `part` cuts `layer_names` into numbered
    attributes of so many names.
    """

    def write(path, groups, under=None, part=None):
        with h5py.File(path, "w") as file:
            root = file.create_group(under) if under else file
            names = np.array([name.encode() for name in groups])
            if part:
                for number, start in enumerate(range(0, len(names), part)):
                    root.attrs[f"layer_names{number}"] = names[start : start + part]
            else:
                root.attrs["layer_names"] = names
            root.attrs["backend"], root.attrs["keras_version"] = b"tensorflow", b"2.0.8"
            for name, weights in groups.items():
                group = root.create_group(name)
                # Of an empty list NumPy makes float64, and so did Keras 2.
                group.attrs["weight_names"] = np.array([weight.encode() for weight in weights])
                for weight, value in weights.items():
                    group[weight] = value
        return path

    return write


@pytest.fixture
def make_layers():
    """Function that builds a few tiny layers under Matterport's names, each with weights of its own."""
    import keras

    from mrcnn.network.normalization import FrozenBatchNormalization

    def make(num_classes=3, norm=FrozenBatchNormalization, channels=3):
        conv, dense = keras.layers.Conv2D, keras.layers.Dense
        shapes = [
            (conv(4, 7, name="conv1"), (None, 16, 16, channels)),
            (norm(name="bn_conv1"), (None, 16, 16, 4)),
            (conv(4, 1, name="res2a_branch2a"), (None, 8, 8, 4)),
            (norm(name="bn2a_branch2a"), (None, 8, 8, 4)),
            (conv(6, 1, name="fpn_c5p5"), (None, 8, 8, 4)),
            (conv(5, 3, name="rpn_conv_shared"), (None, 8, 8, 6)),
            (conv(6, 1, name="rpn_class_raw"), (None, 8, 8, 5)),
            (conv(12, 1, name="rpn_bbox_pred"), (None, 8, 8, 5)),
            (conv(8, 3, name="mrcnn_class_conv1"), (None, 3, 3, 6)),
            (norm(name="mrcnn_class_bn1"), (None, 1, 1, 8)),
            (dense(num_classes, name="mrcnn_class_logits"), (None, 8)),
            (dense(4 * num_classes, name="mrcnn_bbox_fc"), (None, 8)),
            (keras.layers.Conv2DTranspose(6, 2, name="mrcnn_mask_deconv"), (None, 7, 7, 6)),
            (conv(num_classes, 1, name="mrcnn_mask"), (None, 14, 14, 6)),
        ]
        for layer, shape in shapes:
            layer.build(shape)
        return [layer for layer, _ in shapes]

    return make


@pytest.fixture(scope="session")
def tiny_detector(tiny_config_class, small_resnet, see_cells, tmp_path_factory):
    """An untrained detector that takes six regions of each image for cells, saved in its folder. Leave it as it is."""
    from mrcnn.config import make_config
    from mrcnn.model import MaskRCNN

    with small_resnet():
        config = make_config({"DETECTION_MIN_CONFIDENCE": 0.0}, tiny_config_class)
        model = MaskRCNN("inference", config, tmp_path_factory.mktemp("detector"))
    see_cells(model.parts)
    model.save()
    return model


@pytest.fixture(scope="session")
def values_of():
    """Function: layers -> {(layer, kind): array}."""

    def values(layers):
        return {(layer.name, v.name): v.numpy() for layer in layers for v in layer.weights}

    return values


@pytest.fixture(scope="session")
def nucleus_detector(tiny_config_class, small_resnet, see_cells, tmp_path_factory):
    """An untrained detector that draws nuclei too, more clearly on some regions than on others. Leave it as it is."""
    from mrcnn.config import make_config
    from mrcnn.model import MaskRCNN

    settings = {"MASK_PARTS": ["cell", "nucleus"], "MASK_SHAPE": [56, 56], "MASK_CONV_CHANNELS": [32]}
    with small_resnet():
        config = make_config({**settings, "DETECTION_MIN_CONFIDENCE": 0.0}, tiny_config_class)
        model = MaskRCNN("inference", config, tmp_path_factory.mktemp("nucleus_detector"))
    see_cells(model.parts)
    last = model.parts.mask_head.get_layer("mrcnn_mask")
    last.kernel.assign(5.0 * last.kernel)
    last.bias.assign([-3.0] * 4)
    return model
