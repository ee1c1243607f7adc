"""Outlines in annotation files as a Dataset, after a check that lists every fault in one go."""

import hashlib
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.annotations.coco import parse_coco
from mrcnn.annotations.faults import AnnotationCheck, Fault, shorten
from mrcnn.annotations.labelme import parse_labelme, read_labelme
from mrcnn.annotations.shapes import Annotations, OutlinedImage, OutlinedObject
from mrcnn.annotations.via import is_via, parse_via
from mrcnn.data.dataset import UprightDataset
from mrcnn.data.images import image_size, read_image
from mrcnn.data.masks import check_mask_memory
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file

PARSERS = {"coco": parse_coco, "labelme": parse_labelme, "via": parse_via}
# A drive letter of Windows, or the scheme of a URL, which VIA keeps for images of the web.
_ROOTED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def read_annotations(path: str | os.PathLike, file_format: str = "auto") -> Annotations:
    """Read the outlines of a set of images.

    What is wrong with single images or objects is noted with them, for `check_outlines` to list.

    Args:
        path: a COCO, VIA or labelme file, or a folder of labelme files, with those of its folders.
        file_format: one of `PARSERS`; "auto" tells it by the content.

    Raises:
        InputError: if the file is missing, damaged or of no known format.
    """
    path = Path(path)
    if file_format not in ("auto", *PARSERS):
        raise InputError(f"annotation format must be auto, {', '.join(PARSERS)}; got {file_format!r}")
    if not path.is_dir():
        return parse_annotations(read_json_file(path), path, file_format)
    files = sorted(path.rglob("*.json"))
    if file_format in ("coco", "via") or not files:
        raise InputError(f"{path}: a folder without labelme files; name the annotation file")
    return read_labelme(files)


def parse_annotations(value: Any, path: Path, file_format: str = "auto") -> Annotations:
    """Turn the JSON value of an annotation file into annotations; see `read_annotations`."""
    found = recognise(value) if file_format == "auto" else file_format
    if found is None:
        raise InputError(f"{path}: neither COCO, VIA nor labelme annotations; export it as one of them")
    return PARSERS[found](value, path)


def recognise(value: Any) -> str | None:
    """Name the format of a JSON value, or None for something else."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("images"), list) and "annotations" in value:
        return "coco"
    if "shapes" in value and "imagePath" in value:
        return "labelme"
    return "via" if is_via(value) else None


class OutlineDataset(UprightDataset):
    """Images with outlined objects, prepared.

    Images are upright as their files note it (EXIF): labelme and the browsers that VIA runs in show them so, and COCO
    files of other tools must have been drawn so; `check_outlines` finds a width and height that is not of that picture.

    Groups (COCO's `iscrowd`) have negative class ids, as in Matterport's Dataset: the network learns nothing on them.

    Args:
        records: the images, as a rule `check_outlines(...).good`.
        annotations: what `read_annotations` returned.
        classes: dict from labels to class names, which are numbered from 1 in this order; objects with other labels are
            left out. None makes every object a "cell".
        source: name of the centre, without dots.

    Raises:
        InputError: if a record is not annotated, or more than once.
    """

    def __init__(
        self,
        records: Iterable[ImageRecord],
        annotations: Annotations,
        *,
        classes: Mapping[str, str] | None = None,
        source: str = "cells",
    ):
        super().__init__()
        records = list(records)
        for number, name in enumerate(_class_names(classes), 1):
            self.add_class(source, number, name)
        images, _ = match_images(records, annotations)
        for record in records:
            found = images[record.image_id]
            if len(found) != 1:
                raise InputError(f"{record.path}: annotated {len(found)} times; run the annotation check first")
            objects = [(thing, _class_id(thing, classes)) for thing in found[0].objects]
            kept = [(thing, class_id) for thing, class_id in objects if class_id]
            self.add_image(source, record.image_id, record.path, annotation=found[0], objects=kept)
        self.prepare()

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the objects of an image, in the order of the file; InputError where `check_outlines` finds a fault."""
        info = self.image_info[image_id]
        where, objects = f"{info['annotation'].source}: {info['id']}", info["objects"]
        height, width = image_size(info["path"])
        check_mask_memory(where, len(objects), height, width)
        masks = np.zeros((height, width, len(objects)), bool)
        for i, (thing, _) in enumerate(objects):
            try:
                masks[..., i] = thing.draw(height, width)
            except Fault as error:
                raise InputError(f"{where}: {thing.name}: {error}") from None
        return masks, np.array([-class_id if thing.is_crowd else class_id for thing, class_id in objects], np.int32)


def check_outlines(
    records: Sequence[ImageRecord], annotations: Annotations, *, classes: Mapping[str, str] | None = None
) -> AnnotationCheck:
    """Look at every image and outline and list all faults in one go, so that training can go on with the rest.

    Objects that `classes`, as in `OutlineDataset`, leaves out are not looked at. An image without an object that counts
    is good: it shows what is no object. Only where the file has objects that belong to no image, one that has none at
    all is a fault. Faults of the annotation files and of images that are not there come first.

    Raises:
        InputError: if no object has one of the labels asked for, since then nothing could be right.
    """
    things = [thing for image in annotations.images for thing in image.objects]
    if things and not any(_class_id(thing, classes) for thing in things):
        known = ", ".join(repr(label) for label in sorted({thing.label for thing in things})[:20])
        where = annotations.sources[0] if len(annotations.sources) == 1 else annotations.sources[0].parent
        raise InputError(f"{where}: no object is named {' or '.join(sorted(classes))}; the names are {known}")
    images, unmatched = match_images(records, annotations)
    check = AnnotationCheck()
    for name, reason in (*annotations.faults, *unmatched):
        check.add_faults(name, [reason])
    for record in records:
        found = images[record.image_id]
        reasons = _find_faults(record, found, annotations, classes)
        check.add_faults(record.image_id, reasons)
        if not reasons:
            check.accept(record, sum(_class_id(thing, classes) > 0 for thing in found[0].objects))
    return check


def match_images(
    records: Sequence[ImageRecord], annotations: Annotations
) -> tuple[dict[str, list[OutlinedImage]], list[tuple[str, str]]]:
    """Find the annotations of each image.

    The name in the file may be a path from the annotation file's folder, its image_id, or the end of one image_id alone
    (`001.png` for `images/001.png`). Names that lead elsewhere (absolute, with `..`, or of the web) are refused unless
    they lead to one of the records: no file is opened by a name from an annotation file. Accents may be composed or
    apart, as macOS has them.

    Returns:
        The annotations of each record, by image_id; (name, reason) of those without one.
    """
    by_path = {_composed(os.path.abspath(record.path)): record for record in records}
    by_end: dict[str, list[ImageRecord]] = {}
    for record in records:
        parts = _composed(record.image_id).split("/")
        for start in range(len(parts)):
            by_end.setdefault("/".join(parts[start:]), []).append(record)
    images: dict[str, list[OutlinedImage]] = {record.image_id: [] for record in records}
    unmatched = []
    for image in annotations.images:
        name = _composed(image.file_name.replace("\\", "/"))
        leads_out = name.startswith("/") or bool(_ROOTED.match(name)) or ".." in name.split("/")
        # Joining with an absolute name gives that name.
        record = by_path.get(_composed(os.path.abspath(image.source.parent / name)))
        ends = [] if leads_out else by_end.get(posixpath.normpath(name), [])
        candidates = [record] if record else [r for r in ends if _composed(r.image_id) == name] or ends
        if len(candidates) == 1:
            images[candidates[0].image_id].append(image)
        else:
            reason = "is none of the images of the centre"
            if candidates:
                reason = f"could be {' or '.join(r.image_id for r in candidates[:3])}; write the folder too"
            elif leads_out:
                reason = "leads out of the folder of images; write the name relative to it"
            unmatched.append((image.file_name, f"{image.source.name}: {reason}"))
    return images, unmatched


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _class_names(classes: Mapping[str, str] | None) -> list[str]:
    return ["cell"] if classes is None else list(dict.fromkeys(classes.values()))


def _class_id(thing: OutlinedObject, classes: Mapping[str, str] | None) -> int:
    """Class of an object, from 1, or 0 if it does not count. One of an unknown label counts, as a fault."""
    if classes is None or thing.label is None:
        return 1
    return _class_names(classes).index(classes[thing.label]) + 1 if thing.label in classes else 0


def _find_faults(
    record: ImageRecord, found: Sequence[OutlinedImage], annotations: Annotations, classes: Mapping[str, str] | None
) -> list[str]:
    reasons, size = [], None
    try:
        size = read_image(record.path).shape[:2]
    except InputError as error:
        reasons.append(str(error))
    if not found:
        return [*reasons, f"not annotated in the {annotations.kind} file{'s' * (len(annotations.sources) > 1)}"]
    image, *others = found
    if others:
        names = dict.fromkeys(image.source.name for image in found)
        return [*reasons, f"annotated {len(found)} times in {' and '.join(names)}"]
    faults = list(image.faults)
    if size is not None and (image.height or size[0], image.width or size[1]) != size:
        stated = f"{image.width or '?'}x{image.height or '?'}"
        faults.append(f"made for an image of {stated} px, this one has {size[1]}x{size[0]} px")
        size = None  # every object would be wrong; that is said once
    chosen = [thing for thing in image.objects if _class_id(thing, classes)]
    if not image.objects and annotations.num_lost_objects:
        faults.append(f"no object on it; one of the {annotations.num_lost_objects} that belong to no image may be its")
    elif chosen and all(thing.is_crowd for thing in chosen):
        faults.append("nothing but groups (iscrowd) on it")
    try:
        check_mask_memory(record.image_id, len(chosen), *(size or (0, 0)))
    except InputError as error:
        return [*reasons, str(error)]
    drawn: dict[bytes, OutlinedObject] = {}
    for thing in chosen if size else [thing for thing in chosen if thing.fault]:
        try:
            # Masks of many objects would fill the memory; what tells them apart does not.
            mask = hashlib.sha256(np.packbits(thing.draw(*(size or (0, 0))))).digest()
            if drawn.setdefault(mask, thing) is not thing:
                raise Fault(f"repeats {drawn[mask].name}")
        except Fault as error:
            faults.append(f"{thing.name}{f' ({shorten(thing.label)})' if thing.label else ''}: {error}")
    return [*reasons, *(f"{image.source.name}: {fault}" for fault in faults)]
