"""COCO's run lengths: read back what pycocotools writes, by hand, and what is refused."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn.annotations.coco import decode_counts, make_run_lengths
from mrcnn.annotations.shapes import ShapeFault


def random_masks():
    """Speckle of several densities, blocks with long runs, and the masks that are all of one kind."""
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 0.98, 1.0):
        yield rng.random((37, 53)) < share
    for _ in range(20):
        mask = np.zeros(tuple(rng.integers(200, 600, 2)), bool)
        for _ in range(5):
            (y1, y2), (x1, x2) = (np.sort(rng.integers(0, size, 2)) for size in mask.shape)
            mask[y1:y2, x1:x2] ^= True
        yield mask


def test_compressed_masks_of_pycocotools_come_back():
    for mask in random_masks():
        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        shape = make_run_lengths(list(encoded["size"]), encoded["counts"].decode("ascii"))
        np.testing.assert_array_equal(shape.draw(*mask.shape), mask)


def test_uncompressed_and_compressed_agree():
    for mask in random_masks():
        values = mask.T.ravel()
        turns = np.flatnonzero(np.diff(values)) + 1
        counts = np.diff([0, *turns, values.size]).tolist()
        counts = [0, *counts] if values[0] else counts
        size = list(mask.shape)
        compressed = coco_mask.frPyObjects({"size": size, "counts": counts}, *size)["counts"].decode("ascii")
        np.testing.assert_array_equal(decode_counts(compressed), counts)
        np.testing.assert_array_equal(make_run_lengths(size, counts).draw(*mask.shape), mask)


def test_columns_come_first():
    mask = make_run_lengths([2, 3], [1, 2, 3]).draw(2, 3)
    np.testing.assert_array_equal(mask, [[False, True, False], [True, False, False]])


def test_decode_counts_by_hand():
    # 5 -> "5"; 40 = 8 + 32 * 1 -> "X1"; 3 -> "3"; 38 is 40 - 2: -2 is the digit 30 alone -> "N".
    np.testing.assert_array_equal(decode_counts("5X13N"), [5, 40, 3, 38])


@pytest.mark.parametrize(
    ("size", "counts", "message"),
    [
        ([4, 5], [3, 4], r"add up to 7, not to 4 \* 5 = 20"),
        ([4, 5], "34", r"add up to 7, not"),
        ([4, 5], [3, 10**30], "add up to more than 20"),
        ([4, 5], [-1, 21], "negative"),
        ([4, 5], [3, 17.0], "counts hold 17.0, not a whole number"),
        ([4, 5], [3, None], "counts hold missing"),
        ([4, 5], [], "add up to 0"),
        ([4, 5], "", "empty"),
        ([4, 5], "3 7", "characters"),
        ([4, 5], "3ü", "characters"),
        ([4, 5], "3X", "cut off"),
        ([4, 5], "oooooooo1", "beyond any image"),
        ([4, 5], None, "counts is missing|counts are missing"),
        ([4], [20], r"size is \[4\], not \[height, width\]"),
        (None, [20], "size is missing"),
        ([4, -5], [20], r"size is \[4, -5\]"),
        ([10**6, 10**6], [10**12], "beyond any image"),
    ],
)
def test_faulty_run_lengths_are_refused(size, counts, message):
    with pytest.raises(ShapeFault, match=message):
        make_run_lengths(size, counts)


def test_another_size_than_the_image_is_refused():
    with pytest.raises(ShapeFault, match="RLE is 5x4 px, image is 4x5 px"):
        make_run_lengths([4, 5], [20]).check(5, 4)
