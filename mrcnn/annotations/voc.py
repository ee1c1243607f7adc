"""Boxes in Pascal VOC's XML files.

Reference:
    Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge"; the development kit's annotations.
"""

import os
from collections.abc import Iterable
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
import numpy as np
from defusedxml.common import DefusedXmlException

from mrcnn.annotations.shapes import EDGE_TOLERANCE
from mrcnn.files.errors import InputError, first_line


def read_voc_boxes(
    path: str | os.PathLike, names: Iterable[str] = ("WBC",), size: tuple[int, int] | None = None
) -> np.ndarray:
    """Read the boxes of some object names from a Pascal VOC xml file.

    VOC counts pixels from 1 and includes the last one, so one is taken off xmin and ymin.

    Args:
        path: the xml file.
        names: object names to keep.
        size: height and width of the image in pixels; None takes what the file says, and nothing if it does not.

    Returns:
        float32 array of shape (num_boxes, 4), `(y1, x1, y2, x2)` pixels, y2 and x2 exclusive.

    Raises:
        InputError: if the file is missing, no VOC annotation, or has a box without area or outside its image.
    """
    wanted = {names} if isinstance(names, str) else set(names)
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such annotation file")
    try:
        root = defusedxml.ElementTree.parse(path).getroot()
    except (ParseError, DefusedXmlException, ValueError, LookupError, OSError) as error:
        raise InputError(f"{path}: malformed xml ({first_line(error)}); export the annotation again") from None
    if root.tag != "annotation":
        raise InputError(f"{path}: not Pascal VOC: root element is <{root.tag}>, expected <annotation>")
    stated = _stated_size(root)
    if size is not None and stated is not None and stated != size:
        (rows, columns), (height, width) = stated, size
        raise InputError(f"{path}: made for an image of {columns}x{rows} px, this one has {width}x{height} px")
    boxes = [_read_box(item, path) for item in root.iter("object") if (item.findtext("name") or "").strip() in wanted]
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    height, width = size or stated or (np.inf, np.inf)
    outside = boxes[(boxes[:, 2] > height + EDGE_TOLERANCE) | (boxes[:, 3] > width + EDGE_TOLERANCE)]
    if len(outside):
        y2, x2 = outside[0, 2:]
        raise InputError(f"{path}: a box reaches to ({x2:g}, {y2:g}), outside the image of {width}x{height} px")
    return boxes


def _stated_size(root: Element) -> tuple[int, int] | None:
    """Height and width that a VOC annotation has; some have none, or zeros."""
    texts = [(root.findtext(f"size/{side}") or "").strip() for side in ("height", "width")]
    if not all(text.isascii() and text.isdigit() and len(text) < 10 and int(text) for text in texts):
        return None
    return int(texts[0]), int(texts[1])


def _read_box(item: Element, path: str | os.PathLike) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        raise InputError(f"{path}: an object lacks a number for xmin, ymin, xmax or ymax") from None
    if not (x1 <= x2 and y1 <= y2 and np.isfinite([x1, y1, x2, y2]).all()):
        raise InputError(f"{path}: box without area (xmin {x1:g}, ymin {y1:g}, xmax {x2:g}, ymax {y2:g})")
    # Some tools count from 0 all the same; -1 would then lie outside the image.
    return max(y1 - 1, 0.0), max(x1 - 1, 0.0), y2, x2
