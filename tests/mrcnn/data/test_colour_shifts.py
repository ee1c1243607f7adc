import numpy as np
import pytest

from mrcnn.data.colour_shifts import ColourShifted


@pytest.fixture
def shifted(cell_dataset):
    dataset = cell_dataset(2)
    dataset.load_parts = lambda image_id: {"nucleus": dataset.load_mask(image_id)[0]}
    return dataset, ColourShifted(dataset, 3)


def test_colour_shifted_changes_colours_alone(shifted):
    dataset, shifts = shifted
    assert shifts.image_ids.tolist() == [*range(6)] and shifts.class_names == dataset.class_names
    for image_id in shifts.image_ids:
        original = image_id // 3
        assert shifts.image_info[image_id] is dataset.image_info[original]
        masks, class_ids = shifts.load_mask(image_id)
        np.testing.assert_array_equal(masks, dataset.load_mask(original)[0])
        np.testing.assert_array_equal(shifts.load_parts(image_id)["nucleus"], masks)
        assert class_ids.tolist() == [1]
        image = shifts.load_image(image_id)
        assert image.shape == dataset.load_image(original).shape and image.dtype == np.uint8
        # The cell stays darker than its surroundings.
        assert image[masks[..., 0]].mean() < image[~masks[..., 0]].mean()


def test_colour_shifted_changes_each_image_in_its_own_ways_and_always_the_same(shifted):
    dataset, shifts = shifted
    images = [*map(shifts.load_image, shifts.image_ids), *map(dataset.load_image, dataset.image_ids)]
    assert len({image.tobytes() for image in images}) == 8
    again = ColourShifted(dataset, 3)
    assert all(np.array_equal(again.load_image(i), images[i]) for i in again.image_ids)
