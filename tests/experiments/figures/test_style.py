import numpy as np
import pytest
from matplotlib.colors import to_hex

from experiments.figures.style import (
    GREY,
    PALETTE,
    choose_rows,
    draw_loss_curves,
    draw_maps,
    draw_score_dots,
    group_style,
    project,
    to_png,
)

PNG = b"\x89PNG"


def log_rows(*losses):
    return [{"step": str(10 * (i + 1)), "loss": str(loss)} for i, loss in enumerate(losses)]


def test_choose_rows_is_sorted_unique_and_seeded():
    rows = choose_rows(100, 10, seed=3)
    assert len(rows) == 10 and np.all(np.diff(rows) > 0)
    assert rows.min() >= 0 and rows.max() < 100
    np.testing.assert_array_equal(rows, choose_rows(100, 10, seed=3))
    assert not np.array_equal(rows, choose_rows(100, 10, seed=4))
    np.testing.assert_array_equal(choose_rows(4, 10, seed=0), [0, 1, 2, 3])


def test_draw_loss_curves_draws_the_logged_values():
    figure = draw_loss_curves({"detector": log_rows(3.0, 2.0, 1.5)}, {"All": ("loss",)})
    (line,) = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), [10, 20, 30])
    np.testing.assert_array_equal(line.get_ydata(), [3.0, 2.0, 1.5])


def test_draw_loss_curves_draws_validation_dashed_and_skips_empty_cells():
    rows = [{"step": "1", "loss": "3", "val_loss": ""}, {"step": "2", "loss": "2", "val_loss": "2.5"}]
    solid, dashed = draw_loss_curves({"detector": rows}, {"All": ("loss",)}).axes[0].lines
    assert solid.get_linestyle() == "-" and len(solid.get_xdata()) == 2
    assert dashed.get_linestyle() == "--" and dashed.get_xdata().tolist() == [2]


def test_draw_loss_curves_leaves_zeros_and_nan_out_of_a_logarithmic_axis():
    figure = draw_loss_curves(
        {"a": log_rows(1.0, 0.0, "nan", 0.1), "b": log_rows(0.0, 0.0)}, {"All": ("loss",)}, log_scale=True
    )
    (line,) = figure.axes[0].lines
    assert line.get_ydata().tolist() == [1.0, 0.1]
    assert figure.axes[0].get_yscale() == "log"


def test_draw_loss_curves_without_values_still_renders():
    figure = draw_loss_curves({"a": []}, {"All": ("loss",)}, log_scale=True)
    assert to_png(figure).startswith(PNG)


def test_draw_score_dots_renders_with_a_missing_score_and_names_the_rows():
    figure = draw_score_dots(["a → b", "b → a"], {"X": [(0.5, 0.1), None]}, [0.2, 0.2], xlabel="score")
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["a → b", "b → a"]
    assert to_png(figure).startswith(PNG)


def test_draw_maps_draws_every_cell_once_in_the_colour_of_its_group():
    groups = {"by type": (["b", "", "a", "b"], ["a", "b"])}
    points = np.arange(8.0).reshape(4, 2)
    (axes,) = draw_maps(points, groups).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "no type"]
    colors = {}
    for collection in axes.collections:
        for point in collection.get_offsets():
            assert tuple(point) not in colors
            colors[tuple(point)] = to_hex(collection.get_facecolor()[0])
    expected = [group_style(1)[0], GREY, group_style(0)[0], group_style(1)[0]]
    assert [colors[tuple(point)] for point in points] == expected


def test_groups_beyond_the_palette_still_differ():
    assert len({group_style(i) for i in range(2 * len(PALETTE))}) == 2 * len(PALETTE)


def test_to_png_gives_the_same_bytes_twice():
    first, second = (to_png(draw_loss_curves({"a": log_rows(2, 1)}, {"All": ("loss",)})) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("count", [0, 1, 2, 3, 11])
def test_project_of_few_vectors_is_pca(count):
    vectors = np.random.default_rng(0).normal(size=(count, 5))
    points, method = project(vectors, seed=0)
    assert method == "PCA" and points.shape == (count, 2) and np.isfinite(points).all()


def test_project_by_pca_keeps_distances_of_planar_points():
    plane = np.random.default_rng(1).normal(size=(8, 2))
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    points, _ = project(np.pad(plane, ((0, 0), (0, 4))) @ rotation, seed=0)
    expected = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(points[:, None] - points[None], axis=-1), expected, atol=1e-5)


@pytest.mark.slow
def test_project_by_umap_separates_far_groups_and_repeats():
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(0, 1, (25, 8)), rng.normal(30, 1, (25, 8))])
    points, method = project(vectors, seed=5)
    assert method == "UMAP" and points.shape == (50, 2)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag(np.full(50, np.inf))
    group = np.repeat([0, 1], 25)
    np.testing.assert_array_equal(group[distances.argmin(axis=1)], group)
    np.testing.assert_array_equal(points, project(vectors, seed=5)[0])
