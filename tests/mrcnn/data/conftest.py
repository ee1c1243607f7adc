"""A Dataset of what a test has at hand."""

import numpy as np
import pytest

from mrcnn.data.dataset import Dataset


class Given(Dataset):
    """Images with their masks, of which the k-th is of class k unless a third value of the sample has class ids."""

    def __init__(self, samples, num_classes=5):
        super().__init__()
        self.samples = samples
        for class_id in range(1, num_classes + 1):
            self.add_class("given", class_id, f"c{class_id}")
        for number in range(len(samples)):
            self.add_image("given", number, f"{number}.png")
        self.prepare()

    def load_image(self, image_id):
        return self.samples[image_id][0]

    def load_mask(self, image_id):
        _, masks, *class_ids = self.samples[image_id]
        return masks, np.array(class_ids[0] if class_ids else range(1, masks.shape[-1] + 1), np.int32)


@pytest.fixture(scope="session")
def given():
    return Given
