import numpy as np
import pytest

from experiments.figures import sheets
from tests.experiments.figures.test_scores import is_cut


def photos(count, height=4, width=4):
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))


def boxes_of(figure):
    """(left, right, bottom, top) of every picture, in inches with y downwards."""
    return [image.get_extent() for image in figure.axes[0].images]


def texts_of(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def assert_apart_and_inside(figure):
    """No picture lies over another, and none beyond the figure, whose width is the page's at most."""
    width, height = figure.get_size_inches()
    assert width <= sheets.PAGE_WIDTH + 1e-6 and height <= sheets.PAGE_HEIGHT + 1e-6
    boxes = boxes_of(figure)
    for i, (left, right, low, top) in enumerate(boxes):
        assert -1e-6 <= left < right <= width + 1e-6 and -1e-6 <= top < low <= height + 1e-6
        for other_left, other_right, other_low, other_top in boxes[:i]:
            assert right <= other_left or left >= other_right or low <= other_top or top >= other_low


def test_draw_photo_sheet_lays_each_row_beside_its_name():
    rows = [("blast_cell (3)", photos(3)), ("5 $ or 6 $", photos(2)), ("none", [])]
    figure = sheets.draw_photo_sheet(rows)
    assert texts_of(figure) == ["blast cell (3)", "5 $ or 6 $", "none", "no photos"]
    assert not figure.axes[0].texts[1].get_parse_math()
    shown = [np.asarray(image.get_array()) for image in figure.axes[0].images]
    for array, photo in zip(shown, [*rows[0][1], *rows[1][1]], strict=True):
        np.testing.assert_array_equal(array, photo)
    heights = [text.get_position()[1] for text in figure.axes[0].texts]
    for row, (left, _, low, top) in zip([0, 0, 0, 1, 1], boxes_of(figure), strict=True):
        assert top < heights[row] < low and left > sheets.text_width("5 $ or 6 $")
    assert_apart_and_inside(figure)


@pytest.mark.parametrize(("rows", "columns", "blocks"), [(4, 4, 1), (18, 3, 2), (18, 8, 1)])
def test_draw_photo_sheet_fits_a_page_and_sets_short_rows_side_by_side(rows, columns, blocks):
    figure = sheets.draw_photo_sheet([(f"promyelocyte_atypical {i} (12,345)", photos(columns)) for i in range(rows)])
    assert len({round(text.get_position()[0], 3) for text in figure.axes[0].texts}) == blocks
    assert len(boxes_of(figure)) == rows * columns
    assert all(right - left > 1.4 * sheets.MIN_TILE for left, right, _, _ in boxes_of(figure))
    assert_apart_and_inside(figure)
    assert not is_cut(figure)


def test_draw_photo_sheet_keeps_aspect_ratios_and_writes_captions_above_their_columns():
    captions = ["original", "rotation and scaling", "blur"]
    figure = sheets.draw_photo_sheet([("tecom", [*photos(1, 3, 6), *photos(2)]), ("bccd", photos(3))], captions)
    left, right, low, top = boxes_of(figure)[0]
    assert (right - left) / (low - top) == pytest.approx(2)
    heads = [text for text in figure.axes[0].texts if text.get_text().replace("\n", " ") in captions]
    for head, (left, right, _, top) in zip(heads, boxes_of(figure)[:3], strict=True):
        x, y = head.get_position()
        assert x == pytest.approx((left + right) / 2) and y <= top
    assert not is_cut(figure)


def test_draw_reconstruction_grid_has_a_row_of_originals_and_one_for_each_bottleneck():
    originals = np.linspace(0, 1, 3 * 4 * 4 * 3).reshape(3, 4, 4, 3)
    sizes = (5, 10, 50, 100, 150, 300, 400, 650, 1000)
    figure = sheets.draw_reconstruction_grid(originals, {f"BN {n}": originals / n for n in sizes})
    assert texts_of(figure) == ["Original", *(f"BN {n}" for n in sizes)]
    images = figure.axes[0].images
    assert len(images) == 30
    np.testing.assert_array_equal(images[0].get_array(), np.round(255 * originals[0]))
    np.testing.assert_array_equal(images[3 * 9 + 2].get_array(), np.round(255 * originals[2] / 1000))
    assert_apart_and_inside(figure)


def test_draw_segmentations_writes_each_name_below_its_picture():
    pictures = [("one name that is longer than its picture is wide", photos(1, 3, 4)[0])]
    pictures += [(f"tecom {i}", photos(1)[0]) for i in range(4)]
    figure = sheets.draw_segmentations(pictures)
    assert "\n" in texts_of(figure)[0] and texts_of(figure)[1:] == [name for name, _ in pictures[1:]]
    for text, (left, right, low, _) in zip(figure.axes[0].texts, boxes_of(figure), strict=True):
        x, y = text.get_position()
        assert x == pytest.approx((left + right) / 2) and y > low
    assert_apart_and_inside(figure)
    assert not is_cut(figure)


def test_draw_class_distribution_draws_a_bar_up_to_each_count_and_writes_it():
    counts = {"Matek-19": {"basophil": 79, "monocyte": 1_830}, "tecom": {"basophil": 1}}
    figure = sheets.draw_class_distribution(counts, ["basophil", "monocyte", "smudge_cell"])
    (axes,) = figure.axes
    ends = sorted(round(bar.get_x() + bar.get_width(), 6) for bar in axes.patches if bar.get_width() > 0)
    assert ends == [1, 79, 1830]
    assert [text.get_text() for text in axes.texts] == ["79", "1,830", "0", "1", "0", "0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["basophil", "monocyte", "smudge cell"]
    assert axes.get_xscale() == "log" and axes.yaxis_inverted()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Matek-19 (1,909 cells)", "tecom (1 cells)"]
