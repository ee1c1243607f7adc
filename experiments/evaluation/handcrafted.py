"""Handcrafted features of the stored crops: histograms of their colours and of their oriented gradients (HOG).

Colour is what labs differ in most, by their stains and lamps, so that these features may tell the centre well; crops
that are standardised first tell less of it.

References:
    Dalal and Triggs 2005, "Histograms of oriented gradients for human detection". Reinhard et al. 2001, "Color transfer
    between images".
"""

import numpy as np
from skimage.color import rgb2lab
from skimage.feature import hog

from mrcnn.feature_store import FeatureStore

BINS = 32  # of the histogram of a channel
# As in Dalal and Triggs, whose cells are smaller, in images that are smaller.
_HOG = {"orientations": 9, "pixels_per_cell": (32, 32), "cells_per_block": (2, 2)}
VECTOR_SIZE = 3 * BINS + 9 * 2 * 2 * 9  # 9 orientations in the 2x2 cells of 9 overlapping blocks
# The bins of colour are 4 wide, and grey, 0, is in the middle of one: on a border, rounding would choose its bin. What
# lies outside, which is more vivid than stains are, falls into the outermost bin.
LAB_RANGES = ((0.0, 100.0), (-66.0, 62.0), (-66.0, 62.0))
STANDARD_RANGES = ((-3.0, 3.0),) * 3
_READ_ROWS = 64  # 3 MB of crops, 13 MB of them in Lab


def handcrafted_vectors(store: FeatureStore, standardise_crops: bool = False) -> np.ndarray:
    """Describe every crop by histograms of its colours in Lab and of the oriented gradients of its lightness.

    Args:
        store: opened; its field "crop" is read block by block.
        standardise_crops: whether to bring each channel of each crop to mean 0 and standard deviation 1 first: the
            transfer of Reinhard et al. to one target, which takes away most of a lab's stain and light.

    Returns:
        float32 array of shape (n, 420), rows as in the store: for each of L, a and b a histogram of 32 bins, of sum 1;
        then histograms of 9 orientations in the 2x2 cells of 9 overlapping blocks.
    """
    vectors = np.empty((len(store), VECTOR_SIZE), np.float32)
    low, high = np.array(STANDARD_RANGES if standardise_crops else LAB_RANGES, np.float32).T
    for start in range(0, len(store), _READ_ROWS):
        crops = store.read("crop", start, min(start + _READ_ROWS, len(store)))
        for row, lab in enumerate(rgb2lab(crops.astype(np.float32) / 255), start):
            lab = _standardise_channels(lab) if standardise_crops else lab
            bins = np.clip((lab - low) * (BINS / (high - low)), 0, BINS - 1).astype(np.int64) + BINS * np.arange(3)
            vectors[row, : 3 * BINS] = np.bincount(bins.ravel(), minlength=3 * BINS) / bins[..., 0].size
            vectors[row, 3 * BINS :] = hog(lab[..., 0], **_HOG)
    return vectors


def _standardise_channels(lab: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 in each channel of a crop; a constant channel is 0."""
    shifted = lab - lab.mean(axis=(0, 1), dtype=np.float64)
    deviation = shifted.std(axis=(0, 1))
    # A crop of one colour has deviations of rounding alone, some millionths of a Lab unit.
    return np.divide(shifted, deviation, out=np.zeros_like(shifted), where=deviation > 1e-3).astype(np.float32)
