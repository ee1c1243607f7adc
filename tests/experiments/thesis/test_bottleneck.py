import json
from pathlib import Path

import numpy as np
import pytest

from experiments.cache import Cache
from experiments.evaluation.comparison import Protocol
from experiments.thesis.bottleneck import (
    FIGURES,
    Bottleneck,
    Variant,
    make_bottleneck,
    scored_centre,
    settings_variants,
    write_bottleneck,
)
from mrcnn.files.errors import InputError

PROTOCOL = Protocol(runs=2, seed=0)
WHOLE, BOX = Variant("resnet101", "mse", "image"), Variant("resnet50", "ssim", "crop")


def measured(*runs):
    return {"accuracy": list(runs), "balanced_accuracy": [run / 2 for run in runs]}


# Two variants by two sizes, whose scores somebody wrote down.
SCORES = {(WHOLE, 5): measured(0.5, 0.7), (WHOLE, 50): measured(0.8, 0.8)}
SCORES |= {(BOX, 5): measured(0.6, 0.6), (BOX, 50): measured(0.9, 0.95)}
RESULT = Bottleneck(
    centre="m19",
    folders={key: Path(f"{key[0].name}-{key[1]}") for key in SCORES},
    scores=SCORES,
    baselines={("Handcrafted", "resnet101"): measured(0.4, 0.4), ("Handcrafted", "resnet50"): measured(0.3, 0.3)},
    num_cells={"resnet101": (80, 20), "resnet50": (79, 21)},
)


def written(tmp_path, thesis_centre=None):
    paths = write_bottleneck(RESULT, tmp_path, PROTOCOL, {"command": "`aecfe x`"}, thesis_centre)
    return {ending: path.read_text(encoding="utf-8") for ending, path in paths.items()}


def table_of(text, title):
    lines = text.partition(f"## {title}\n")[2].partition("\n## ")[0].splitlines()
    header, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")]
    return header, rows


def test_figures_and_columns_have_the_order_of_the_thesis(make_study):
    study = make_study(bottleneck={})
    assert [(each.name, FIGURES[each].removeprefix("figure-3.")) for each in settings_variants(study)] == [
        ("ResNet101-MSE", "10"), ("ResNet50-MSE", "6"), ("ResNet101-SSIM", "12"), ("ResNet50-SSIM", "8"),
        ("ResNet101-BB-MSE", "11"), ("ResNet50-BB-MSE", "7"), ("ResNet101-BB-SSIM", "13"), ("ResNet50-BB-SSIM", "9"),
    ]  # fmt: skip


def test_markdown_shows_accuracy_and_balanced_accuracy(tmp_path):
    text = written(tmp_path)["md"]
    header, rows = table_of(text, "Accuracy")
    assert header == ["Bottleneck", "ResNet101-MSE", "ResNet50-BB-SSIM"]
    # Both are best in the first row.
    assert rows == [
        ["5", "**60.0 ± 10.0**", "**60.0 ± 0.0**"],
        ["50", "80.0 ± 0.0", "**92.5 ± 2.5**"],
        ["Handcrafted", "40.0 ± 0.0", "30.0 ± 0.0"],
    ]
    assert table_of(text, "Balanced accuracy")[1][1] == ["50", "40.0 ± 0.0", "**46.2 ± 1.2**"]
    assert "ResNet101 found 80 to train on and 20 to test on; ResNet50 found 79 to train on and 21" in text
    assert "In brackets" not in text and text.endswith("## What made this\n\n- command: `aecfe x`\n")


def test_the_thesis_stands_in_brackets_on_its_own_data_in_every_file(tmp_path):
    texts = written(tmp_path, "matek19")
    # Thesis Table 3.1: ResNet101 AE-MSE 0.46 and 0.81, ResNet50 AE-SSIM-BB 0.72 and 0.84.
    assert table_of(texts["md"], "Accuracy")[1][0] == ["5", "**60.0 ± 10.0** [46]", "**60.0 ± 0.0** [72]"]
    assert "In brackets: the thesis' number." in texts["md"]
    assert r"50 & 80.0 $\pm$ 0.0 [81] & \textbf{92.5 $\pm$ 2.5} [84] \\" in texts["tex"]
    header, *rows = texts["csv"].splitlines()
    assert header.startswith("bottleneck,backbone,image_loss,image_source,accuracy_mean,accuracy_std,balanced_accuracy")
    assert rows[3:5] == [
        "50,resnet50,ssim,crop,0.9250,0.0250,0.4625,0.0125,0.84",
        "Handcrafted,resnet101,,,0.4000,0.0000,0.2000,0.0000,",
    ]
    content = json.loads(texts["json"])
    assert (content["centre"], content["runs"], content["num_test"]) == ("m19", 2, {"resnet101": 20, "resnet50": 21})
    assert content["cells"][0] == {
        "bottleneck": 5, "backbone": "resnet101", "image_loss": "mse", "image_source": "image",
        "autoencoder": "ResNet101-MSE-5", "accuracy": [0.5, 0.7], "balanced_accuracy": [0.25, 0.35],
    }  # fmt: skip
    # The thesis' table is of Matek-19 alone.
    assert "In brackets" not in written(tmp_path, "int20")["md"]


def test_make_bottleneck_scores_latents_that_say_the_type(make_study, monkeypatch):
    grid = {"sizes": [3, 6], "backbones": ["resnet50"], "image_losses": ["mse"], "image_sources": ["crop"]}
    study, wanted = make_study(bottleneck={**grid, "centre": "bert", "autoencoder": {"steps": 9}}), []

    def latents(folder):
        cells = study.cells("resnet50")
        return {c: np.eye(2, dtype=np.float32)[cells.class_numbers(types)] for c, types in cells.types.items()}

    monkeypatch.setattr(study, "train", lambda each: wanted.extend(each) or [Path("3"), Path("6")])
    monkeypatch.setattr(study, "latents", latents)
    result = make_bottleneck(study, PROTOCOL)
    common = {"steps": 9, "adaptation": "none", "image_loss": "mse", "image_source": "crop"}
    assert wanted == [({**common, "latent_size": size}, "resnet50") for size in (3, 6)]
    key = (Variant("resnet50", "mse", "crop"), 3)
    assert list(result.scores) == [key, (key[0], 6)] and result.centre == "bert"
    right = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1"), [1.0, 1.0])
    assert result.scores[key] == right
    assert result.num_cells == {"resnet50": (16, 4)}
    assert set(result.baselines) == {(name, "resnet50") for name in ("Handcrafted", "Handcrafted, Lab", "R-CNN-RF")}
    assert result.baselines["R-CNN-RF", "resnet50"]["accuracy"] == [1.0, 1.0]
    assert study.cache.num_made == 1 + 3 + 2 * 2  # predictions, and handcrafted vectors of two centres

    # Predictions are numbers of classes, so that those in another order are not read for these.
    study.cache = Cache(study.cache.folder)
    cells = study.cells()
    turned = type(cells)(cells.image_ids, cells.types, cells.parts, cells.classes[::-1])
    monkeypatch.setattr(study, "cells", lambda backbone: turned)
    assert make_bottleneck(study, PROTOCOL).scores[key] == right
    assert study.cache.num_made == 1 + 3


def test_a_centre_that_is_not_compared_is_named(make_study):
    study = make_study(bottleneck={"centre": "bert"})
    assert scored_centre(study) == "bert" and scored_centre(make_study(bottleneck={})) == "anna"
    study.settings.centres["bert"] = study.settings.centres["bert"].replace(use="detector")
    with pytest.raises(InputError, match="reproduce.bottleneck.centre: bert is none of anna; choose another"):
        scored_centre(study)
