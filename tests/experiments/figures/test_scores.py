import numpy as np
import pytest
from matplotlib.colors import to_rgb

from experiments.centres.class_maps import THESIS_CLASSES
from experiments.figures import scores as figure_scores
from experiments.figures.scores import draw_before_after, draw_bottleneck_curves, draw_confusions, draw_recall_intervals
from experiments.figures.sheets import PAGE_HEIGHT, PAGE_WIDTH
from experiments.figures.style import GREY, group_style, tint

SIZES = (5, 10, 50, 100, 150, 300, 400, 650, 1000)
VARIANTS = [f"ResNet{depth}-{crop}{loss}" for depth in (50, 101) for crop in ("", "BB-") for loss in ("MSE", "SSIM")]


def is_cut(figure):
    """Whether anything that is drawn reaches beyond the figure."""
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return min(drawn.x0, drawn.y0) < -0.01 or drawn.x1 > width + 0.01 or drawn.y1 > height + 0.01


def overlapping(texts):
    """Pairs of texts that lie over one another."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    return [(a, b) for i, (a, first) in enumerate(boxes) for b, second in boxes[:i] if first.overlaps(second)]


def is_named(axis):
    return any(label.get_text() for label in axis.get_ticklabels())


def names_of(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_draw_confusions_writes_percentages_of_the_rows():
    confusion = np.array([[199, 1, 0], [5, 15, 0], [0, 0, 0]])
    figure = draw_confusions({"a → b": confusion}, ["x_1", "y", "z"])
    axes = figure.axes[0]
    written = {tuple(np.floor(text.get_position()).astype(int)): text.get_text() for text in axes.texts}
    # 1 of 200 rounds to 0 and is not written.
    assert written == {(0, 0): "100", (0, 1): "25", (1, 1): "75"}
    values = axes.collections[0].get_array().reshape(3, 3)
    np.testing.assert_allclose(values[:2], [[99.5, 0.5, 0], [25, 75, 0]])
    assert np.ma.getmaskarray(values)[2].all() and not np.ma.getmaskarray(values)[:2].any()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x 1", "y", "z"]
    assert axes.yaxis_inverted() and axes.get_title() == "a → b"


def test_draw_confusions_of_16_panels_and_13_classes_fits_a_page():
    centres = ("Matek-19", "INT-20", "Acevedo-20", "cellavision")
    confusions = {f"{a} → {b}": np.eye(13, dtype=int) for a in centres for b in centres}
    confusions["Matek-19 → Matek-19"] = np.full((13, 13), 10) + np.diag(np.full(13, 40))
    figure = draw_confusions(confusions, THESIS_CLASSES)
    width, height = figure.get_size_inches()
    assert width <= PAGE_WIDTH + 1e-6 and height <= PAGE_HEIGHT
    assert not is_cut(figure)
    *panels, bar = figure.axes
    assert len(panels) == 16 and not overlapping([axes.title for axes in panels])
    assert not overlapping(panels[0].texts)  # every cell of it holds two digits
    assert [is_named(axes.yaxis) for axes in panels] == [True, False, False, False] * 4
    assert [is_named(axes.xaxis) for axes in panels] == [False] * 12 + [True] * 4
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert not any(first.overlaps(second) for i, first in enumerate(boxes) for second in boxes[:i])


def test_draw_confusions_writes_on_dark_cells_in_white():
    texts = draw_confusions({"a": np.array([[9, 1], [1, 9]])}, ["x", "y"]).axes[0].texts
    assert {text.get_text(): text.get_color() for text in texts} == {"90": "white", "10": "black"}


def test_draw_confusions_of_an_incomplete_row_names_classes_below_every_column():
    figure = draw_confusions({str(i): np.eye(2, dtype=int) for i in range(5)}, ["x", "y"], columns=3)
    assert [is_named(axes.xaxis) for axes in figure.axes[:5]] == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("confusions", "options", "message"),
    [
        ({}, {}, "1 to 16"),
        ({str(i): np.eye(2) for i in range(17)}, {}, "got 17"),
        ({"a": np.eye(3)}, {}, r"a has shape \(3, 3\)"),
        ({"a": np.eye(2)}, {"columns": 0}, "columns"),
    ],
)
def test_draw_confusions_refuses(confusions, options, message):
    with pytest.raises(ValueError, match=message):
        draw_confusions(confusions, ["x", "y"], **options)


def test_draw_recall_intervals_draws_values_and_reaches():
    recalls = {"AE-RF": {"x": (0.5, 0.4, 0.7), "y": None}, "AE-CFE": {"x": (0.6, 0.6, 0.6), "y_z": (1.0, 0.8, 1.0)}}
    figure = draw_recall_intervals(recalls, ["x", "y", "y_z"], xlabel="recall on tecom")
    (axes,) = figure.axes
    first, second = axes.containers
    assert first[0].get_xdata().tolist() == [0.5] and second[0].get_xdata().tolist() == [0.6, 1.0]
    np.testing.assert_allclose(first[2][0].get_segments()[0][:, 0], [0.4, 0.7])
    np.testing.assert_allclose(second[2][0].get_segments()[1][:, 0], [0.8, 1.0])
    assert np.round(first[0].get_ydata()).tolist() == [0] and np.round(second[0].get_ydata()).tolist() == [0, 2]
    assert first[0].get_ydata()[0] != second[0].get_ydata()[0]
    assert first[0].get_marker() != second[0].get_marker()
    assert names_of(figure.legends[0]) == ["AE-RF", "AE-CFE"] and axes.get_xlabel() == "recall on tecom"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y", "y z"]


def test_draw_recall_intervals_of_eight_methods_and_13_classes_fits_a_page():
    values = {name: (0.5, 0.4, 0.6) for name in THESIS_CLASSES}
    figure = draw_recall_intervals({f"ND-AE-DA {i}": values for i in range(8)}, THESIS_CLASSES)
    assert figure.get_size_inches()[1] <= PAGE_HEIGHT and not is_cut(figure)
    heights = np.sort(np.concatenate([container[0].get_ydata() for container in figure.axes[0].containers]))
    assert len(heights) == 8 * 13 and np.diff(heights).min() > 0


def test_draw_recall_intervals_refuses_nothing_and_values_outside():
    for recalls, classes in (({}, ["x"]), ({"a": {}}, [])):
        with pytest.raises(ValueError, match="no recalls"):
            draw_recall_intervals(recalls, classes)
    for interval in ((0.5, 0.6, 0.7), (0.5, 0.2, 0.4), (np.nan, 0, 1)):
        with pytest.raises(ValueError, match="AE has a recall outside"):
            draw_recall_intervals({"AE": {"x": interval}}, ["x"])


def cells(count, num_types=13):
    rng = np.random.default_rng(0)
    centres = rng.choice(["Matek-19", "INT-20", "Acevedo-20"], count).tolist()
    types = rng.choice(THESIS_CLASSES[:num_types], count).tolist()
    return rng.normal(size=(count, 2)), rng.normal(size=(count, 2)), centres, types


def test_draw_before_after_draws_every_cell_once_in_each_of_four_panels():
    before, after, centres, types = cells(60)
    types[:7] = [""] * 7
    figure = draw_before_after(before, after, centres, types, ["Matek-19", "INT-20", "Acevedo-20"], THESIS_CLASSES)
    assert len(figure.axes) == 4
    for axes, expected in zip(figure.axes, (before, after, before, after), strict=True):
        drawn = np.concatenate([collection.get_offsets() for collection in axes.collections])
        np.testing.assert_array_equal(np.sort(drawn, axis=0), np.sort(expected, axis=0))
        assert not any(collection.get_rasterized() for collection in axes.collections)
    assert [axes.get_title() for axes in figure.axes] == ["Before adaptation", "After adaptation", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["by centre", "", "by type", ""]
    legends = [axes.get_legend() for axes in figure.axes]
    assert legends[0] is None and legends[2] is None
    assert names_of(legends[1]) == ["Matek-19", "INT-20", "Acevedo-20"]
    assert names_of(legends[3]) == [*(name.replace("_", " ") for name in THESIS_CLASSES), "no type"]
    grey = [c for c in figure.axes[2].collections if np.allclose(c.get_facecolor()[0, :3], to_rgb(GREY))]
    np.testing.assert_array_equal(np.concatenate([c.get_offsets() for c in grey]), before[:7])
    assert not is_cut(figure)


def test_draw_before_after_colours_a_group_alike_in_both_maps():
    before, after = np.zeros((2, 2)), np.ones((2, 2))
    figure = draw_before_after(before, after, ["a", "b"], ["t", "t"], ["a", "b"], ["t"])
    for axes in figure.axes[:2]:
        colors = {tuple(c.get_facecolor()[0, :3]) for c in axes.collections if len(c.get_offsets())}
        assert colors == {to_rgb(group_style(0)[0]), to_rgb(group_style(1)[0])}


def test_draw_before_after_mixes_groups_so_that_none_lies_on_top():
    count = 400
    centres = ["a", "b"] * (count // 2)
    points = np.random.default_rng(0).normal(size=(count, 2))
    figure = draw_before_after(points, points, centres, [""] * count, ["a", "b"], [])
    drawn = [tuple(c.get_facecolor()[0]) for c in figure.axes[0].collections if len(c.get_offsets())]
    changes = sum(first != second for first, second in zip(drawn, drawn[1:], strict=False))
    assert changes > 20


def test_draw_before_after_rasterises_many_points(monkeypatch):
    assert figure_scores.MAX_VECTOR_POINTS == 5000
    monkeypatch.setattr(figure_scores, "MAX_VECTOR_POINTS", 30)
    before, after, centres, types = cells(31, num_types=2)
    orders = (["Matek-19", "INT-20", "Acevedo-20"], THESIS_CLASSES[:2])
    figure = draw_before_after(before, after, centres, types, *orders)
    assert all(collection.get_rasterized() for axes in figure.axes for collection in axes.collections)
    few = draw_before_after(before[:-1], after[:-1], centres[:-1], types[:-1], *orders)
    assert not any(collection.get_rasterized() for axes in few.axes for collection in axes.collections)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"after": np.zeros((1, 2))}, "After adaptation: points have shape"),
        ({"before": np.zeros((2, 3))}, "Before adaptation: points have shape"),
        ({"types": ["t"]}, "by type: 1 names for 2 cells"),
        ({"centre_order": ["a"]}, "by centre: the order lacks b"),
        ({"type_order": []}, "by type: the order lacks t"),
    ],
)
def test_draw_before_after_refuses(change, message):
    arguments = {
        "before": np.zeros((2, 2)),
        "after": np.zeros((2, 2)),
        "centres": ["a", "b"],
        "types": ["t", ""],
        "centre_order": ["a", "b"],
        "type_order": ["t"],
    }
    draw_before_after(**arguments)
    with pytest.raises(ValueError, match=message):
        draw_before_after(**{**arguments, **change})


def curves(names):
    return {name: {size: (0.5 + i / 50, 0.01) for size in SIZES} for i, name in enumerate(names)}


def look(line):
    return (line.get_color(), line.get_linestyle(), line.get_marker(), line.get_markerfacecolor())


def test_draw_bottleneck_curves_draws_each_variant_with_a_look_of_its_own():
    figure = draw_bottleneck_curves(curves(VARIANTS))
    (axes,) = figure.axes
    lines = {container.get_label(): container[0] for container in axes.containers}
    assert list(lines) == VARIANTS and names_of(figure.legends[0]) == VARIANTS
    assert all(line.get_xdata().tolist() == list(SIZES) for line in lines.values())
    assert len({look(line) for line in lines.values()}) == 8
    for name, line in lines.items():
        assert line.get_linestyle() == ("-" if "101" in name else "--")
        assert (line.get_markerfacecolor() == "white") == ("BB" not in name)
        assert line.get_marker() == lines[name.replace("BB-", "")].get_marker()
    # Without colour: dashes, marker and its fill still tell all apart.
    assert len({look(line)[1:3] + (look(line)[3] == "white",) for line in lines.values()}) == 8


def test_draw_bottleneck_curves_has_the_sizes_as_ticks():
    figure = draw_bottleneck_curves(curves(VARIANTS[:2]))
    assert not is_cut(figure)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(size) for size in SIZES]
    assert not overlapping(axes.get_xticklabels())
    assert not figure.legends[0].get_window_extent().overlaps(axes.get_window_extent())


def test_draw_bottleneck_curves_sorts_sizes_and_leaves_out_missing_deviations():
    figure = draw_bottleneck_curves({"a": {50: (0.8, np.nan), 5: (0.4, 0.1)}})
    line, _, (bars,) = figure.axes[0].containers[0]
    assert line.get_xdata().tolist() == [5, 50] and line.get_ydata().tolist() == [0.4, 0.8]
    np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()], [[0.3, 0.5], [0.8, 0.8]])


@pytest.mark.parametrize(
    "names",
    [
        [f"variant {i}" for i in range(10)],
        ["ResNet50-MSE", "other"],
        ["ResNet50-MSE", "resnet-50_MSE"],
        [f"ResNet{depth}-MSE" for depth in (18, 50, 101)],
    ],
)
def test_draw_bottleneck_curves_tells_other_names_apart_too(names):
    containers = draw_bottleneck_curves(curves(names)).axes[0].containers
    assert len({look(container[0]) for container in containers}) == len(names)


@pytest.mark.parametrize("accuracy", [{}, {"a": {}}, {"a": {0: (0.5, 0.1)}}])
def test_draw_bottleneck_curves_refuses_nothing_and_sizes_below_one(accuracy):
    with pytest.raises(ValueError, match="at least 1"):
        draw_bottleneck_curves(accuracy)


def test_group_style_tells_sixteen_groups_apart():
    styles = [group_style(i) for i in range(16)]
    assert len({color for color, _ in styles}) == 15  # black has no darker one
    assert len(set(styles)) == 16


def test_tint_mixes_with_white():
    assert tint("#000000", 0.25) == (0.25, 0.25, 0.25)
    assert tint("#ff0000", 0.0) == (1.0, 0.0, 0.0) and tint("#ff0000", 1.0) == (1.0, 1.0, 1.0)
