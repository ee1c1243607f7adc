"""Boxes in Pascal VOC's XML files, and images with them as a Dataset.

Reference:
    Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge"; the development kit's annotations.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
import numpy as np
from defusedxml.common import DefusedXmlException

from mrcnn.annotations.faults import Fault
from mrcnn.annotations.shapes import EDGE_TOLERANCE
from mrcnn.data.dataset import UprightDataset
from mrcnn.data.images import image_size
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError, one_line


class VocBoxDataset(UprightDataset):
    """Images with Pascal VOC boxes of one class, for evaluation only: boxes give no masks to train on.

    Images are upright as their files note it (EXIF), and boxes are those of that picture.

    Args:
        records: the images.
        annotations_folder: holds `<image stem>.xml` for each image.
        names: the object names that count as the class.
        source: name of the centre, without dots.

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
    ):
        super().__init__()
        self.names = frozenset(names)
        self.add_class(source, 1, "cell")
        owners: dict[Path, ImageRecord] = {}
        for record in records:
            xml_path = Path(annotations_folder) / f"{Path(record.image_id).stem}.xml"
            if not xml_path.is_file():
                raise InputError(f"{record.path}: no annotation {xml_path}; add it or leave the image out")
            other = owners.setdefault(xml_path, record)
            if other is not record:
                raise InputError(
                    f"{xml_path}: could be that of {other.image_id} or {record.image_id}; rename one with its file"
                )
            self.add_image(source, record.image_id, record.path, xml_path=xml_path)
        self.prepare()

    def load_boxes(self, image_id: int) -> np.ndarray:
        """Return the boxes of an image; see `read_voc_boxes`."""
        info = self.image_info[image_id]
        return read_voc_boxes(info["xml_path"], self.names, image_size(info["path"]))


def read_voc_boxes(path: str | os.PathLike, names: Iterable[str], size: tuple[int, int]) -> np.ndarray:
    """Read the boxes of some object names from a Pascal VOC xml file, of an image of `size` (height, width).

    VOC counts pixels from 1 and includes the last one, so one is taken off xmin and ymin.

    Returns:
        float32 array of shape (num_boxes, 4), `(y1, x1, y2, x2)` pixels, y2 and x2 exclusive.

    Raises:
        InputError: if the file is missing, no VOC annotation, made for another size, or has faulty boxes, which are
            all named.
    """
    try:
        root = defusedxml.ElementTree.parse(path).getroot()
    except (ParseError, DefusedXmlException, ValueError, LookupError, OSError) as error:
        raise InputError(f"{path}: no xml that can be read ({one_line(error)}); export the annotation again") from None
    if root.tag != "annotation":
        raise InputError(f"{path}: not Pascal VOC: root element is <{root.tag}>, expected <annotation>")
    texts = [(root.findtext(f"size/{side}") or "").strip() for side in ("height", "width")]
    stated = tuple(int(text) for text in texts if text.isascii() and text.isdigit() and len(text) < 10)
    if len(stated) == 2 and all(stated) and stated != size:  # some have none, or zeros
        raise InputError(
            f"{path}: made for an image of {stated[1]}x{stated[0]} px, this one has {size[1]}x{size[0]} px"
        )
    boxes, faults = [], []
    for number, item in enumerate(root.iter("object"), 1):
        if (item.findtext("name") or "").strip() in names:
            try:
                boxes.append(_read_box(item, size))
            except Fault as error:
                faults.append(f"object {number} {error}")
    if faults:
        raise InputError(f"{path}: {'; '.join(faults)}")
    return np.array(boxes, np.float32).reshape(-1, 4)


def _read_box(item: Element, size: tuple[int, int]) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        raise Fault("lacks a number for xmin, ymin, xmax or ymax") from None
    box = f"(xmin {x1:g}, ymin {y1:g}, xmax {x2:g}, ymax {y2:g})"
    if not (x1 <= x2 and y1 <= y2 and np.isfinite([x1, y1, x2, y2]).all()):
        raise Fault(f"has a box without area {box}")
    if y2 > size[0] + EDGE_TOLERANCE or x2 > size[1] + EDGE_TOLERANCE:
        raise Fault(f"has a box {box} outside the image of {size[1]}x{size[0]} px")
    # Some tools count from 0 all the same; -1 would then lie outside the image.
    return max(y1 - 1, 0.0), max(x1 - 1, 0.0), y2, x2
