import numpy as np
import pytest

from mrcnn import overlays

BOXES = np.array([[10, 12, 40, 50], [60, 60, 90, 95]], float)
IMAGE, MASKS = np.full((100, 100, 3), 128, np.uint8), np.zeros((100, 100, 2), bool)
MASKS[15:35, 20:45, 0] = MASKS[65:85, 65:90, 1] = True


def test_draw_detections_draws_on_a_copy_where_the_box_is():
    drawn = overlays.draw_detections(IMAGE, BOXES)
    assert drawn.shape == IMAGE.shape and drawn.dtype == np.uint8 and (IMAGE == 128).all()
    for y, x in ((10, 30), (39, 30), (20, 12), (20, 49)):  # the last pixels inside, the ends being exclusive
        assert tuple(drawn[y, x]) == overlays.OVERLAY_COLORS[0]
    assert (drawn[20:30, 20:40] == 128).all() and (drawn[45:55] == 128).all()


def test_draw_detections_outlines_masks_and_writes_scores():
    boxes_only = overlays.draw_detections(IMAGE, BOXES)
    with_masks = overlays.draw_detections(IMAGE, BOXES, masks=MASKS)
    assert not np.array_equal(boxes_only[15, 21:44], with_masks[15, 21:44])
    assert (with_masks[25, 30] == 128).all()  # outlines only
    with_scores = overlays.draw_detections(IMAGE, BOXES, np.array([0.91, 0.5]))
    assert not np.array_equal(boxes_only[47:59, 60:90], with_scores[47:59, 60:90])


def test_draw_detections_outlines_nuclei_in_a_colour_of_their_own():
    nuclei = np.zeros_like(MASKS)
    nuclei[20:30, 25:40, 0] = True
    with_masks = overlays.draw_detections(IMAGE, BOXES, masks=MASKS)
    drawn = overlays.draw_detections(IMAGE, BOXES, masks=MASKS, nuclei=nuclei)
    is_outline = (drawn == overlays.NUCLEUS_COLOR).all(axis=-1)
    inner = np.zeros((100, 100), bool)
    inner[21:29, 26:39] = True
    np.testing.assert_array_equal(is_outline, nuclei[..., 0] & ~inner)
    changed = (drawn != with_masks).any(axis=-1)
    assert not changed[40:].any() and not changed[24:26, 29:36].any()  # no nucleus there, and outlines only


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((4, 3000), (5, 4000)), ((5, 5000), (5, 5000)), ((2, 2), (400, 400))],
)
def test_draw_detections_do_not_enlarge_strips_beyond_reason(shape, expected):
    drawn = overlays.draw_detections(np.full((*shape, 3), 9, np.uint8), np.zeros((0, 4)), min_side=400)
    assert drawn.shape == (*expected, 3)


def test_draw_detections_without_any_and_past_the_border():
    np.testing.assert_array_equal(overlays.draw_detections(IMAGE, np.zeros((0, 4)), np.zeros(0)), IMAGE)
    drawn = overlays.draw_detections(IMAGE, [[-20, -20, 130, 130]], [0.5])
    assert drawn.shape == IMAGE.shape and not np.array_equal(drawn, IMAGE)


def test_sheet_places_tiles_of_any_shape_and_captions_below_them():
    images = [np.full((20, 40, 3), value, np.uint8) for value in (10, 20, 30)]
    page = overlays.sheet(images, columns=2, tile_size=40, gap=4)
    assert page.shape == (2 * 44 + 4, 2 * 44 + 4, 3)
    for value, (y, x) in zip((10, 20, 30), ((14, 4), (14, 48), (58, 4)), strict=True):
        assert (page[y : y + 20, x : x + 40] == value).all()
    assert (page[4:14] == 255).all() and (page[48:88, 48:88] == 255).all()
    captions = ["short", "a very long caption with an ä in it"]
    page = overlays.sheet([IMAGE[:30, :30]] * 2, 2, captions, tile_size=60, gap=6)
    assert page.shape == (60 + 6 + 18 + 6, 2 * 66 + 6, 3)
    assert (page[66:84, 6:66] < 255).any() and (page[66:84, 72:132] < 255).any()
    assert (page[:, -5:] == 255).all()  # cut to the width of the tile


def test_augmentation_sheet_outlines_masks():
    plain = overlays.sheet([IMAGE] * 3, 3, tile_size=160)
    outlined = overlays.augmentation_sheet([IMAGE] * 3, [MASKS] * 3, columns=3)
    assert plain.shape == outlined.shape and not np.array_equal(plain, outlined)
