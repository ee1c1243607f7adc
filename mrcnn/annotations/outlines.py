"""Outlines in annotation files as a Dataset, after a check that lists every fault in one go."""

import hashlib
import os
import posixpath
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.annotations.coco import parse_coco
from mrcnn.annotations.faults import AnnotationCheck, Fault, shorten
from mrcnn.annotations.geojson import is_geojson, parse_geojson
from mrcnn.annotations.labelme import parse_labelme
from mrcnn.annotations.shapes import Annotations, OutlinedImage, OutlinedObject
from mrcnn.annotations.via import is_via, parse_via
from mrcnn.data.dataset import UprightDataset
from mrcnn.data.images import image_size, read_image
from mrcnn.data.masks import check_mask_memory
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file

PARSERS = {"coco": parse_coco, "geojson": parse_geojson, "labelme": parse_labelme, "via": parse_via}
# Formats with a file for each image.
PER_IMAGE = ("geojson", "labelme")
SUFFIXES = {".json", ".geojson"}
# Labels of nuclei, in any case of letters.
NUCLEUS_NAMES = ("nucleus", "nuclei")
# A drive letter of Windows, or the scheme of a URL, which VIA keeps for images of the web.
_ROOTED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def read_annotations(path: str | os.PathLike, file_format: str = "auto") -> Annotations:
    """Read the outlines of a set of images.

    What is wrong with single images or objects is noted with them, for `check_outlines` to list.

    Args:
        path: a file, or a folder of labelme files or of GeoJSON files, with those of its folders.
        file_format: one of `PARSERS`; "auto" tells it by the content.

    Raises:
        InputError: if the file is missing, damaged or of no known format.
    """
    path = Path(path)
    if file_format not in ("auto", *PARSERS):
        raise InputError(f"annotation format must be auto, {', '.join(PARSERS)}; got {file_format!r}")
    if not path.is_dir():
        return parse_annotations(read_json_file(path), path, file_format)
    files = annotation_files(path, "**/*")
    if file_format not in ("auto", *PER_IMAGE) or not files:
        raise InputError(f"{path}: a folder without labelme or GeoJSON files; name the annotation file")
    is_labelme = all(file.suffix == ".json" for file in files)
    return read_each(files, file_format if file_format != "auto" else "labelme" if is_labelme else "geojson")


def annotation_files(folder: Path, pattern: str = "*") -> list[Path]:
    """The JSON and GeoJSON files in a folder, those of its folders too with the pattern "**/*"."""
    return sorted(path for path in folder.glob(pattern) if path.suffix in SUFFIXES)


def read_each(files: Iterable[Path], kind: str) -> Annotations:
    """Read files of a format that has one for each image; what is wrong with one of them is noted in `faults`."""
    result = Annotations(kind, list(files))
    for file in result.sources:
        try:
            result.images += PARSERS[kind](read_json_file(file), file).images
        except InputError as error:
            result.faults.append((file.name, str(error).removeprefix(f"{file}: ")))
    return result


def parse_annotations(value: Any, path: Path, file_format: str = "auto") -> Annotations:
    """Turn the JSON value of an annotation file into annotations; see `read_annotations`."""
    found = recognise(value) if file_format == "auto" else file_format
    if found is None:
        raise InputError(f"{path}: neither COCO, VIA, labelme nor GeoJSON annotations; export it as one of them")
    return PARSERS[found](value, path)


def recognise(value: Any) -> str | None:
    """Name the format of a JSON value, or None for something else."""
    if is_geojson(value):
        return "geojson"
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("images"), list) and "annotations" in value:
        return "coco"
    if "shapes" in value and "imagePath" in value:
        return "labelme"
    return "via" if is_via(value) else None


@dataclass(frozen=True)
class _Meaning:
    """What the labels of objects mean."""

    classes: Mapping[str, str] | None
    nucleus_names: Collection[str]

    @property
    def class_names(self) -> list[str]:
        return ["cell"] if self.classes is None else list(dict.fromkeys(self.classes.values()))

    def class_id(self, thing: OutlinedObject) -> int:
        """Class of an object, from 1, or 0 if it does not count. One of an unknown label counts, as a fault."""
        if self.is_nucleus(thing):
            return 0
        if self.classes is None or thing.label is None:
            return 1
        return self.class_names.index(self.classes[thing.label]) + 1 if thing.label in self.classes else 0

    def is_nucleus(self, thing: OutlinedObject) -> bool:
        if thing.is_nucleus or thing.label is None or thing.label in (self.classes or ()):
            return thing.is_nucleus
        return thing.label.strip().casefold() in {name.casefold() for name in self.nucleus_names}


class OutlineDataset(UprightDataset):
    """Images with outlined objects, prepared.

    Images are upright as their files note it (EXIF): labelme and the browsers that VIA runs in show them so, and COCO
    files of other tools must have been drawn so; `check_outlines` finds a width and height that is not of that picture.

    Groups (COCO's `iscrowd`) have negative class ids, as in Matterport's Dataset: the network learns nothing on them.

    Args:
        records: the images, as a rule `check_outlines(...).good`.
        annotations: what `read_annotations` returned.
        classes: dict from labels to class names, which are numbered from 1 in this order; objects with other labels are
            left out. None makes every object but nuclei a "cell".
        nucleus_names: labels of the nuclei, in any case of letters, unless `classes` has them.
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
        nucleus_names: Collection[str] = NUCLEUS_NAMES,
        source: str = "cells",
    ):
        super().__init__()
        records, meaning = list(records), _Meaning(classes, nucleus_names)
        for number, name in enumerate(meaning.class_names, 1):
            self.add_class(source, number, name)
        images, _ = match_images(records, annotations)
        for record in records:
            found = images[record.image_id]
            if len(found) != 1:
                raise InputError(f"{record.path}: annotated {len(found)} times; run the annotation check first")
            objects = [(thing, meaning.class_id(thing)) for thing in found[0].objects]
            kept = [(thing, class_id) for thing, class_id in objects if class_id]
            nuclei = [thing for thing in found[0].objects if meaning.is_nucleus(thing)]
            self.add_image(source, record.image_id, record.path, annotation=found[0], objects=kept, nuclei=nuclei)
        self.prepare()

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the objects of an image, in the order of the file; InputError where `check_outlines` finds a fault."""
        info = self.image_info[image_id]
        where, objects = f"{info['annotation'].source}: {info['id']}", info["objects"]
        height, width = image_size(info["path"])
        check_mask_memory(where, len(objects), height, width)
        masks = np.zeros((height, width, len(objects)), bool)
        for i, (thing, _) in enumerate(objects):
            masks[..., i] = _draw(thing, height, width, where)
        return masks, np.array([-class_id if thing.is_crowd else class_id for thing, class_id in objects], np.int32)

    def load_parts(self, image_id: int) -> dict[str, np.ndarray]:
        """Return for each cell the nuclei of which more than half lies in it, bool (height, width, num_cells)."""
        info = self.image_info[image_id]
        if not info["nuclei"]:
            return {}
        cells, _ = self.load_mask(image_id)
        nuclei = np.zeros_like(cells)
        for thing in info["nuclei"]:
            nucleus = _draw(thing, *cells.shape[:2], f"{info['annotation'].source}: {info['id']}")
            nuclei[nucleus] |= cells[nucleus] & list(_lies_in(nucleus, np.moveaxis(cells, -1, 0)))
        return {"nucleus": nuclei}


def check_outlines(
    records: Sequence[ImageRecord],
    annotations: Annotations,
    *,
    classes: Mapping[str, str] | None = None,
    nucleus_names: Collection[str] = NUCLEUS_NAMES,
) -> AnnotationCheck:
    """Look at every image and outline and list all faults in one go, so that training can go on with the rest.

    Objects that `classes`, as in `OutlineDataset`, leaves out are not looked at. Nuclei must lie in an object. An image
    without an object that counts is good: it shows what is no object. Only where the file has objects that belong to no
    image, one that has none at all is a fault. Faults of the annotation files and of images that are not there come
    first.

    Raises:
        InputError: if no object has one of the labels asked for, since then nothing could be right.
    """
    things = [thing for image in annotations.images for thing in image.objects]
    meaning = _Meaning(classes, nucleus_names)
    if things and not any(map(meaning.class_id, things)):
        known = ", ".join(repr(label) for label in sorted({thing.label for thing in things})[:20])
        where = annotations.sources[0] if len(annotations.sources) == 1 else annotations.sources[0].parent
        wanted = f"is named {' or '.join(sorted(classes))}" if classes else "is a cell, all are nuclei"
        raise InputError(f"{where}: no object {wanted}; the names are {known}")
    images, unmatched = match_images(records, annotations)
    check = AnnotationCheck()
    for name, reason in (*annotations.faults, *unmatched):
        check.add_faults(name, [reason])
    for record in records:
        found = images[record.image_id]
        reasons = _find_faults(record, found, annotations, meaning)
        check.add_faults(record.image_id, reasons)
        if not reasons:
            check.accept(record, sum(meaning.class_id(thing) > 0 for thing in found[0].objects))
    return check


def match_images(
    records: Sequence[ImageRecord], annotations: Annotations
) -> tuple[dict[str, list[OutlinedImage]], list[tuple[str, str]]]:
    """Find the annotations of each image.

    The name in the file may be a path from the annotation file's folder, its image_id, or the end of one image_id alone
    (`001.png` for `images/001.png`). Names that lead elsewhere (absolute, with `..`, or of the web) are refused unless
    they lead to one of the records: no file is opened by a name from an annotation file. Accents may be composed or
    apart, as macOS has them. A GeoJSON file goes by its own name instead: its path, with or without the ending of the
    image, must end like one image_id alone, as much of it as fits any.

    Returns:
        The annotations of each record, by image_id; (name, reason) of those without one.
    """
    by_name = annotations.kind == "geojson"
    by_path = {_composed(os.path.abspath(record.path)): record for record in records}
    by_end: dict[str, list[ImageRecord]] = {}
    for record in records:
        parts = _composed(record.image_id).split("/")
        ends = ["/".join(parts[start:]) for start in range(len(parts))]
        for end in dict.fromkeys([*ends, *(map(_stem, ends) if by_name else ())]):
            by_end.setdefault(end, []).append(record)
    images: dict[str, list[OutlinedImage]] = {record.image_id: [] for record in records}
    unmatched = []
    for image in annotations.images:
        name = _composed(image.file_name.replace("\\", "/"))
        leads_out = name.startswith("/") or bool(_ROOTED.match(name)) or ".." in name.split("/")
        # Joining with an absolute name gives that name.
        record = by_path.get(_composed(os.path.abspath(image.source.parent / name)))
        ends = [] if leads_out else by_end.get(posixpath.normpath(name), [])
        if by_name:
            parts = _composed(image.source.with_name(name).absolute().as_posix()).split("/")
            tails = ("/".join(parts[start:]) for start in range(len(parts)))
            ends = next((by_end[tail] for tail in tails if tail in by_end), [])
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


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _draw(thing: OutlinedObject, height: int, width: int, where: str) -> np.ndarray:
    try:
        return thing.draw(height, width)
    except Fault as error:
        raise InputError(f"{where}: {thing.name}: {error}") from None


def _lies_in(nucleus: np.ndarray, cells: Iterable[np.ndarray]) -> Iterator[bool]:
    """Whether more than half of a nucleus lies in each of some cells, all bool (height, width)."""
    places = np.nonzero(nucleus)
    return (2 * np.count_nonzero(cell[places]) > len(places[0]) for cell in cells)


def _find_faults(
    record: ImageRecord, found: Sequence[OutlinedImage], annotations: Annotations, meaning: _Meaning
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
    chosen = [thing for thing in image.objects if meaning.class_id(thing)]
    nuclei = [thing for thing in image.objects if meaning.is_nucleus(thing)]
    if not image.objects and annotations.num_lost_objects:
        faults.append(f"no object on it; one of the {annotations.num_lost_objects} that belong to no image may be its")
    elif chosen and all(thing.is_crowd for thing in chosen):
        faults.append("nothing but groups (iscrowd) on it")
    try:
        check_mask_memory(record.image_id, len(chosen), *(size or (0, 0)))
    except InputError as error:
        return [*reasons, str(error)]
    drawn: dict[tuple[bytes, bool], OutlinedObject] = {}
    cells: list[np.ndarray] = []
    for thing in [*chosen, *nuclei] if size else [thing for thing in (*chosen, *nuclei) if thing.fault]:
        try:
            mask = thing.draw(*(size or (0, 0)))
            # Masks of many objects would fill the memory; what tells them apart does not.
            key = hashlib.sha256(np.packbits(mask)).digest(), thing in nuclei
            if drawn.setdefault(key, thing) is not thing:
                raise Fault(f"repeats {drawn[key].name}")
            if thing not in nuclei:
                cells += [mask] if nuclei else []
            elif not any(_lies_in(mask, chain(cells, _draw_others(image, [*chosen, *nuclei], size)))):
                raise Fault("a nucleus that lies in no cell")
        except Fault as error:
            faults.append(f"{thing.name}{f' ({shorten(thing.label)})' if thing.label else ''}: {error}")
    return [*reasons, *(f"{image.source.name}: {fault}" for fault in faults)]


def _draw_others(image: OutlinedImage, known: Sequence[OutlinedObject], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The objects of other labels, as far as they can be drawn: their nuclei are no faults."""
    for thing in image.objects:
        if thing not in known:
            with suppress(Fault):
                yield thing.draw(*size)
