"""Table 3.3 with a published classifier: where it stands, and that it sees the images that it is said to see."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from experiments.evaluation.comparison import Column, Protocol
from experiments.thesis import oracle_table
from experiments.thesis.oracle_table import PUBLISHED, Published, make_oracles
from mrcnn.data.images import read_image
from mrcnn.files.errors import InputError

PROTOCOL = Protocol(runs=1, seed=0, bootstrap=100, jobs=1)
OWN, ACROSS = [("anna", "anna"), ("anna", "bert")], [("bert", "anna"), ("bert", "bert")]
PALE = 201.5  # mean green of an image: the drawn cells are dark on a pale ground, and some are larger than others


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """In place of trained networks: latents that are the types, and a ResNeXt that predicts one type always."""

    def own_columns(study, names):
        cells = study.cells()
        vectors = {c: np.eye(2, dtype=np.float32)[cells.class_numbers(t)] for c, t in cells.types.items()}
        return [Column(name, (vectors,)) for name in names]

    def train_and_test(study, cells, images, normalization, protocol):
        return {pair: np.zeros((1, len(cells.test_rows(pair, protocol.test_on))), np.int16) for pair in cells.pairs}

    monkeypatch.setattr(oracle_table, "own_columns", own_columns)
    monkeypatch.setattr(oracle_table, "_train_and_test", train_and_test)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One working folder for all tests, so that the forests are grown once."""
    return tmp_path_factory.mktemp("oracles")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A classifier that takes images of any size, and predicts the pale ones as monocytes and the others debris."""
    folder = tmp_path_factory.mktemp("published")
    images = keras.Input((None, None, 3))
    scores = keras.layers.Dense(2, name="scores")(keras.layers.GlobalAveragePooling2D()(images))
    model = keras.Model(images, scores)
    model.get_layer("scores").set_weights([np.array([[0, 0], [-1, 1], [0, 0]]), np.array([PALE, -PALE])])
    model.save(folder / "pale.keras")
    (folder / "classes.txt").write_text("debris\nMonocyte\n")
    return Published(folder / "pale.keras", folder / "classes.txt", pixels="0..255", image_size=48)


def predicted_by(comparison):
    return comparison.predictions[PUBLISHED, "network"]


def test_published_classifier_predicts_from_the_images_in_the_rows_of_its_centre(make_study, folder, published):
    study = make_study(folder)
    comparison = make_oracles(study, PROTOCOL, replace(published, centre="anna"))
    networks, forests = ("ResNeXt (GroupNorm)", PUBLISHED), ("AE-CFE", "AE-CFE (std)", "R-CNN-RF", "R-CNN-RF (std)")
    assert comparison.columns == networks + forests
    for (column, _), by_pair in comparison.predictions.items():
        assert list(by_pair) == (OWN if column == PUBLISHED else OWN + ACROSS)
    cells, named = comparison.cells, predicted_by(comparison)
    kinds = set()
    for pair, (numbers,) in named.items():
        paths = {record.image_id: record.path for record in study.centres[pair[1]].records}
        keys = cells.image_ids[pair[1]][cells.test_rows(pair, "test")]
        is_pale = np.array([read_image(paths[key])[..., 1].mean() > PALE for key in keys])
        # Debris is none of the types that are compared.
        np.testing.assert_array_equal(numbers, np.where(is_pale, cells.classes.index("monocyte"), -1))
        kinds |= set(is_pale.tolist())
    assert kinds == {True, False}


def test_published_classifier_is_asked_again_only_where_the_images_are_of_another_size(make_study, folder, published):
    for size, num_made in ((48, None), (48, 0), (40, 2)):  # other sizes: the predictions for either centre
        study = make_study(folder)
        make_oracles(study, PROTOCOL, replace(published, centre="anna", image_size=size))
        assert num_made in (None, study.cache.num_made)


def test_the_note_of_a_network_tells_its_own_cardinality(make_study, folder):
    study = make_study(folder, oracle={"normalizations": ["group"], "network": {"cardinality": 8}})
    assert "ResNeXt of cardinality 8 with GroupNorm" in make_oracles(study, PROTOCOL).notes["ResNeXt (GroupNorm)"]


def test_origin_is_the_centre_of_layout_matek19_unless_named_or_none(make_study, folder, published):
    study = make_study(folder)
    assert list(predicted_by(make_oracles(study, PROTOCOL, replace(published, centre="none")))) == OWN + ACROSS
    with pytest.raises(InputError, match=r"--oracle: say with --oracle-centre .*: anna, bert, or none$"):
        make_oracles(study, PROTOCOL, published)
    study.opened["bert"] = replace(study.opened["bert"], layout="matek19")
    assert list(predicted_by(make_oracles(study, PROTOCOL, published))) == ACROSS


def test_published_classifier_is_checked_before_anything_is_trained(make_study, published, monkeypatch, tmp_path):
    monkeypatch.setattr(oracle_table, "own_columns", lambda *_: pytest.fail("trained"))
    (tmp_path / "pets.txt").write_text("cat\ndog\n")
    for changes, message in [
        ({"centre": "carl"}, r"--oracle-centre carl: is none of anna, bert, none"),
        ({"centre": "anna", "image_size": None}, r"pale.keras: takes images of any size; .*--oracle-size"),
        ({"centre": "anna", "classes": tmp_path / "pets.txt"}, r"no cell type for any class .*\(cat, dog\)"),
    ]:
        with pytest.raises(InputError, match=message):
            make_oracles(make_study(), PROTOCOL, replace(published, **changes))
