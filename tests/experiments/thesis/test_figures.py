import dataclasses

import numpy as np
import pytest

from experiments.evaluation.comparison import MAIN_PROBE, NETWORK, Comparison, Protocol
from experiments.evaluation.transfer import make_cells
from experiments.thesis.figures import class_distribution, comparison_figures, sample_sheets
from mrcnn.files.errors import InputError

ALL_RIGHT = np.array([[0, 1]])


def comparison_of(predictions, centres=("anna", "bert")):
    """Each centre tests a cell of type a and one of type b."""
    types = {c: np.array(["a", "b", "a", "b"]) for c in centres}
    parts = {c: np.array(["train", "train", "test", "test"]) for c in centres}
    cells = make_cells({c: np.arange(4).astype(str) for c in centres}, types, parts)
    named = {key: dict.fromkeys(cells.pairs, runs) for key, runs in predictions.items()}
    columns = tuple(column for column, _ in predictions)
    return Comparison(columns, {}, (MAIN_PROBE,), cells, Protocol(bootstrap=100), named, {})


def texts_of(drawing):
    return [text.get_text() for axes in drawing.figure.axes for text in [*axes.texts, *axes.get_xticklabels()]]


def test_comparison_figures_show_names_outside_the_classes():
    predictions = {("net", NETWORK): np.array([[0, -1]]), ("x", MAIN_PROBE): ALL_RIGHT}
    *_, confusion = comparison_figures(comparison_of(predictions), "table-3.3")
    assert "across centres" in confusion.title and "none of these" in texts_of(confusion)
    # Two rows of two columns with one 100 each, and none of the empty third row; one more is of the colour bar.
    assert texts_of(confusion).count("100") == 4 + 1


def test_comparison_figures_of_one_centre_and_without_room(caplog):
    predictions = {(f"x{i}", MAIN_PROBE): ALL_RIGHT for i in range(17)}
    recall, confusion = comparison_figures(comparison_of(predictions, ("anna",)), "table-3.2")
    assert (recall.name, confusion.name) == ("table-3.2-recall", "table-3.2-confusion")
    assert "within the centre" in recall.title and "none of these" not in texts_of(confusion)
    assert "table-3.2-recall: has no room for x8, x9" in caplog.text
    assert "table-3.2-confusion: has no room for x16" in caplog.text


def test_comparison_figures_of_columns_without_all_pairs_are_none():
    comparison = comparison_of({("net", NETWORK): ALL_RIGHT})
    del comparison.predictions["net", NETWORK]["anna", "bert"]
    assert list(comparison_figures(comparison, "table-3.3")) == []


def with_centres(study, names):
    """The study with further centres that are copies of the first."""
    for name in names:
        study.settings.centres[name] = study.settings.centres["anna"]
        study.opened[name] = dataclasses.replace(study.opened["anna"], name=name)
    return study


def test_sample_sheets_give_further_centres_files_of_their_own(make_study, tmp_path):
    study = with_centres(make_study(), ["carl", "lab: no. 4"])
    assert [drawing.name for drawing in sample_sheets(study, 2)] == ["figure-3.2"]
    assert [drawing.name for drawing in sample_sheets(study, 3)] == ["figure-3.3", "figure-3.3-lab-no.-4"]
    records = study.opened["anna"].records
    records[:] = [dataclasses.replace(record, path=tmp_path / "gone.png") for record in records]
    with pytest.raises(InputError, match="figure-3.1: none of the images of anna that were chosen can be opened"):
        list(sample_sheets(study, 1))


def test_class_distribution_of_too_many_centres_is_left_out(make_study, caplog):
    names = [f"c{i}" for i in range(7)]
    assert [each.name for each in class_distribution(with_centres(make_study(), names[:6]))] == ["figure-3.4"]
    assert list(class_distribution(with_centres(make_study(), names))) == []
    assert "figure-3.4: not drawn, since bars of more than 8 centres" in caplog.text
