import keras
import pytest

from mrcnn.network.backbone import resnet

# Without the top layer, as keras.applications counts them: all, and those that no BatchNorm statistics are.
NUM_PARAMETERS = {"resnet50": (23_587_712, 23_534_592), "resnet101": (42_658_176, 42_552_832)}


@pytest.mark.parametrize(
    ("architecture", "norm"), [("resnet50", "frozen_batch"), ("resnet50", "group"), ("resnet101", "batch")]
)
def test_resnet_shapes_and_parameters(architecture, norm):
    images = keras.Input((64, 96, 3))
    stages = resnet(images, architecture, norm)
    assert [tuple(stage.shape) for stage in stages] == [
        (None, 16, 24, 256),
        (None, 8, 12, 512),
        (None, 4, 6, 1024),
        (None, 2, 3, 2048),
    ]
    model = keras.Model(images, stages)
    with_statistics, without = NUM_PARAMETERS[architecture]
    assert model.count_params() == (without if norm == "group" else with_statistics)
    last = {"resnet50": "res4f_branch2c", "resnet101": "res4w_branch2c"}[architecture]
    assert model.get_layer(last) and model.get_layer("bn_conv1")
    assert {layer.name for layer in model.layers if layer.name.endswith("branch1")} >= {"res2a_branch1"}


def test_resnet_names_an_unknown_architecture():
    with pytest.raises(ValueError, match="resnet50, resnet101; got 'resnet18'"):
        resnet(keras.Input((64, 64, 3)), "resnet18", "batch")
