"""Label-mask images, of which each value or each connected part is a cell, as a Dataset."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from mrcnn.annotations.faults import AnnotationCheck
from mrcnn.data.dataset import UprightDataset
from mrcnn.data.images import read_image, read_values
from mrcnn.data.masks import check_mask_memory
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError

MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
# A hand-drawn mask may hold stray pixels: one mask of the cellavision set has fragments of 1 and 2 px beside
# a cell of 8,444. Cells in one field differ in area, but hardly by a factor of 50.
MIN_FRAGMENT_SHARE = 0.02
MIN_FRAGMENT_AREA = 16
# Values of the masks of Zheng et al. 2018.
CYTOPLASM, NUCLEUS = 128, 255
MAX_STRAY_SHARE = 0.02  # of the pixels of cells, which may have other values


class CellMaskDataset(UprightDataset):
    """Images of cells with a label-mask image each, prepared.

    Both are upright, each by the orientation that its own file notes (EXIF), as programs show what is drawn on.

    Args:
        records: the images, as a rule `check_annotations(...).good`.
        masks_folder: where the masks lie, see `find_mask`; masks of the nuclei may lie in `nuclei/` beside it.
        semantics: what the values of a mask mean, see `find_instances`.
        source: name of the centre, without dots.

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
    ):
        super().__init__()
        self.semantics = _checked(semantics)
        self._read = lru_cache(2)(read_label_mask)  # cells and their nuclei are asked for one after the other
        self.add_class(source, 1, "cell")
        for record in records:
            mask_path = find_mask(record, masks_folder)
            if mask_path is None:
                raise InputError(f"{record.path}: no mask in {masks_folder}; run the annotation check first")
            nuclei_path = find_mask(record, nuclei_folder(masks_folder))
            self.add_image(source, record.image_id, record.path, mask_path=mask_path, nuclei_path=nuclei_path)
        self.prepare()

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the cells of an image: bool (height, width, num_cells) and int32 ones of shape (num_cells,)."""
        path = self.image_info[image_id]["mask_path"]
        labels, instances = find_instances(self._read(path), self.semantics)
        check_mask_memory(path, len(instances), *labels.shape)
        return labels[..., np.newaxis] == instances, np.ones(len(instances), np.int32)

    def load_parts(self, image_id: int) -> dict[str, np.ndarray]:
        """Return the nuclei of the cells, bool (height, width, num_cells), where they are known, see `find_nuclei`."""
        info = self.image_info[image_id]
        nuclei = find_nuclei(self._read(info["mask_path"]), info["nuclei_path"], self.semantics)
        if nuclei is None:
            return {}
        cells, _ = self.load_mask(image_id)
        return {"nucleus": cells & nuclei[..., np.newaxis]}


def nuclei_folder(masks_folder: str | os.PathLike) -> Path:
    """Where masks of the nuclei lie."""
    return Path(masks_folder).with_name("nuclei")


def find_nuclei(labels: np.ndarray, nuclei_path: Path | None, semantics: str = "cell") -> np.ndarray | None:
    """Return which pixels of a label mask are nucleus, bool (height, width), or None where that is not known.

    They are those above 0 in the image of `nuclei_path`; without one, with `semantics` "cell", those of the value 255
    in a mask that has 0, 128 and 255 alone but for stray pixels, 128 being cytoplasm.

    Raises:
        InputError: if the file cannot be read or is not of the mask's size.
    """
    if nuclei_path is None:
        return labels == NUCLEUS if semantics == "cell" and _is_coded(labels) else None
    nuclei = read_label_mask(nuclei_path)
    if nuclei.shape != labels.shape:
        raise InputError(
            f"{nuclei_path}: {nuclei.shape[1]}x{nuclei.shape[0]} px, but the mask of the cells has "
            f"{labels.shape[1]}x{labels.shape[0]} px"
        )
    return nuclei > 0


def _is_coded(labels: np.ndarray) -> bool:
    """Whether the values of a mask are 128 for cytoplasm and 255 for nucleus."""
    areas = [np.count_nonzero(labels == value) for value in (CYTOPLASM, NUCLEUS)]
    return min(areas) > 0 and np.count_nonzero(labels) - sum(areas) <= MAX_STRAY_SHARE * sum(areas)


def find_mask(record: ImageRecord, masks_folder: str | os.PathLike) -> Path | None:
    """Find the mask image of a record, or None.

    It has one of `MASK_SUFFIXES`, in lower or upper case, and lies under the image's image_id, that without its first
    folder (`images/001.jpg` -> `001.png`) or the bare name.
    """
    image_id = Path(record.image_id)
    # Where upper and lower case are the same to the disk, the image itself would answer to another spelling.
    own = os.fspath(record.path).casefold()
    for name in dict.fromkeys((image_id, Path(*image_id.parts[1:]), Path(image_id.name))):
        for suffix in MASK_SUFFIXES if name.name else ():
            for spelling in (suffix, suffix.upper(), f".{suffix[1:].capitalize()}"):
                path = Path(masks_folder) / name.with_suffix(spelling)
                if os.fspath(path).casefold() != own and path.is_file():
                    return path
    return None


def read_label_mask(path: str | os.PathLike) -> np.ndarray:
    """Read a label mask with its values as stored, such as palette indices, upright: int32 (height, width).

    Raises:
        InputError: if the file cannot be read, has colour or transparency, or values that are not whole numbers of at
            most 31 bits.
    """
    labels = read_values(path)
    if labels.ndim == 3:
        # Where it is transparent, the value beneath is not what the person saw who drew it.
        colour, opacity = labels[..., :3], labels[..., 3:]
        is_clear = labels.shape[-1] == 2 or (opacity != np.iinfo(labels.dtype).max).any()
        if is_clear or np.any(colour != colour[..., :1]):
            raise InputError(f"{path}: mask has colours or transparency; save one grey value per pixel")
        labels = labels[..., 0]
    limits = np.iinfo(np.int32)
    with np.errstate(invalid="ignore"):  # infinite ones
        wrong = labels[~((labels >= limits.min) & (labels <= limits.max) & (labels % 1 == 0))]
    if wrong.size:
        raise InputError(f"{path}: mask has values such as {wrong[0]:g}; number the cells from 1, 0 for background")
    return labels.astype(np.int32)


def find_instances(labels: np.ndarray, semantics: str = "cell") -> tuple[np.ndarray, np.ndarray]:
    """Find the instances of a label mask.

    With "cell" every value above 0 is cell (nucleus and cytoplasm may differ in value) and each 8-connected component
    is an instance; one smaller than 2 % of the largest, or than 16 px, is a stray fragment and belongs to none. With
    "instances" each value above 0 is one instance, as drawn.

    Returns:
        An array of the shape of `labels`, (height, width), and those of its values that are instances, by size for
        "cell", by value otherwise.
    """
    if semantics == "instances":
        return labels, np.unique(labels[labels > 0])
    _, components, stats, _ = cv2.connectedComponentsWithStats((labels > 0).astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    smallest = max(MIN_FRAGMENT_AREA, MIN_FRAGMENT_SHARE * areas.max(initial=0))
    order = np.argsort(-areas, kind="stable")
    return components, order[areas[order] >= smallest] + 1


def check_annotations(
    records: Sequence[ImageRecord], masks_folder: str | os.PathLike, *, semantics: str = "cell"
) -> AnnotationCheck:
    """Look at every image and mask and list all faults in one go, so that training can go on with the rest.

    A mask that is 0 everywhere is good: it says that there is no cell.

    Raises:
        InputError: if the folder is missing or `semantics` is unknown, since then nothing could be right.
    """
    _checked(semantics)
    if not Path(masks_folder).is_dir():
        raise InputError(f"{masks_folder}: no such folder of masks")
    mask_paths = [find_mask(record, masks_folder) for record in records]
    uses = Counter(mask_paths)
    check = AnnotationCheck()
    for record, mask_path in zip(records, mask_paths, strict=True):
        try:
            nuclei_path = find_mask(record, nuclei_folder(masks_folder))
            check.accept(record, _count_cells(record, mask_path, nuclei_path, uses[mask_path], semantics))
        except InputError as error:
            check.add_faults(record.image_id, [str(error)])
    return check


def _checked(semantics: str) -> str:
    if semantics not in ("cell", "instances"):
        raise InputError(f"mask semantics must be cell or instances, got {semantics!r}")
    return semantics


def _count_cells(
    record: ImageRecord, mask_path: Path | None, nuclei_path: Path | None, num_uses: int, semantics: str
) -> int:
    """Return the number of cells of an image, or raise an InputError why it cannot be trained on."""
    image = read_image(record.path)
    if mask_path is None:
        raise InputError("missing mask")
    if num_uses > 1:
        raise InputError(f"mask {mask_path} is shared by {num_uses} images")
    labels = read_label_mask(mask_path)
    if labels.shape != image.shape[:2]:
        (height, width), (mask_height, mask_width) = image.shape[:2], labels.shape
        raise InputError(f"mask is {mask_width}x{mask_height} px, image is {width}x{height} px")
    num_cells = len(find_instances(labels, semantics)[1])
    if nuclei_path is not None:
        find_nuclei(labels, nuclei_path, semantics)
    check_mask_memory(mask_path, num_cells, *labels.shape)
    if num_cells == 0 and labels.any():
        raise InputError(f"no cell in its mask, only specks of less than {MIN_FRAGMENT_AREA} px or negative values")
    return num_cells
