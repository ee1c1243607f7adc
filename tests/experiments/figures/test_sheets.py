import numpy as np
import pytest

from experiments.centres.class_maps import THESIS_CLASSES
from experiments.figures.sheets import (
    HATCHES,
    MAX_LABEL,
    MIN_TILE,
    PAGE_HEIGHT,
    PAGE_WIDTH,
    draw_class_distribution,
    draw_photo_sheet,
    draw_reconstruction_grid,
    draw_segmentations,
    text_width,
    wrap_text,
)


def photos(count, height=8, width=8):
    return list(np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8))


def boxes_of(figure):
    """(left, right, bottom, top) of each picture in inches from the upper left corner."""
    return [tuple(image.get_extent()) for image in figure.axes[0].images]


def texts_of(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def is_cut(figure):
    """Whether anything that is drawn reaches beyond the figure."""
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return min(drawn.x0, drawn.y0) < -0.01 or drawn.x1 > width + 0.01 or drawn.y1 > height + 0.01


def overlap(first, second):
    (l1, r1, b1, t1), (l2, r2, b2, t2) = first, second
    return min(r1, r2) - max(l1, l2) > 1e-6 and min(b1, b2) - max(t1, t2) > 1e-6


def assert_apart_and_inside(figure):
    boxes = boxes_of(figure)
    width, height = figure.get_size_inches()
    assert all(
        0 <= left and right <= width + 1e-6 and 0 <= top and low <= height + 1e-6 for left, right, low, top in boxes
    )
    assert not any(overlap(first, second) for i, first in enumerate(boxes) for second in boxes[:i])


def test_draw_photo_sheet_shows_each_photo_once_beside_its_name():
    rows = [("blast_cell (3)", photos(3)), ("monocyte (2)", photos(2))]
    figure = draw_photo_sheet(rows, title="Matek-19")
    assert texts_of(figure) == ["Matek-19", "blast cell (3)", "monocyte (2)"]
    shown = [np.asarray(image.get_array()) for image in figure.axes[0].images]
    for array, photo in zip(shown, [*rows[0][1], *rows[1][1]], strict=True):
        np.testing.assert_array_equal(array, photo)
    heights = [text.get_position()[1] for text in figure.axes[0].texts[1:]]
    for row, (left, _, low, top) in zip([0, 0, 0, 1, 1], boxes_of(figure), strict=True):
        assert top < heights[row] < low and left > text_width("monocyte (2)")
    assert_apart_and_inside(figure)


def test_draw_photo_sheet_of_18_classes_fits_a_page_and_stays_readable():
    names = ["lymphocyte_large_granular (1,234)", *(f"promyelocyte_atypical {i} (12,345)" for i in range(17))]
    figure = draw_photo_sheet([(name, photos(8, 4, 4)) for name in names], title="MLL23")
    width, height = figure.get_size_inches()
    assert width <= PAGE_WIDTH and height <= PAGE_HEIGHT + 1e-6
    assert len(figure.axes[0].images) == 18 * 8
    assert all(right - left > 1.4 * MIN_TILE for left, right, _, _ in boxes_of(figure))
    assert_apart_and_inside(figure)
    assert not is_cut(figure)


def test_draw_photo_sheet_sets_short_rows_side_by_side():
    def side(count, columns):
        figure = draw_photo_sheet([(f"class {i}", photos(columns)) for i in range(count)])
        lefts = {round(text.get_position()[0], 3) for text in figure.axes[0].texts}
        assert_apart_and_inside(figure)
        assert figure.get_size_inches()[0] <= PAGE_WIDTH + 1e-6
        left, right, _, _ = boxes_of(figure)[0]
        return len(lefts), right - left

    assert side(4, 4)[0] == 1
    blocks, tile = side(18, 3)
    assert blocks == 2 and tile > 0.6


def test_draw_photo_sheet_keeps_aspect_ratios():
    (left, right, low, top), _ = boxes_of(draw_photo_sheet([("a", [*photos(1, 6, 12), *photos(1)])]))
    assert (right - left) / (low - top) == pytest.approx(2)


def test_draw_photo_sheet_draws_at_most_columns_photos_and_says_where_none_are():
    figure = draw_photo_sheet([("many", photos(5)), ("none", [])], columns=2)
    assert len(figure.axes[0].images) == 2
    assert texts_of(figure) == ["many", "none", "no photos"]


def test_draw_photo_sheet_writes_captions_above_their_columns():
    captions = ["original", "rotation and scaling", "blur"]
    figure = draw_photo_sheet([("tecom", photos(3)), ("bccd", photos(3))], captions=captions)
    heads = [text for text in figure.axes[0].texts if text.get_text().replace("\n", " ") in captions]
    assert len(heads) == 3
    for head, (left, right, _, top) in zip(heads, boxes_of(figure)[:3], strict=True):
        x, y = head.get_position()
        assert x == pytest.approx((left + right) / 2) and y <= top
    assert not is_cut(figure)


def test_draw_photo_sheet_writes_dollars_as_they_are():
    figure = draw_photo_sheet([("5 $ or 6 $", photos(1))])
    assert texts_of(figure) == ["5 $ or 6 $"] and not figure.axes[0].texts[0].get_parse_math()


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "no photos"),
        ([("a", [])], {}, "no photos"),
        ([("a", [np.zeros((4, 4, 3))])], {}, "uint8"),
        ([("a", [np.zeros((4, 4), np.uint8)])], {}, "uint8"),
        ([("a", [np.zeros((0, 4, 3), np.uint8)])], {}, "uint8"),
        ([("a", photos(2))], {"captions": ["x"]}, "1 captions for 2 columns"),
    ],
)
def test_draw_photo_sheet_refuses(rows, options, message):
    with pytest.raises(ValueError, match=message):
        draw_photo_sheet(rows, **options)


def test_draw_reconstruction_grid_has_a_row_of_originals_and_one_for_each_bottleneck():
    originals = np.linspace(0, 1, 3 * 4 * 4 * 3).reshape(3, 4, 4, 3)
    sizes = (5, 10, 50, 100, 150, 300, 400, 650, 1000)
    figure = draw_reconstruction_grid(originals, {f"BN {n}": originals / n for n in sizes}, title="ResNet50-MSE")
    assert texts_of(figure) == ["ResNet50-MSE", "Original", *(f"BN {n}" for n in sizes)]
    images = figure.axes[0].images
    assert len(images) == 30
    np.testing.assert_array_equal(images[0].get_array(), np.round(255 * originals[0]))
    np.testing.assert_array_equal(images[3 * 9 + 2].get_array(), np.round(255 * originals[2] / 1000))
    assert images[2].get_array().max() == 255
    assert_apart_and_inside(figure)
    assert figure.get_size_inches()[1] <= PAGE_HEIGHT + 1e-6 and not is_cut(figure)


def test_draw_reconstruction_grid_refuses_what_is_no_picture():
    originals = np.full((2, 4, 4, 3), 0.5)
    for bad in (originals * 255, originals - 1, np.full_like(originals, np.nan)):
        with pytest.raises(ValueError, match=r"BN 5 must have values in \[0, 1\]"):
            draw_reconstruction_grid(originals, {"BN 5": bad})
    with pytest.raises(ValueError, match="BN 5 has shape"):
        draw_reconstruction_grid(originals, {"BN 5": originals[:1]})
    with pytest.raises(ValueError, match="no photos"):
        draw_reconstruction_grid(originals[:0], {})


def test_draw_segmentations_writes_each_name_below_its_picture():
    pictures = [("BloodImage_00001", photos(1, 6, 8)[0]), *((f"tecom {i}", photos(1)[0]) for i in range(4))]
    figure = draw_segmentations(pictures, title="Outlines")
    assert texts_of(figure) == ["Outlines", *(name for name, _ in pictures)]
    for text, (left, right, low, _) in zip(figure.axes[0].texts[1:], boxes_of(figure), strict=True):
        x, y = text.get_position()
        assert x == pytest.approx((left + right) / 2) and y > low
    assert len({top for _, _, _, top in boxes_of(figure)[1:]}) == 2  # five pictures are a row of three and one of two
    assert_apart_and_inside(figure)
    assert not is_cut(figure)


def test_draw_segmentations_breaks_long_names():
    figure = draw_segmentations([("one name that is longer than its picture is wide", photos(1)[0])] * 4)
    assert "\n" in texts_of(figure)[0] and not is_cut(figure)


def test_draw_segmentations_refuses_nothing_and_no_columns():
    with pytest.raises(ValueError, match="no photos"):
        draw_segmentations([])
    with pytest.raises(ValueError, match="columns"):
        draw_segmentations([("a", photos(1)[0])], columns=0)


def test_draw_class_distribution_draws_a_bar_up_to_each_count_and_writes_it():
    counts = {"Matek-19": {"basophil": 79, "monocyte": 1_830}, "tecom": {"basophil": 1}}
    figure = draw_class_distribution(counts, ["basophil", "monocyte", "smudge_cell"])
    (axes,) = figure.axes
    ends = sorted(round(bar.get_x() + bar.get_width(), 6) for bar in axes.patches)
    assert ends == [1, 79, 1830]
    assert all(bar.get_width() > 0 for bar in axes.patches)
    assert [text.get_text() for text in axes.texts] == ["79", "1,830", "0", "1", "0", "0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["basophil", "monocyte", "smudge cell"]
    assert axes.get_xscale() == "log" and axes.get_ylim()[0] > axes.get_ylim()[1]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Matek-19 (1,909 cells)", "tecom (1 cells)"]


def test_draw_class_distribution_of_five_centres_and_13_classes_fits_a_page():
    counts = {f"centre {i}": {name: 10**k for k, name in enumerate(THESIS_CLASSES[:5])} for i in range(5)}
    figure = draw_class_distribution(counts, THESIS_CLASSES)
    assert figure.get_size_inches()[1] <= PAGE_HEIGHT
    assert not is_cut(figure)
    (axes,) = figure.axes
    shown = {tick.get_text() for tick in axes.get_xticklabels()}
    assert {"1", "10", "100", "1,000", "10,000"} <= shown
    heights = sorted(text.get_window_extent().y0 for text in axes.texts)
    assert len(heights) == 65 and min(np.diff(heights)) >= 0.9 * 6 / 72 * figure.dpi


def test_draw_class_distribution_tells_centres_apart_without_colour():
    counts = {f"centre {i}": {"a": 1} for i in range(len(HATCHES))}
    bars = draw_class_distribution(counts, ["a"]).axes[0].patches
    assert len({bar.get_hatch() for bar in bars}) == len(HATCHES)


@pytest.mark.parametrize(
    ("counts", "classes", "message"),
    [
        ({}, ["a"], "no counts"),
        ({"x": {}}, [], "no counts"),
        ({"x": {"b": 1}}, ["a"], "x has counts of b"),
        ({str(i): {} for i in range(9)}, ["a"], "8 centres"),
    ],
)
def test_draw_class_distribution_refuses(counts, classes, message):
    with pytest.raises(ValueError, match=message):
        draw_class_distribution(counts, classes)


def test_wrap_text_breaks_at_spaces_only_and_keeps_line_breaks():
    wrapped = wrap_text("lymphocyte large granular\n(12)", MAX_LABEL)
    assert wrapped.split() == ["lymphocyte", "large", "granular", "(12)"]
    assert wrapped.endswith("\n(12)") and wrapped.count("\n") == 2
    assert text_width(wrapped) <= MAX_LABEL
    assert wrap_text("unbreakable", 0.1) == "unbreakable"


def test_text_width_grows_with_text_and_size():
    assert text_width("") == 0 and text_width("\n") == 0
    assert 0 < text_width("a") < text_width("aa") == text_width("a\naa")
    assert text_width("aa", 16) == pytest.approx(2 * text_width("aa", 8), rel=0.02)
