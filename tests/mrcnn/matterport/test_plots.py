import sys
from types import ModuleType, SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest

from mrcnn.matterport import plots


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_plot_precision_recall_draws_the_curve():
    plots.plot_precision_recall(0.8765, np.array([1.0, 0.5]), np.array([0.0, 1.0]))
    np.testing.assert_array_equal(plt.gca().lines[0].get_xydata(), [[0, 1], [1, 0.5]])
    assert plt.gca().get_title().endswith(("0.876", "0.877"))


def test_plot_overlaps_marks_matches_and_wrong_classes():
    overlaps = np.array([[0.9, 0.0], [0.2, 0.6]])
    plots.plot_overlaps(
        np.array([1, 2, 0]), np.array([1, 1]), np.array([0.99, 0.5]), overlaps, ["BG", "cell", "platelet"]
    )
    ax = plt.gca()
    assert [t.get_text() for t in ax.texts] == ["0.900\nmatch", "0.000", "0.200", "0.600\nwrong"]
    assert [t.get_color() for t in ax.texts] == ["white", "grey", "black", "white"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["cell (0.99)", "cell (0.50)"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["cell", "platelet"]


@pytest.mark.filterwarnings("error")
def test_plot_overlaps_without_detections():
    plots.plot_overlaps([1], [], [], np.zeros((0, 1)), ["BG", "cell"])
    assert not plt.gca().texts and [t.get_text() for t in plt.gca().get_xticklabels()] == ["cell"]


@pytest.mark.parametrize("session", [None, object()])
def test_display_table_prints_columns_but_gives_html_to_a_notebook(monkeypatch, capsys, session):
    shown = []
    package, module = ModuleType("IPython"), ModuleType("IPython.display")
    package.get_ipython, module.HTML, module.display = lambda: session, str, shown.append
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    plots.display_table([["NAME", "SIZE"], ["<long name>", 3], ["short"]])
    printed = capsys.readouterr().out.splitlines()
    assert bool(shown) != bool(printed)
    if session is None:
        assert printed == ["NAME         SIZE", "<long name>  3", "short"]
    else:
        assert shown[0].startswith("<table>") and "<td>&lt;long name&gt;</td><td>3" in shown[0]


def test_display_weight_stats_lists_weights_and_alerts(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "IPython", None)
    layers = [keras.layers.Dense(2, name=name) for name in ("fine", "dead", "wild")]
    for layer in layers:
        layer.build((None, 3))
    kernel = np.array([[1.0, 2.0], [3.0, 4.0], [-5.0, 6.0]], np.float32)
    for layer, values in zip(layers, (kernel, 0 * kernel, 1000 * kernel), strict=True):
        layer.kernel.assign(values)
    plots.display_weight_stats(SimpleNamespace(get_trainable_layers=lambda: layers))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["WEIGHT", "NAME", "SHAPE", "MIN", "MAX", "STD"] and len(lines) == 7
    assert lines[1] == ["fine/kernel", "(3,", "2)", "-5.0000", "+6.0000", f"{kernel.std():+.4f}"]
    assert lines[3][:2] == ["dead/kernel***", "dead?"] and lines[5][:2] == ["wild/kernel***", "Overflow?"]
    assert not any("dead" in part for part in lines[2])  # biases start at zero
