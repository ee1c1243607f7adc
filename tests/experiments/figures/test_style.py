import numpy as np
import pytest
from matplotlib.colors import to_hex
from scipy.spatial.distance import pdist

from experiments.figures import style

PNG = b"\x89PNG"


def log_rows(*losses):
    return [{"step": str(10 * (i + 1)), "loss": str(loss)} for i, loss in enumerate(losses)]


def test_choose_rows_is_sorted_unique_and_seeded():
    rows = style.choose_rows(100, 10, seed=3)
    assert len(rows) == 10 and np.all(np.diff(rows) > 0)
    assert rows.min() >= 0 and rows.max() < 100
    np.testing.assert_array_equal(rows, style.choose_rows(100, 10, seed=3))
    assert not np.array_equal(rows, style.choose_rows(100, 10, seed=4))
    np.testing.assert_array_equal(style.choose_rows(4, 10, seed=0), [0, 1, 2, 3])


def test_draw_loss_curves_draws_the_logged_values_validation_dashed():
    rows = [{"step": "1", "loss": "3", "val_loss": ""}, {"step": "2", "loss": "2", "val_loss": "2.5"}]
    solid, dashed = style.draw_loss_curves({"detector": rows}, {"All": ("loss",)}).axes[0].lines
    assert (solid.get_linestyle(), solid.get_xdata().tolist(), solid.get_ydata().tolist()) == ("-", [1, 2], [3, 2])
    assert (dashed.get_linestyle(), dashed.get_xdata().tolist(), dashed.get_ydata().tolist()) == ("--", [2], [2.5])


def test_draw_loss_curves_leaves_zeros_and_nan_out_of_a_logarithmic_axis():
    logs = {"a": log_rows(1.0, 0.0, "nan", 0.1), "b": log_rows(0.0, 0.0)}
    (axes,) = style.draw_loss_curves(logs, {"All": ("loss",)}, log_scale=True).axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[1.0, 0.1]] and axes.get_yscale() == "log"
    empty = style.draw_loss_curves({"a": []}, {"All": ("loss",)}, log_scale=True)
    assert style.to_png(empty).startswith(PNG) and style.to_png(empty) == style.to_png(empty)


def test_draw_score_dots_renders_with_a_missing_score_and_names_the_rows():
    figure = style.draw_score_dots(["a → b", "b → a"], {"X": [(0.5, 0.1), None]}, [0.2, 0.2], xlabel="score")
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["a → b", "b → a"]
    assert style.to_png(figure).startswith(PNG)


def test_draw_maps_draws_every_cell_once_in_the_colour_of_its_group():
    groups = {"by type": (["b", "", "a", "b"], ["a", "b"])}
    points = np.arange(8.0).reshape(4, 2)
    (axes,) = style.draw_maps(points, groups).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "no type"]
    colors = {}
    for collection in axes.collections:
        for point in collection.get_offsets():
            assert tuple(point) not in colors
            colors[tuple(point)] = to_hex(collection.get_facecolor()[0])
    expected = [style.group_style(1)[0], style.GREY, style.group_style(0)[0], style.group_style(1)[0]]
    assert [colors[tuple(point)] for point in points] == expected


def test_project_of_few_vectors_is_pca():
    for count in (0, 1, 2, 3, 11):
        points, method = style.project(np.random.default_rng(0).normal(size=(count, 5)), seed=0)
        assert method == "PCA" and points.shape == (count, 2) and np.isfinite(points).all()
    plane = np.random.default_rng(1).normal(size=(8, 2))
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    points, _ = style.project(np.pad(plane, ((0, 0), (0, 4))) @ rotation, seed=0)
    np.testing.assert_allclose(pdist(points), pdist(plane), atol=1e-5)


@pytest.mark.slow
def test_project_by_umap_separates_far_groups_and_repeats():
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(0, 1, (25, 8)), rng.normal(30, 1, (25, 8))])
    points, method = style.project(vectors, seed=5)
    assert method == "UMAP" and points.shape == (50, 2)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag(np.full(50, np.inf))
    group = np.repeat([0, 1], 25)
    np.testing.assert_array_equal(group[distances.argmin(axis=1)], group)
    np.testing.assert_array_equal(points, style.project(vectors, seed=5)[0])
