import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from mrcnn import visualize

BOXES = np.array([[10, 12, 40, 50], [60, 60, 90, 95]], float)
IMAGE, MASKS = np.full((100, 100, 3), 128, np.uint8), np.zeros((100, 100, 2), bool)
MASKS[15:35, 20:45, 0] = MASKS[65:85, 65:90, 1] = True
NAMES = ["BG", "cell", "platelet"]


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """Numbers of the figures that `plt.show` was called with as the current one."""
    numbers = []
    monkeypatch.setattr(plt, "show", lambda *_, **__: numbers.append(plt.gcf().number))
    yield numbers
    plt.close("all")


@pytest.fixture
def ax():
    return plt.subplots()[1]


def test_display_instances_draws_each_instance(ax, shown, capsys):
    visualize.display_instances(IMAGE, BOXES.astype(int), MASKS, [1, 1], NAMES, [0.9, 0.8], title="two cells", ax=ax)
    assert ax.get_title() == "two cells"
    assert [t.get_text() for t in ax.texts] == ["cell 0.900", "cell 0.800"]
    assert len(ax.patches) == 2 and len(ax.images) == 1 and len(ax.collections) == 2
    assert ax.patches[0].get_bbox().extents.tolist() == [12, 10, 50, 40]
    assert ax.get_xlim() == (-10, 110) and ax.get_ylim() == (110, -10)
    assert not shown and capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="2 boxes, 2 masks and 1 class ids"):
        visualize.display_instances(IMAGE, BOXES, MASKS, np.array([1]), ["BG", "cell"], ax=ax)


def test_display_instances_options_padding_and_transparency(ax):
    image, boxes = np.full((100, 100, 4), 255, np.uint8), np.array([[10, 12, 40, 50], [0, 0, 0, 0]])
    options = {"show_mask": False, "show_bbox": False, "captions": ["mine", "unused"]}
    visualize.display_instances(image, boxes, MASKS, np.array([1, 0]), NAMES, ax=ax, **options)
    assert [t.get_text() for t in ax.texts] == ["mine"] and not ax.patches
    np.testing.assert_array_equal(ax.images[0].get_array(), image)
    assert len(ax.collections) == 1  # the outline stays
    colors = [(1.0, 0.0, 0.0)] * 2
    visualize.display_instances(image, boxes, MASKS, [1, 0], NAMES, ax=ax, captions=[], colors=colors)
    assert [t.get_text() for t in ax.texts] == ["mine", "cell"]
    picture = np.asarray(ax.images[1].get_array())
    assert picture[25, 30].tolist() == [255, 127, 127, 255] and picture[0, 0].tolist() == [255] * 4


def test_display_differences_captions_follow_the_scores(ax, shown):
    half = MASKS.copy()
    half[15:25, :, 0] = False  # half of the first instance
    truth = BOXES, np.array([1, 2]), MASKS
    predicted = BOXES, np.array([1, 1]), np.array([0.6, 0.9]), half  # the second, of the wrong class, comes first
    visualize.display_differences(IMAGE, *truth, *predicted, NAMES, ax=ax)
    assert [t.get_text() for t in ax.texts] == ["", "", "0.90 / 1.00", "0.60 / 0.50"]
    assert [t.get_position() for t in ax.texts] == [(12, 10), (60, 60), (60, 60), (12, 10)]
    edges = [p.get_edgecolor()[:3] for p in ax.patches]
    assert edges == [(0, 1, 0)] * 2 + [(1, 0, 0)] * 2
    assert "green" in ax.get_title() and not shown


def test_display_top_masks_orders_classes_by_area(shown):
    masks = np.zeros((100, 100, 3), bool)
    masks[:10, :10, 0] = masks[20:40, 20:50, 1] = masks[50:60, 50:60, 2] = True
    visualize.display_top_masks(IMAGE, masks, np.array([2, 1, 2]), NAMES, limit=3)
    axes = plt.gcf().axes
    assert [a.get_title() for a in axes] == ["H x W=100x100", "cell", "platelet", "-"]
    platelets = axes[2].images[0].get_array()
    assert (platelets[:10, :10] == 1).all() and (platelets[50:60, 50:60] == 2).all() and platelets.sum() == 300
    assert not axes[3].images[0].get_array().any() and shown == [plt.gcf().number]


def test_draw_rois_draws_positives_in_colour_and_counts(capsys):
    rois = np.array([[10, 10, 40, 40], [50, 50, 80, 90]])
    refined = np.array([[12, 14, 42, 44], [50, 50, 80, 90]])
    visualize.draw_rois(IMAGE, rois, refined, np.ones((2, 28, 28)), np.array([1, 0]), NAMES)
    axes = plt.gca()
    assert axes.get_title() == "2 ROIs" and [t.get_text() for t in axes.texts] == ["cell"]
    extents = [p.get_bbox().extents.tolist() for p in axes.patches]
    assert extents == [[10, 10, 40, 40], [14, 12, 44, 42], [50, 50, 90, 80]]
    assert axes.patches[2].get_edgecolor()[:3] == to_rgba("gray")[:3]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[10, 10], [14, 12]])
    picture = axes.images[0].get_array()
    assert not (picture[10:40, 10:40] == 128).all() and (picture[50:80, 50:90] == 128).all()
    assert capsys.readouterr().out.split() == "Positive ROIs: 1 Negative ROIs: 1 Positive Ratio: 0.50".split()


def test_draw_boxes_styles_by_visibility(ax, shown):
    boxes = np.array([[10, 10, 20, 20], [30, 30, 50, 50], [60, 60, 80, 80], [0, 0, 0, 0]])
    visualize.draw_boxes(IMAGE, boxes, visibilities=[0, 1, 2, 2], captions=list("abcd"), title="t", ax=ax)
    assert [p.get_linestyle() for p in ax.patches] == ["dotted", "dotted", "solid"]
    gray, second, third = (p.get_edgecolor() for p in ax.patches)
    assert gray == to_rgba("gray", 0.5) and second != third and second[3] == 1
    assert [t.get_text() for t in ax.texts] == ["a", "b", "c"]
    assert ax.get_title() == "t" and ax.get_xlim() == (-10, 110) and not shown


@pytest.mark.parametrize("color", [(1.0, 0.0, 0.5), (1.0, 0.0, 0.5, 0.8)])
def test_apply_mask_blends_in_place(color):
    image = np.full((4, 4, 3), 100, np.uint8)
    assert visualize.apply_mask(image, np.eye(4), color, alpha=0.5) is image
    assert image[0, 0].tolist() == [177, 50, 113] and image[0, 1].tolist() == [100, 100, 100]


def test_draw_box_frames_in_place():
    image = np.zeros((12, 14, 3), np.uint8)
    assert visualize.draw_box(image, np.array([2, 3, 8, 10]), [0, 200, 0]) is image
    rows, columns = np.nonzero(image[..., 1])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 9, 3, 11)
    assert (image[..., 1][4:8, 5:10] == 0).all() and not image[..., 0].any()
