"""From annotation files to a Dataset: label-mask images, and Pascal VOC boxes for evaluation."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from mrcnn.annotations.voc import read_voc_boxes
from mrcnn.data.dataset import Dataset
from mrcnn.data.images import DAMAGES, image_size, read_image, read_values
from mrcnn.data.masks import check_mask_memory
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError, first_line

MASK_SEMANTICS = ("cell", "instances")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
# A hand-drawn mask may hold stray pixels: one mask of the cellavision set has fragments of 1 and 2 px beside
# a cell of 8,444. Cells in one field differ in area, but hardly by a factor of 50.
MIN_FRAGMENT_SHARE = 0.02
MIN_FRAGMENT_AREA = 16


@dataclass
class AnnotationCheck:
    """What `check_annotations`, or `check_outlines` of `mrcnn.annotations.outlines`, found; unpacks as the first two.

    Attributes:
        faults: (key, reason) of each fault, in the order of the records. A label mask has one at most, outlines may
            have several for an image.
        good: the records of the images that can be learned from, those without an object among them.
        num_objects: how many objects each of these has, by key.
    """

    faults: list[tuple[str, str]] = field(default_factory=list)
    good: list[ImageRecord] = field(default_factory=list)
    num_objects: dict[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[list]:
        yield self.faults
        yield self.good

    def accept(self, record: ImageRecord, num_objects: int) -> None:
        """Note a good image."""
        self.good.append(record)
        self.num_objects[record.key] = num_objects


class CellMaskDataset(Dataset):
    """Images of one class, "cell", with a label-mask image each; ready to use, `prepare` has been called.

    Args:
        records: the images, as a rule `check_annotations(...).good`.
        masks_folder: where the masks lie, see `find_mask`.
        semantics: what the values of a mask mean, see `instance_masks`.
        source: name of the centre, without dots.
        class_name: name of the one class.

    Raises:
        InputError: if a record has no mask file or `semantics` is unknown.
    """

    def __init__(
        self,
        records: Iterable[ImageRecord],
        masks_folder: str | os.PathLike,
        *,
        semantics: str = "cell",
        source: str = "cells",
        class_name: str = "cell",
    ):
        super().__init__()
        _check_semantics(semantics)
        self.semantics = semantics
        self.add_class(source, 1, class_name)
        for record in records:
            mask_path = find_mask(record, masks_folder)
            if mask_path is None:
                raise InputError(f"{record.path}: no mask in {masks_folder}; run the annotation check first")
            self.add_image(source, record.key, record.path, mask_path=mask_path, record=record)
        self.prepare()

    def image_reference(self, image_id: int) -> str:
        """Return the key of the image in its centre."""
        return self.image_info[image_id]["id"]

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the cells of an image: bool (height, width, num_cells) and int32 ones of shape (num_cells,).

        Raises:
            InputError: if the mask cannot be read, or has too many instances for its size.
        """
        path = self.image_info[image_id]["mask_path"]
        labels = read_label_mask(path)
        check_mask_memory(path, count_instances(labels, self.semantics), *labels.shape)
        masks = instance_masks(labels, self.semantics)
        return masks, np.ones(masks.shape[-1], np.int32)


class VocBoxDataset(Dataset):
    """Images with Pascal VOC boxes of one class, for evaluation only: boxes give no masks to train on.

    Args:
        records: the images.
        annotations_folder: holds `<image stem>.xml` for each image.
        names: the object names that count as the class.
        source: name of the centre, without dots.
        class_name: name of the one class.

    Raises:
        InputError: if an image has no xml file, or shares its file with another.
    """

    def __init__(
        self,
        records: Iterable[ImageRecord],
        annotations_folder: str | os.PathLike,
        *,
        names: Iterable[str] = ("WBC",),
        source: str = "cells",
        class_name: str = "cell",
    ):
        super().__init__()
        self.names = frozenset(names)
        self.add_class(source, 1, class_name)
        owners: dict[Path, ImageRecord] = {}
        for record in records:
            xml_path = Path(annotations_folder) / f"{Path(record.key).stem}.xml"
            if not xml_path.is_file():
                raise InputError(f"{record.path}: no annotation {xml_path}; add it or leave the image out")
            other = owners.setdefault(xml_path, record)
            if other is not record:
                raise InputError(f"{xml_path}: could be that of {other.key} or {record.key}; rename one with its file")
            self.add_image(source, record.key, record.path, xml_path=xml_path, record=record)
        self.prepare()

    def image_reference(self, image_id: int) -> str:
        """Return the key of the image in its centre."""
        return self.image_info[image_id]["id"]

    def load_boxes(self, image_id: int) -> np.ndarray:
        """Return the boxes of an image, float32 (num_boxes, 4), see `read_voc_boxes`.

        Raises:
            InputError: as `read_voc_boxes`, or if the image has another size than the file says or the boxes need.
        """
        info = self.image_info[image_id]
        return read_voc_boxes(info["xml_path"], self.names, image_size(info["path"]))


def find_mask(record: ImageRecord, masks_folder: str | os.PathLike) -> Path | None:
    """Find the mask image of a record, or None.

    The mask has the image's name with a lossless suffix (.png, .tif, .tiff, .bmp), in lower or upper case. It is
    looked for under the image's key, then under the key without its first folder (`images/001.jpg` -> `001.png`),
    then by file name.
    """
    key = Path(record.key)
    # Where upper and lower case are the same to the disk, the image itself would answer to another spelling.
    own = os.fspath(record.path).casefold()
    for name in dict.fromkeys((key, Path(*key.parts[1:]), Path(key.name))):
        for suffix in MASK_SUFFIXES if name.name else ():
            for spelling in (suffix, suffix.upper(), f".{suffix[1:].capitalize()}"):
                path = Path(masks_folder) / name.with_suffix(spelling)
                if os.fspath(path).casefold() != own and path.is_file():
                    return path
    return None


def read_label_mask(path: str | os.PathLike) -> np.ndarray:
    """Read a label mask with its values as stored (palette indices for palette images), upright as `read_image`.

    Returns:
        Integer array of shape (height, width).

    Raises:
        InputError: if the file is missing, unreadable, of several pages, has colour or transparency, or values that
            are not whole or have more than 31 bits.
    """
    if not os.path.isfile(path):  # reading a pipe may never end
        raise InputError(f"{path}: no such mask file")
    try:
        labels = read_values(path)
    except InputError:
        raise  # is a ValueError
    except DAMAGES as error:
        raise InputError(f"{path}: mask cannot be read ({first_line(error)}); save it again as PNG") from None
    if labels.ndim == 3:
        # Where it is transparent, the value beneath is not what the person saw who drew it.
        colour, opacity = labels[..., :3], labels[..., 3:]
        is_clear = labels.shape[-1] == 2 or (opacity != np.iinfo(labels.dtype).max).any()
        if is_clear or np.any(colour != colour[..., :1]):
            raise InputError(f"{path}: mask has colours or transparency; save one grey value per pixel")
        labels = labels[..., 0]
    if np.issubdtype(labels.dtype, np.floating):
        broken = labels[~np.isfinite(labels) | (labels != np.floor(labels))]
        if broken.size:
            raise InputError(f"{path}: mask has values such as {broken[0]:g}; save whole numbers, 0 for background")
    limits = np.iinfo(np.int32)
    if labels.max() > limits.max or labels.min() < limits.min:
        raise InputError(f"{path}: mask has values up to {labels.max():g}; number the cells from 1")
    return labels.astype(np.int32)


def instance_masks(labels: np.ndarray, semantics: str = "cell") -> np.ndarray:
    """Split a label mask into instances.

    With "cell" every value above 0 is cell (nucleus and cytoplasm may differ in value) and each 8-connected
    component is an instance; a component smaller than 2 % of the largest, or than 16 px, is a stray fragment
    and belongs to none. With "instances" each value above 0 is one instance, as drawn.

    Args:
        labels: integer array of shape (height, width).
        semantics: "cell" or "instances".

    Returns:
        bool array of shape (height, width, num_instances), largest first for "cell", by value for
        "instances".

    Raises:
        InputError: if `semantics` is neither.
    """
    values, kept = _instances(labels, semantics)
    return values[..., np.newaxis] == kept


def count_instances(labels: np.ndarray, semantics: str = "cell") -> int:
    """How many masks `instance_masks` would give; it takes no memory for them."""
    return len(_instances(labels, semantics)[1])


def check_annotations(
    records: Sequence[ImageRecord], masks_folder: str | os.PathLike, *, semantics: str = "cell"
) -> AnnotationCheck:
    """Look at every image and mask and list all faults in one go, so that training can go on with the rest.

    Faults are: an unreadable image, a missing or unreadable mask, a mask of another size than its image, a
    mask with nothing but specks in it, and a mask file that several images would share. A mask that is 0 everywhere is
    none: it says that there is no cell.

    Args:
        records: the images of a centre.
        masks_folder: where the masks lie, see `find_mask`.
        semantics: see `instance_masks`.

    Returns:
        The faults and the good records; together they are all records.

    Raises:
        InputError: if the folder is missing or `semantics` is unknown, since then nothing could be right.
    """
    _check_semantics(semantics)
    if not Path(masks_folder).is_dir():
        raise InputError(f"{masks_folder}: no such folder of masks")
    mask_paths = [find_mask(record, masks_folder) for record in records]
    uses = Counter(mask_paths)
    check = AnnotationCheck()
    for record, mask_path in zip(records, mask_paths, strict=True):
        found = _count_cells(record, mask_path, uses[mask_path], semantics)
        if isinstance(found, int):
            check.accept(record, found)
        else:
            check.faults.append((record.key, found))
    return check


def _check_semantics(semantics: str) -> None:
    if semantics not in MASK_SEMANTICS:
        raise InputError(f"mask semantics must be one of {', '.join(MASK_SEMANTICS)}, got {semantics!r}")


def _instances(labels: np.ndarray, semantics: str) -> tuple[np.ndarray, np.ndarray]:
    """An image of numbers, and those of them that are instances, in their order."""
    _check_semantics(semantics)
    if semantics == "instances":
        return labels, np.unique(labels[labels > 0])
    _, components, stats, _ = cv2.connectedComponentsWithStats((labels > 0).astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    smallest = max(MIN_FRAGMENT_AREA, MIN_FRAGMENT_SHARE * areas.max(initial=0))
    order = np.argsort(-areas, kind="stable")
    return components, order[areas[order] >= smallest] + 1


def _count_cells(record: ImageRecord, mask_path: Path | None, num_uses: int, semantics: str) -> int | str:
    """Return the number of cells of an image, or why it cannot be trained on."""
    try:
        image = read_image(record.path)
        if mask_path is None:
            return "missing mask"
        if num_uses > 1:
            return f"mask {mask_path} is shared by {num_uses} images"
        labels = read_label_mask(mask_path)
    except InputError as error:
        return str(error)
    if labels.shape != image.shape[:2]:
        (height, width), (mask_height, mask_width) = image.shape[:2], labels.shape
        return f"mask is {mask_width}x{mask_height} px, image is {width}x{height} px"
    num_cells = count_instances(labels, semantics)
    try:
        check_mask_memory(mask_path, num_cells, *labels.shape)
    except InputError as error:
        return str(error)
    if num_cells == 0 and labels.any():
        return f"no cell in its mask, only specks of less than {MIN_FRAGMENT_AREA} px or negative values"
    return num_cells
