"""Random changes of training images, with the masks following where pixels move.

An augmentation that fills new background by reflection mirrors cells too. Their masks are mirrored alike and split into
connected components, so that every copy is an instance: an unlabelled one would teach that cells are background.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import imgaug.augmenters as iaa
import numpy as np
from imgaug.augmentables.segmaps import SegmentationMapsOnImage

from mrcnn.data.masks import extract_bboxes
from mrcnn.data.resizing import resize, resize_nearest

MIN_VISIBLE_SHARE = 0.1  # of the area that the instance would have if all of it were in view
MIN_SIDE = 8  # px; smaller boxes are below every anchor


class Augmented(NamedTuple):
    """An augmented sample."""

    image: np.ndarray  # uint8 (height, width, 3)
    masks: np.ndarray  # (height, width, num_instances), of the type they had
    sources: np.ndarray  # int32 (num_instances,), which mask of the input each instance comes from


def augment_instances(
    image: np.ndarray, masks: np.ndarray, augmenter: "AnyAugmentation", seed: int | Sequence[int] | np.random.Generator
) -> Augmented:
    """Augment a sample, which depends on the seed alone.

    Masks follow with nearest neighbours. Instances of which too little stays in view are dropped: less than a tenth of
    the area, or a box side under 8 px that was not so small before.

    Args:
        image: uint8 array of shape (height, width, 3), RGB.
        masks: array of shape (height, width, num_instances), bool, or uint8 with 0 outside.
        augmenter: what this module makes, or any imgaug augmenter.
        seed: for example (seed, epoch, index of the sample); a Generator is drawn from and so advances.

    Raises:
        ValueError: if the image is of another type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"image must be uint8 of shape (height, width, 3), got {image.dtype} {image.shape}")
    if isinstance(augmenter, iaa.Augmenter):
        augmenter = ImgaugAugmentation(augmenter)
    return augmenter.apply(image, masks, np.random.default_rng(seed))


def thesis_augmentation(share: float = 0.5) -> "ImgaugAugmentation":
    """Build the augmentations of thesis 2.4.2 for a share of the samples, 0 to 1; the thesis augments half."""
    return ImgaugAugmentation(iaa.Sometimes(share, list(thesis_augmenters().values())), mirrors_cells=True)


def thesis_augmenters() -> dict[str, iaa.Augmenter]:
    """The augmentations of thesis 2.4.2 one by one, in their order; the ranges are ours, the thesis names none."""
    return {
        "mirror": iaa.Fliplr(0.5),
        "flip": iaa.Flipud(0.5),
        "rotation and scaling": ReflectingAffine(rotate=(-180, 180), scale=(0.6, 1.2)),
        "colour temperature": iaa.ChangeColorTemperature((4000, 11000)),
        "linear contrast": iaa.LinearContrast((0.6, 1.4)),
        "bilateral blur": iaa.BilateralBlur(d=(1, 7), sigma_color=(10, 100), sigma_space=(10, 100)),
    }


class ReflectingAffine(iaa.Affine):
    """imgaug's Affine that fills by reflection, in segmentation maps too (imgaug fills them with zeros)."""

    def __init__(self, **kwargs: Any):
        super().__init__(mode="reflect", **kwargs)
        self._mode_segmentation_maps = "reflect"


class ImgaugAugmentation:
    """Any imgaug augmenter, made independent of call order and safe to share between threads.

    One that fills by reflection `mirrors_cells`, and masks must be split into components.
    """

    def __init__(self, augmenter: iaa.Augmenter, mirrors_cells: bool = False):
        self.augmenter, self.mirrors_cells = augmenter, mirrors_cells

    def apply(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Augmented:
        """Augment a sample."""
        new_image, new_masks = apply_augmenter(image, masks, self.augmenter, rng)
        if new_image.shape == image.shape and np.array_equal(new_masks, masks):
            return Augmented(new_image, masks, np.arange(masks.shape[-1], dtype=np.int32))
        return _rebuild_instances(new_image, new_masks, masks, None, split=self.mirrors_cells)


def apply_augmenter(
    image: np.ndarray, masks: np.ndarray, augmenter: iaa.Augmenter, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Apply an imgaug augmenter, with a seed of `rng`, and nothing else: what leaves the view keeps an empty mask.

    Shapes are those of `augment_instances`. Changes of colour leave masks alone: to imgaug they are segmentation maps.
    """
    augmenter = augmenter.deepcopy()  # it carries its random state along
    augmenter.seed_(int(rng.integers(0, 2**31 - 1)))
    if masks.shape[-1] == 0:
        new_image = augmenter(image=image)
        return new_image, np.zeros((*new_image.shape[:2], 0), masks.dtype)
    segmentation = SegmentationMapsOnImage(masks, shape=image.shape)
    new_image, segmentation = augmenter(image=image, segmentation_maps=segmentation)
    return new_image, segmentation.get_arr().astype(masks.dtype)


class StrongAugmentation:
    """Wide changes of place, size and colour, with which a detector from scratch generalises to unseen stains.

    Flips; quarter turns (half turns where the image is not square); zoom, the picture laid anywhere on a canvas of its
    reflections; of every second sample a cut to another ratio of its sides; hue and saturation; per-channel gain;
    gamma; linear contrast; brightness.

    Args:
        share: of the samples that is augmented, 0 to 1.
        zoom: (least, largest) factor, drawn log-uniformly.
        least_ratio: least share of one side that a cut leaves, 0 to 1; 1 cuts nothing.
    """

    HUE = 24.0  # largest shift, degrees
    BRIGHTNESS = 32.0  # largest shift, grey values
    # (least, largest) factor of saturation and of each channel, exponent, and a in `127 + a (v - 127)`.
    SATURATION, GAIN, GAMMA, CONTRAST = (0.5, 1.5), (0.8, 1.2), (0.75, 1.35), (0.6, 1.4)

    def __init__(self, share: float = 0.8, zoom: tuple[float, float] = (0.35, 1.1), least_ratio: float = 1.0):
        self.share, self.zoom, self.least_ratio = share, zoom, least_ratio

    def apply(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Augmented:
        """Augment a sample; the size of the image stays unless `least_ratio` is below 1."""
        if rng.random() >= self.share:
            return Augmented(image, masks, np.arange(masks.shape[-1], dtype=np.int32))
        image, masks = _turn_and_flip(image, masks, rng)
        zoom = float(np.exp(rng.uniform(*np.log(self.zoom))))
        new_image, new_masks, growth = zoom_reflected(image, masks, zoom, rng.random(2))
        if self.least_ratio < 1.0 and rng.random() < 0.5:
            share, axis = rng.uniform(self.least_ratio, 1.0), int(rng.integers(2))
            kept = max(2, round(new_image.shape[axis] * share))
            start = int(rng.integers(new_image.shape[axis] - kept + 1))
            part = np.s_[start : start + kept] if axis == 0 else np.s_[:, start : start + kept]
            new_image, new_masks = new_image[part], new_masks[part]
        sample = _rebuild_instances(new_image, new_masks, masks, growth, split=True)
        return sample._replace(image=self._take_picture(sample.image, sample.masks, rng))

    def _take_picture(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change the picture where nothing moves any more."""
        return self.change_colours(image, masks, rng)

    def change_colours(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Shift hue and saturation, then send each channel through one table of 256 values; `masks` change nothing."""
        image = _shift_colours(image, rng.uniform(-self.HUE, self.HUE), rng.uniform(*self.SATURATION))
        levels = np.arange(256, dtype=np.float32)
        gains = rng.uniform(*self.GAIN, size=3)
        values = levels[:, np.newaxis] * gains
        values = 255 * (np.clip(values, 0, 255) / 255) ** np.exp(rng.uniform(*np.log(self.GAMMA)))
        values = 127 + rng.uniform(*self.CONTRAST) * (values - 127)
        values += rng.uniform(-self.BRIGHTNESS, self.BRIGHTNESS)
        return cv2.LUT(image, _to_uint8(values)[np.newaxis])


class WideAugmentation(StrongAugmentation):
    """`StrongAugmentation`, and what else differs between microscopes, for a detector that meets stains unseen.

    Of some samples what lies outside of the instances has another tint, so that red cells of any colour, bluish ones
    too, are known as background; some are out of focus, and some went through a JPEG of low quality.
    """

    TINTED, BLURRED, COMPRESSED = 0.3, 0.3, 0.3  # shares of the samples
    # Largest shift of the hue outside, degrees; (least, largest) factors of its saturation; blur as standard deviation,
    # in thousandths of the image's longer side; JPEG quality.
    TINT_HUE, TINT_SATURATION, BLUR, QUALITY = 120.0, (0.5, 2.0), (1.0, 8.0), (25, 90)

    def change_colours(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Give some images another tint outside of their `masks`, then change the colours of all."""
        if rng.random() < self.TINTED:
            inside = masks.any(axis=-1).astype(np.float32)
            inside = cv2.dilate(inside, np.ones((3, 3)))
            inside = cv2.GaussianBlur(inside, (0, 0), max(0.5, max(image.shape[:2]) / 150))
            tinted = _shift_colours(
                image, rng.uniform(-self.TINT_HUE, self.TINT_HUE), rng.uniform(*self.TINT_SATURATION)
            )
            image = _to_uint8(tinted + inside[..., np.newaxis] * (image.astype(np.float32) - tinted))
        return super().change_colours(image, masks, rng)

    def _take_picture(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        side, image = max(image.shape[:2]), self.change_colours(image, masks, rng)
        if rng.random() < self.BLURRED:
            image = cv2.GaussianBlur(image, (0, 0), max(0.3, rng.uniform(*self.BLUR) * side / 1000))
        if rng.random() < self.COMPRESSED:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*self.QUALITY))]
            jpeg = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), quality)[1]
            image = np.ascontiguousarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1])
        return image


def lay_together(samples: Sequence[Augmented], side: int, rng: np.random.Generator) -> Augmented:
    """Lay four samples into the quarters of a square picture, which differ in size; what does not fit is cut.

    Each sample fills its quarter. Instances of which too little is left are dropped, as by `augment_instances`;
    `sources` counts those of all four in a row.
    """
    picture = np.zeros((side, side, 3), np.uint8)
    split = np.rint(side * rng.uniform(0.35, 0.65, 2)).astype(int)
    rows = (slice(0, split[0]), slice(split[0], side))
    columns = (slice(0, split[1]), slice(split[1], side))
    laid, sources, first = [], [], 0
    for sample, (row, column) in zip(samples, [(r, c) for r in rows for c in columns], strict=True):
        height, width = row.stop - row.start, column.stop - column.start
        scale = max(height / sample.image.shape[0], width / sample.image.shape[1])
        shape = [
            max(wanted, round(old * scale)) for wanted, old in zip((height, width), sample.image.shape, strict=False)
        ]
        y, x = (int(rng.integers(new - wanted + 1)) for new, wanted in zip(shape, (height, width), strict=True))
        part = np.s_[y : y + height, x : x + width]
        picture[row, column] = resize(sample.image, shape)[part]
        resized = resize_nearest(sample.masks, shape)
        masks = np.zeros((side, side, resized.shape[-1]), resized.dtype)
        masks[row, column] = resized[part]
        kept = _rebuild_instances(picture, masks, resized, 1.0, split=False)
        laid.append(kept.masks)
        sources.append(kept.sources + first)
        first += len(sample.sources)
    return Augmented(picture, np.concatenate(laid, axis=-1), np.concatenate(sources))


# None keeps a state, so that threads can share them.
Augmentation = ImgaugAugmentation | StrongAugmentation
AnyAugmentation = Augmentation | iaa.Augmenter


def _shift_colours(image: np.ndarray, hue: float, saturation: float) -> np.ndarray:
    """Shift the hue by degrees and multiply the saturation."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    levels = np.arange(256, dtype=np.float32)
    # OpenCV keeps the hue of 8-bit images in steps of 2 degrees, 0 to 179.
    tables = np.stack([(np.arange(256) + round(hue / 2)) % 180, levels * saturation, levels], axis=-1)
    return cv2.cvtColor(cv2.LUT(hsv, _to_uint8(tables)[np.newaxis]), cv2.COLOR_HSV2RGB)


def _turn_and_flip(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Turn by a multiple of 90 degrees (180 if the image is not square) and flip left to right, at random."""
    turns = int(rng.integers(4))
    if image.shape[0] != image.shape[1]:
        turns = 2 * (turns // 2)
    image, masks = np.rot90(image, turns), np.rot90(masks, turns)
    if rng.random() < 0.5:
        image, masks = image[:, ::-1], masks[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(masks)


def zoom_reflected(
    image: np.ndarray, masks: np.ndarray, zoom: float, position: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Zoom a picture and lay it on a canvas of the old size that its own reflections fill.

    With a factor `zoom` below 1 reflections are seen around the picture, above 1 the picture is cut; `position`, (y, x)
    in [0, 1], says where in the free room the picture, or the cut, lies. Shapes are those of `augment_instances`.

    Returns:
        Image and masks of the same shapes, the masks mirrored and not yet split, and by how much areas have grown.
    """
    height, width = image.shape[:2]
    new_height, new_width = max(2, round(height * zoom)), max(2, round(width * zoom))
    rows = _reflected_index(height, new_height, round((height - new_height) * position[0]))
    columns = _reflected_index(width, new_width, round((width - new_width) * position[1]))
    zoomed = resize(image, (new_height, new_width))[rows][:, columns]
    # Masks skip the small picture: each pixel takes the one of the original that lies under its centre.
    mask_rows = ((rows + 0.5) * (height / new_height)).astype(int)
    mask_columns = ((columns + 0.5) * (width / new_width)).astype(int)
    return zoomed, masks[mask_rows][:, mask_columns], new_height * new_width / (height * width)


def _reflected_index(length: int, picture_length: int, start: int) -> np.ndarray:
    """For each of `length` pixels the one of a picture that begins at `start`, reflected without its edge."""
    period = 2 * (picture_length - 1)
    index = (np.arange(length) - start) % period
    return np.minimum(index, period - index)


def _rebuild_instances(
    image: np.ndarray, masks: np.ndarray, old_masks: np.ndarray, growth: float | None, *, split: bool
) -> Augmented:
    """Make instances of warped masks and drop those of which too little is left.

    `growth` is by how much areas have grown; None takes it from the instance that kept most of its area. With `split`
    each 8-connected component is an instance, the largest of a source first.
    """
    old_areas = np.maximum(np.count_nonzero(old_masks, axis=(0, 1)), 1)
    old_sides = _shorter_sides(extract_bboxes(old_masks))
    parts, sources = [], []
    for source in range(masks.shape[-1]):
        components = _components(masks[..., source]) if split else [masks[..., source]]
        parts += components
        sources += [source] * len(components)
    if not parts:
        return Augmented(image, np.zeros((*image.shape[:2], 0), masks.dtype), np.zeros(0, np.int32))

    new_masks, new_sources = np.stack(parts, axis=-1), np.array(sources, np.int32)
    shares = np.count_nonzero(new_masks, axis=(0, 1)) / old_areas[new_sources]
    if growth is None:
        growth = shares.max()
    sides = _shorter_sides(extract_bboxes(new_masks))
    kept = (shares > 0) & (shares >= MIN_VISIBLE_SHARE * growth)
    kept &= sides >= np.minimum(MIN_SIDE, old_sides[new_sources])
    return Augmented(image, new_masks[..., kept], new_sources[kept])


def _components(mask: np.ndarray) -> list[np.ndarray]:
    """Split a mask of shape (height, width) into its 8-connected components, the largest first."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(bool).astype(np.uint8), connectivity=8)
    order = np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable") + 1
    return [np.where(labels == label, mask, 0).astype(mask.dtype) for label in order]


def _shorter_sides(boxes: np.ndarray) -> np.ndarray:
    return np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
