import numpy as np

from mrcnn.data.resizing import resize


def test_resize_keeps_type_range_and_a_single_channel():
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 1), np.uint8)
    assert resize(image, (7, 9)).shape == (7, 9, 1)
    assert resize(image, (40, 50)).dtype == np.uint8
    assert resize(image.astype(np.int64), (40, 50)).max() <= 255
