from concurrent.futures import ThreadPoolExecutor

import cv2
import imgaug.augmenters as iaa
import numpy as np
import pytest

from mrcnn.data import augmentation
from mrcnn.data.masks import extract_bboxes


def make_sample(size=96):
    """Two dark discs on textured bright background: dark exactly where a mask is."""
    yy, xx = np.mgrid[:size, :size, :1][:2] / size
    masks = (yy - [0.4, 0.7]) ** 2 + (xx - [0.35, 0.75]) ** 2 < np.square([0.2, 0.14])
    image = np.random.default_rng(0).integers(200, 230, (size, size, 3), np.uint8)
    image[masks.any(axis=-1)] //= 4
    return image, masks


def dark_part(image):
    """Where an augmented image of `make_sample` is dark, by the middle between its darkest and brightest."""
    grey = image.mean(axis=-1)
    low, high = np.percentile(grey, [2, 98])
    return grey < (low + high) / 2


def augment(*arguments):
    """Image and masks of `augment_instances`."""
    return augmentation.augment_instances(*arguments)[:2]


EACH = pytest.mark.parametrize(
    "augmenter",
    [augmentation.thesis_augmentation(1.0), augmentation.StrongAugmentation(1.0), augmentation.WideAugmentation(1.0)],
    ids=["thesis", "strong", "wide"],
)


@EACH
def test_masks_follow_the_pixels_and_mirrored_cells_are_instances_large_enough(augmenter):
    image, masks = make_sample()
    num_mirrored = 0
    for seed in range(10):
        sample = augmentation.augment_instances(image, masks, augmenter, seed)
        assert sample.image.shape == image.shape and sample.image.dtype == np.uint8
        assert sample.masks.shape == (*masks.shape[:2], len(sample.sources)) and sample.masks.dtype == bool
        dark, labelled = dark_part(sample.image), sample.masks.any(axis=-1)
        assert (dark & labelled).sum() / (dark | labelled).sum() > 0.75
        boxes = extract_bboxes(sample.masks)
        assert (boxes[:, 2:] - boxes[:, :2] >= augmentation.MIN_SIDE).all() and set(sample.sources) <= {0, 1}
        for mask in sample.masks.astype(np.uint8).transpose(2, 0, 1):
            assert cv2.connectedComponents(np.ascontiguousarray(mask))[0] == 2
        num_mirrored += len(sample.sources) > 2
    assert num_mirrored > 0


@EACH
def test_same_seed_same_sample_in_any_order_and_thread(augmenter):
    image, masks = make_sample(64)
    before = image.copy(), masks.copy()
    seeds = [(7, epoch, index) for epoch in range(2) for index in range(3)]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda seed: augment(image, masks, augmenter, seed), seeds[::-1]))[::-1]
    first = [augment(image, masks, augmenter, seed) for seed in seeds]
    for pair, other in zip([*first, before], [*again, (image, masks)], strict=True):
        np.testing.assert_array_equal(pair[0], other[0])
        np.testing.assert_array_equal(pair[1], other[1])
    assert len({pair[0].tobytes() for pair in first}) == len(seeds)
    new_image, new_masks = augment(image[:40], masks[:40, :, :0], augmenter, 1)  # without a cell
    assert new_image.shape == (40, 64, 3) and new_masks.shape == (40, 64, 0)


@pytest.mark.parametrize("make", [augmentation.thesis_augmentation, augmentation.StrongAugmentation])
def test_share_is_the_share_of_samples_that_change(make):
    image, masks = make_sample(32)
    augmenter = make(0.5)
    changed = [not np.array_equal(augment(image, masks, augmenter, s)[0], image) for s in range(100)]
    assert 0.35 < np.mean(changed) < 0.65
    unchanged = augmentation.augment_instances(image, masks, make(0.0), 0)
    assert all(np.array_equal(*pair) for pair in zip(unchanged, (image, masks, [0, 1]), strict=True))


def test_zoom_reflected_mirrors_image_and_masks_alike():
    image, masks = make_sample(80)
    zoomed, new_masks, growth = augmentation.zoom_reflected(image, masks, 0.5, (0.5, 0.5))
    assert growth == 0.25
    np.testing.assert_array_equal(zoomed[:20], zoomed[40:20:-1])  # around row 20, where the picture begins
    np.testing.assert_array_equal(new_masks[:20], new_masks[40:20:-1])
    middle = new_masks[20:60, 20:60]
    np.testing.assert_allclose(middle.sum(axis=(0, 1)), masks.sum(axis=(0, 1)) / 4, rtol=0.05)


def test_slivers_and_small_copies_are_dropped_but_small_cells_stay():
    old = np.zeros((60, 60, 2), bool)
    old[10:50, 10:50, 0] = True
    old[2:6, 2:6, 1] = True  # 4 px wide as annotated
    new = np.zeros_like(old)
    new[:, :3, 0] = True  # 180 of 1,600 px, but 3 px wide
    new[20:32, 40:52, 0] = True  # 144 px, 9 % of the area
    new[40:60, 20:36, 0] = True  # 320 px, 20 %
    new[2:6, 2:6, 1] = True
    image = np.zeros((60, 60, 3), np.uint8)
    sample = augmentation._rebuild_instances(image, new, old, 1.0, split=True)
    np.testing.assert_array_equal(sample.masks.sum(axis=(0, 1)), [320, 16])
    np.testing.assert_array_equal(sample.sources, [0, 1])


def test_any_imgaug_augmenter_moves_masks_and_leaves_them_in_colour_changes():
    image, masks = make_sample(64)
    flipped, flipped_masks = augment(image, masks, iaa.Fliplr(1.0), 0)
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    np.testing.assert_array_equal(flipped_masks, masks[:, ::-1])
    noisy, same_masks = augment(image, masks, iaa.AdditiveGaussianNoise(scale=30), 0)
    assert not np.array_equal(noisy, image)
    np.testing.assert_array_equal(same_masks, masks)
    with pytest.raises(ValueError, match="must be uint8"):
        augment(image / 255, masks, iaa.Fliplr(1.0), 0)


def test_tint_changes_the_outside_and_leaves_the_cells(monkeypatch):
    for name, value in {"TINTED": 1.0, "BLURRED": 0.0, "COMPRESSED": 0.0, "TINT_HUE": 60.0}.items():
        monkeypatch.setattr(augmentation.WideAugmentation, name, value)
    monkeypatch.setattr(augmentation.StrongAugmentation, "change_colours", lambda self, image, masks, rng: image)
    _, masks = make_sample()
    image = np.full((96, 96, 3), (230, 150, 160), np.uint8)
    image[masks.any(axis=-1)] = 110, 60, 150
    tinted = augmentation.WideAugmentation(1.0)._take_picture(image, masks, np.random.default_rng(2))
    inside = masks.any(axis=-1).astype(np.uint8)
    difference = np.abs(tinted.astype(int) - image).max(axis=-1)
    assert difference[inside > 0].max() <= 3 and not difference[cv2.erode(inside, np.ones((7, 7))) > 0].any()
    assert difference[cv2.dilate(inside, np.ones((9, 9))) == 0].min() > 20


def test_four_samples_laid_together_keep_their_masks_on_their_cells():
    samples, colours = [], []
    for number, shape in enumerate([(60, 90), (80, 80), (120, 70), (50, 50)]):
        image, masks = np.full((*shape, 3), 200 + 10 * number, np.uint8), np.zeros((*shape, 2), np.uint8)
        masks[15:45, 5:20, 0] = masks[20:40, 28:46, 1] = 1
        masks[22:38, 30:44, 1] = 3
        for i in range(2):
            colours.append(20 * len(colours) + 5)
            image[masks[..., i] > 0] = colours[-1]
            image[masks[..., i] > 1] = colours[-1] + 8
        samples.append(augmentation.Augmented(image, masks, np.arange(2)))
    seen = set()
    for seed in range(6):
        laid, again = (augmentation.lay_together(samples, 96, np.random.default_rng(seed)) for _ in range(2))
        assert laid.image.shape == (96, 96, 3) and laid.masks.shape == (96, 96, len(laid.sources))
        assert laid.image.all() and laid.masks.dtype == np.uint8
        for one, other in zip(laid, again, strict=True):
            np.testing.assert_array_equal(one, other)
        for mask, source in zip(np.moveaxis(laid.masks, -1, 0), laid.sources, strict=True):
            for code, colour in ((1, colours[source]), (3, colours[source] + 8)):
                # Enlarging blends colours along the edges.
                middle = cv2.erode((mask == code).astype(np.uint8), np.ones((7, 7)), borderValue=1) > 0
                assert (laid.image[middle] == colour).all()
        # Everything of the colour of a cell that was kept is in its mask.
        for source in laid.sources:
            of_cell = np.isin(laid.image[..., 0], (colours[source], colours[source] + 8))
            assert laid.masks[of_cell][:, laid.sources == source].any(axis=1).mean() > 0.95
        seen |= {*laid.sources}
    assert seen == {*range(8)}
