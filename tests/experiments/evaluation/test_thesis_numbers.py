from pathlib import Path

from experiments.centres.centre import Centre
from experiments.centres.class_maps import make_class_map
from experiments.evaluation.thesis_numbers import ablation_number, bottleneck_number, thesis_centres
from mrcnn.data.records import ImageRecord


def centre_of(layout, count):
    records = [ImageRecord(str(i), Path(str(i))) for i in range(count)]
    return Centre("x", Path("x"), layout, make_class_map("thesis13", layout), records)


def test_thesis_centres_are_whole_and_have_its_classes():
    centres = {
        "a": centre_of("matek19", 18_365),
        "b": centre_of("mll23", 41_621),
        "c": centre_of("acevedo20", 2_100),
        "d": centre_of("folders", 18_365),
    }
    assert thesis_centres(centres, "thesis13") == {"a": "matek19", "b": "int20"}
    assert thesis_centres(centres, "eleven") == {}


def test_numbers_are_those_of_the_thesis():
    assert ablation_number("AE-CFE", "matek19", "int20") == (48.4, 0.2)
    assert ablation_number("ResNet-RF", "int20", "int20") == (45.2, 1.1)
    assert ablation_number("ResNeXt", "acevedo20", "acevedo20") == (85.7, 2.4)
    assert ablation_number("Matek et al.", "matek19", "matek19") == (96.1, None)
    assert bottleneck_number(50, "resnet101", "ssim", "crop", "matek19") == 0.85
    assert bottleneck_number(1000, "resnet50", "mse", "image", "matek19") == 0.88
    assert bottleneck_number(5, "resnet50", "ssim", "image", "matek19") == 0.72


def test_numbers_are_none_of_what_the_thesis_lacks():
    assert ablation_number("AE-CFE (std)", "matek19", "int20") is None
    assert ablation_number("AE-CFE", "matek19", None) is None
    assert ablation_number("ResNeXt", "matek19", "int20") is None
    assert bottleneck_number(50, "resnet101", "ssim", "crop", None) is None
    assert bottleneck_number(7, "resnet101", "ssim", "crop", "matek19") is None
