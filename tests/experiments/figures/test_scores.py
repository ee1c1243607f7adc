import numpy as np

from experiments.centres.class_maps import THESIS_CLASSES
from experiments.figures.scores import draw_before_after, draw_bottleneck_curves, draw_confusions, draw_recall_intervals

SIZES = (5, 10, 50, 100, 150, 300, 400, 650, 1000)
VARIANTS = [f"ResNet{depth}-{crop}{loss}" for depth in (101, 50) for crop in ("", "BB-") for loss in ("MSE", "SSIM")]


def is_cut(figure):
    """Whether anything that is drawn reaches beyond the figure."""
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return min(drawn.x0, drawn.y0) < -0.01 or drawn.x1 > width + 0.01 or drawn.y1 > height + 0.01


def names_of(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_draw_confusions_writes_percentages_of_the_rows():
    confusion = np.array([[199, 1, 0], [5, 15, 0], [0, 0, 0]])
    axes = draw_confusions({"a → b": confusion}, ["x_1", "y", "z"]).axes[0]
    written = {tuple(np.floor(text.get_position()).astype(int)): text.get_text() for text in axes.texts}
    # 1 of 200 rounds to 0 and is not written.
    assert written == {(0, 0): "100", (0, 1): "25", (1, 1): "75"}
    values = axes.collections[0].get_array().reshape(3, 3)
    np.testing.assert_allclose(values.filled(-1), [[99.5, 0.5, 0], [25, 75, 0], [-1, -1, -1]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x 1", "y", "z"]
    assert axes.yaxis_inverted() and axes.get_title() == "a → b"


def test_draw_recall_intervals_draws_values_and_reaches():
    recalls = {"AE-RF": {"x": (0.5, 0.4, 0.7), "y": None}, "AE-CFE": {"x": (0.6, 0.6, 0.6), "y_z": (1.0, 0.8, 1.0)}}
    figure = draw_recall_intervals(recalls, ["x", "y", "y_z"])
    (axes,) = figure.axes
    first, second = axes.containers
    np.testing.assert_array_equal(
        [first[0].get_xdata(), second[0].get_xdata()], [[0.5, *[np.nan] * 2], [0.6, np.nan, 1]]
    )
    np.testing.assert_allclose(first[2][0].get_segments()[0][:, 0], [0.4, 0.7])
    np.testing.assert_allclose(second[2][0].get_segments()[2][:, 0], [0.8, 1.0])
    assert np.round(second[0].get_ydata()).tolist() == [0, 1, 2] and first[0].get_marker() != second[0].get_marker()
    assert names_of(figure.legends[0]) == ["AE-RF", "AE-CFE"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y", "y z"]


def test_draw_before_after_draws_every_cell_once_in_each_of_four_panels():
    rng = np.random.default_rng(0)
    centres = rng.choice(["Matek-19", "INT-20"], 60).tolist()
    before, after, types = rng.normal(size=(60, 2)), rng.normal(size=(60, 2)), rng.choice(THESIS_CLASSES, 60).tolist()
    types[:7] = [""] * 7
    figure = draw_before_after(before, after, centres, types, ["Matek-19", "INT-20"], THESIS_CLASSES)
    for axes, expected in zip(figure.axes, (before, after, before, after), strict=True):
        drawn = np.concatenate([collection.get_offsets() for collection in axes.collections])
        np.testing.assert_array_equal(np.sort(drawn, axis=0), np.sort(expected, axis=0))
        assert not any(collection.get_rasterized() for collection in axes.collections)
    assert names_of(figure.axes[1].get_legend()) == ["Matek-19", "INT-20"]
    names = [*(name.replace("_", " ") for name in THESIS_CLASSES), "no type"]
    assert names_of(figure.axes[3].get_legend()) == names
    assert not is_cut(figure)


def test_draw_bottleneck_curves_draws_every_variant_apart():
    curves = {name: {size: (0.5 + i / 20, np.nan if i else 0.01) for size in SIZES} for i, name in enumerate(VARIANTS)}
    figure = draw_bottleneck_curves(curves)
    (axes,) = figure.axes
    lines = [container[0] for container in axes.containers]
    looks = {(str(line.get_color()), line.get_linestyle(), line.get_markerfacecolor()) for line in lines}
    assert len(lines) == len(looks) == 8
    np.testing.assert_allclose(lines[3].get_ydata(), [0.65] * len(SIZES))
    assert names_of(figure.legends[0]) == VARIANTS
    assert axes.get_xscale() == "log" and [round(tick) for tick in axes.get_xticks()] == list(SIZES)
    assert not is_cut(figure)
