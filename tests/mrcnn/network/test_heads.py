import numpy as np
import pytest

from mrcnn.network.heads import box_head, mask_head


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_heads_shapes_and_ranges(norm):
    rng = np.random.default_rng(0)
    logits, deltas = box_head(7, 32, 3, 64, norm)(rng.normal(size=(5, 7, 7, 32)))
    assert logits.shape == (5, 3) and deltas.shape == (5, 3, 4)
    masks = mask_head(14, 32, 3, norm)(rng.normal(size=(5, 14, 14, 32))).numpy()
    assert masks.shape == (5, 28, 28, 3)
    assert 0 < masks.min() and masks.max() < 1
