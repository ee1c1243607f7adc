"""Images under other stains: what a data set looks like where nobody has trained."""

import numpy as np

from mrcnn.data.augmentation import WideAugmentation
from mrcnn.data.dataset import Dataset


class ColourShifted(Dataset):
    """Images of another data set, each under several changes of colour, see `WideAugmentation.change_colours`.

    Nothing moves, so that masks stay. A change depends on the image's place and on its own number alone: those of two
    measurements are the same.

    Args:
        dataset: with RGB uint8 images and masks, prepared.
        num_shifts: changes of each image, which follow each other.
    """

    def __init__(self, dataset: Dataset, num_shifts: int):
        super().__init__()
        self._dataset = dataset
        self._shifts = [(image_id, number) for image_id in dataset.image_ids for number in range(num_shifts)]
        self.class_info = dataset.class_info
        self.image_info = [dataset.image_info[image_id] for image_id, _ in self._shifts]
        self.prepare()

    def image_reference(self, image_id: int) -> str:
        """Return that of the image as it was."""
        return self._dataset.image_reference(self._shifts[image_id][0])

    def load_image(self, image_id: int) -> np.ndarray:
        """Return the image in its other colours, uint8 of shape (height, width, 3)."""
        original, number = self._shifts[image_id]
        rng = np.random.default_rng((int(original), number))
        image, (masks, _) = self._dataset.load_image(original), self._dataset.load_mask(original)
        return WideAugmentation().change_colours(image, masks, rng)

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the masks of the image as it was."""
        return self._dataset.load_mask(self._shifts[image_id][0])

    def load_parts(self, image_id: int) -> dict[str, np.ndarray]:
        """Return what is known of its parts."""
        return dict(self._dataset.load_parts(self._shifts[image_id][0]))
