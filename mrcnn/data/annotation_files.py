"""Telling the formats of annotation files apart, and reading any of them."""

import os
from pathlib import Path
from typing import Any

from mrcnn.data.coco import is_coco, parse_coco
from mrcnn.data.json_files import read_json
from mrcnn.data.labelme import is_labelme, parse_labelme, read_labelme
from mrcnn.data.outlined_images import Annotations
from mrcnn.data.via import is_via, parse_via
from mrcnn.errors import InputError

FORMATS = ("coco", "via", "labelme")


def read_annotations(path: str | os.PathLike, file_format: str = "auto") -> Annotations:
    """Read the outlines of a set of images.

    Args:
        path: a COCO, VIA or labelme file, or a folder of labelme files.
        file_format: one of `FORMATS`; "auto" tells it by the content.

    Raises:
        InputError: if the file is missing, damaged or of no known format. What is wrong with single images or objects
            is noted with them, for `check_outlines` to list.
    """
    path = Path(path)
    if file_format not in ("auto", *FORMATS):
        raise InputError(f"annotation format must be auto, {', '.join(FORMATS)}; got {file_format!r}")
    if path.is_dir():
        if file_format in ("coco", "via"):
            raise InputError(f"{path}: a folder; name the {file_format} file in it")
        return read_labelme(path)
    return parse_annotations(read_json(path), path, file_format)


def parse_annotations(value: Any, path: Path, file_format: str = "auto") -> Annotations:
    """Turn the JSON value of an annotation file into annotations; see `read_annotations`."""
    found = recognise(value) if file_format == "auto" else file_format
    if found == "coco":
        return parse_coco(value, path)
    if found == "via":
        return parse_via(value, path)
    if found == "labelme":
        return Annotations("labelme", [path], [parse_labelme(value, path)])
    raise InputError(f"{path}: neither COCO, VIA nor labelme annotations; export it as one of them")


def recognise(value: Any) -> str | None:
    """Name the format of a JSON value, or None for something else."""
    for file_format, is_format in (("coco", is_coco), ("labelme", is_labelme), ("via", is_via)):
        if is_format(value):
            return file_format
    return None
