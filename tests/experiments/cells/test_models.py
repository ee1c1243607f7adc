"""Trained models: where they are found, and the cards beside them."""

import json
from pathlib import Path

import pytest

from experiments.cells.models import CARDS, add_cards, autoencoder_folder, detector_folder
from mrcnn.files.errors import InputError


def test_trained_folders_are_found_in_a_run(tmp_path):
    (tmp_path / "detector").mkdir()
    (tmp_path / "detector" / "config.json").touch()
    assert detector_folder(tmp_path) == detector_folder(tmp_path / "detector") == tmp_path / "detector"
    with pytest.raises(InputError, match="no trained autoencoder there"):
        autoencoder_folder(tmp_path)
    (tmp_path / "adapted").mkdir()
    (tmp_path / "adapted" / "scaling.npz").touch()
    assert autoencoder_folder(tmp_path) == autoencoder_folder(tmp_path / "adapted") == tmp_path / "adapted"
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "scaling.npz").touch()
    with pytest.raises(InputError, match="name one of them: .*adapted, .*plain"):
        autoencoder_folder(tmp_path)


def test_trained_networks_get_a_card_that_keeps_what_people_wrote(tmp_path, caplog):
    for name, run_json in {
        "detector": {"complete": True, "seed": 1, "train_images": {"north": 40}, "versions": {"keras": "3"}},
        "autoencoder": {"complete": True, "seed": 2, "stores": {"river": {"cells": 7}}, "losses": {"total": 0.5}},
        "begun": {"complete": False},
        "oracle": {"complete": True, "kind": "oracle"},
    }.items():
        (tmp_path / name).mkdir()
        for file in ("config.json", "weights.weights.h5"):
            (tmp_path / name / file).write_text(name)
        (tmp_path / name / "run.json").write_text(json.dumps(run_json))
    (tmp_path / "autoencoder" / "scaling.npz").write_text("")
    (tmp_path / "begun" / "run.json").write_text('{"complete": tr')  # a fault of another model ends no training
    cards = [tmp_path / name / "MODEL_CARD.md" for name in ("autoencoder", "detector")]
    assert add_cards(tmp_path) == cards
    assert "run.json" in caplog.text and "no model card is written there" in caplog.text
    assert "`river`: 7 cells" in cards[0].read_text() and "total at the end: 0.5" in cards[0].read_text()
    assert "`north`: 40 images" in cards[1].read_text() and "Not for diagnosis" in cards[1].read_text()
    cards[1].write_text(cards[1].read_text() + "from people")
    assert add_cards(tmp_path / "detector") == [] and cards[1].read_text().endswith("from people")
    (tmp_path / "detector" / "weights.weights.h5").write_text("others")
    assert add_cards(tmp_path / "detector") == [] and "tells of other weights" in caplog.text


def test_the_documented_card_is_the_one_with_every_question():
    text = (Path(__file__).parents[3] / "docs" / "model-card.md").read_text(encoding="utf-8")
    assert CARDS.get_template("base.md.jinja").render() in text
