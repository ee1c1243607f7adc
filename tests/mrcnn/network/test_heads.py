import numpy as np
import pytest

from mrcnn.network.heads import mask_head
from mrcnn.network.losses import masks_of_class


@pytest.mark.parametrize(("factor", "hidden"), [(2, None), (4, (16, 24))])
def test_mask_head_draws_a_mask_for_each_part_of_each_class(factor, hidden):
    head = mask_head(7, 32, 6, "group", hidden, factor)
    features = np.random.default_rng(0).normal(size=(5, 7, 7, 32)).astype(np.float32)
    masks = head(features).numpy()
    assert masks.shape == (5, 7 * factor, 7 * factor, 6) and masks.dtype == np.float32
    assert masks.min() > 0 and masks.max() < 1
    widths = [layer.filters for layer in head.layers if layer.name.startswith("mrcnn_mask_conv")]
    assert widths == ([32] * 4 if hidden is None else [16, 24, 12])
    chosen = masks_of_class(masks, np.array([0, 1, 2, 2, 1]), 2)
    for row, first in enumerate((0, 2, 4, 4, 2)):
        np.testing.assert_array_equal(chosen[row], masks[row, ..., first : first + 2])
