"""From outlines in annotation files to a Dataset, after a check that lists every fault in one go."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.annotations.coco import is_coco, parse_coco
from mrcnn.annotations.label_masks import AnnotationCheck
from mrcnn.annotations.labelme import is_labelme, parse_labelme, read_labelme
from mrcnn.annotations.shapes import Annotations, OutlinedImage, OutlinedObject, ShapeFault, shorten
from mrcnn.annotations.via import is_via, parse_via
from mrcnn.data.dataset import Dataset
from mrcnn.data.images import image_size, read_image
from mrcnn.data.masks import check_mask_memory
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError, escape_unprintable
from mrcnn.files.json_io import read_json

# A drive letter of Windows, or the scheme of a URL, which VIA keeps for images of the web.
_ROOTED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class OutlineDataset(Dataset):
    """Images with outlined objects; ready to use, `prepare` has been called.

    By default every object is a cell, whatever its label. Groups (COCO's `iscrowd`) have negative class ids, as in
    Matterport's Dataset: the network learns nothing on them.

    Args:
        records: the images, as a rule `check_outlines(...).good`.
        annotations: what `read_annotations` returned.
        names: keep only objects with one of these labels.
        classes: dict from labels to class names, for several classes; objects with other labels are left out. A
            sequence of labels makes each a class of its own. Classes are numbered from 1 in the order given.
        crowds: False leaves groups out.
        source: name of the centre, without dots.
        class_name: name of the one class if `classes` is None.

    Raises:
        InputError: if a record is not annotated, or more than once.
    """

    def __init__(
        self,
        records: Iterable[ImageRecord],
        annotations: Annotations,
        *,
        names: Iterable[str] | None = None,
        classes: Mapping[str, str] | Sequence[str] | None = None,
        crowds: bool = True,
        source: str = "cells",
        class_name: str = "cell",
    ):
        super().__init__()
        records = list(records)
        choice = _ClassChoice(names, classes, class_name)
        for number, name in enumerate(choice.class_names, 1):
            self.add_class(source, number, name)
        images, _ = match_images(records, annotations)
        for record in records:
            found = images[record.key]
            if len(found) != 1:
                raise InputError(f"{record.path}: annotated {len(found)} times; run the annotation check first")
            objects = [(thing, choice.class_id(thing)) for thing in found[0].objects]
            kept = [(thing, class_id) for thing, class_id in objects if class_id and (crowds or not thing.is_crowd)]
            self.add_image(source, record.key, record.path, record=record, annotation=found[0], objects=kept)
        self.prepare()

    def image_reference(self, image_id: int) -> str:
        """Return the key of the image in its centre."""
        return self.image_info[image_id]["id"]

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the objects of an image, in the order of the file.

        Returns:
            masks: bool array of shape (height, width, num_objects).
            class_ids: int32 array of shape (num_objects,), negative for groups.

        Raises:
            InputError: if an object is faulty, the image cannot be opened, or there are too many objects for its size.
        """
        info = self.image_info[image_id]
        height, width = image_size(info["path"])
        check_mask_memory(f"{info['annotation'].source}: {info['id']}", len(info["objects"]), height, width)
        masks = np.zeros((height, width, len(info["objects"])), bool)
        class_ids = np.zeros(len(info["objects"]), np.int32)
        for i, (thing, class_id) in enumerate(info["objects"]):
            try:
                masks[..., i] = thing.draw(height, width)
            except ShapeFault as error:
                raise InputError(f"{info['annotation'].source}: {info['id']}: {thing.name}: {error}") from None
            class_ids[i] = -class_id if thing.is_crowd else class_id
        return masks, class_ids


def check_outlines(
    records: Sequence[ImageRecord],
    annotations: Annotations,
    *,
    names: Iterable[str] | None = None,
    classes: Mapping[str, str] | Sequence[str] | None = None,
) -> AnnotationCheck:
    """Look at every image and outline and list all faults in one go, so that training can go on with the rest.

    Faults are what the readers noted (unknown shapes and categories, ids that are used twice, coordinates that are no
    finite numbers ...), annotations of images that are not there or lie elsewhere, and of each image: it is unreadable,
    not annotated, annotated twice, of another size than its annotation says, without anything but groups, or one of its
    objects lies outside, covers no pixel, or repeats another. Objects that `names` or `classes` leave out are not
    looked at. An image that is annotated without an object, or with none that counts, is good: it shows what is no
    object. Only where the file has objects that belong to no image, one that has none at all is a fault.

    Args:
        records: the images of a centre.
        annotations: what `read_annotations` returned.
        names: as in `OutlineDataset`.
        classes: as in `OutlineDataset`.

    Returns:
        The faults, of which an image may have several, and the records without one. Faults of the annotation files
        and of images that are not there come first, with the name of the file or of the image.

    Raises:
        InputError: if no object has one of the labels asked for, since then nothing could be right.
    """
    choice = _ClassChoice(names, classes)
    choice.require_any(annotations)
    images, unmatched = match_images(records, annotations)
    check = AnnotationCheck([(_one_line(name), _one_line(why)) for name, why in (*annotations.faults, *unmatched)])
    for record in records:
        found = images[record.key]
        reasons = _find_faults(record, found, annotations, choice)
        check.faults.extend((record.key, _one_line(reason)) for reason in reasons)
        if not reasons:
            check.accept(record, sum(choice.class_id(thing) > 0 for thing in found[0].objects))
    return check


def match_images(
    records: Sequence[ImageRecord], annotations: Annotations
) -> tuple[dict[str, list[OutlinedImage]], list[tuple[str, str]]]:
    """Find the annotations of each image.

    The name in the file may be a path from the annotation file's folder, the image's key, or the end of one key alone
    (`001.png` for `images/001.png`). Names that lead elsewhere (absolute, with `..`, or of the web) are refused unless
    they lead to one of the records. No file is looked for or opened by a name from an annotation file. A name that fits
    no image as it is spelled is tried with its accents composed: macOS takes them apart in file names.

    Returns:
        For the key of every record its annotations, of which there should be one; and (name, reason) of each
        annotation that belongs to no record.
    """
    as_spelled, composed = _Names(records, str), _Names(records, _compose)
    images: dict[str, list[OutlinedImage]] = {record.key: [] for record in records}
    unmatched = []
    for image in annotations.images:
        candidates = as_spelled.find(image) or composed.find(image)
        if len(candidates) == 1:
            images[candidates[0].key].append(image)
            continue
        if candidates:
            reason = f"could be {' or '.join(candidate.key for candidate in candidates[:3])}; write the folder too"
        elif _leads_out(image.file_name.replace("\\", "/")):
            reason = "leads out of the folder of images; write the name relative to it"
        else:
            reason = "is none of the images of the centre"
        unmatched.append((image.file_name, f"{image.source.name}: {reason}"))
    return images, unmatched


class _Names:
    """The names by which annotation files may call images.

    Args:
        records: the images.
        spell: applied to all names before they are compared.
    """

    def __init__(self, records: Sequence[ImageRecord], spell: Callable[[str], str]):
        self._spell = spell
        self._by_path: dict[str, list[ImageRecord]] = {}
        self._by_end: dict[str, list[ImageRecord]] = {}
        for record in records:
            self._by_path.setdefault(spell(os.path.abspath(record.path)), []).append(record)
            parts = spell(record.key).split("/")
            for start in range(len(parts)):
                self._by_end.setdefault("/".join(parts[start:]), []).append(record)

    def find(self, image: OutlinedImage) -> list[ImageRecord]:
        """The one record that is meant, those that could be, or none."""
        name = image.file_name.replace("\\", "/")
        # Joining with an absolute name gives that name.
        found = self._by_path.get(self._spell(os.path.abspath(image.source.parent / name)), [])
        if len(found) == 1 or _leads_out(name):
            return found
        candidates = self._by_end.get(os.path.normpath(self._spell(name)).replace("\\", "/"), [])
        exact = [candidate for candidate in candidates if self._spell(candidate.key) == self._spell(name)]
        return exact or candidates


def _leads_out(name: str) -> bool:
    return name.startswith("/") or bool(_ROOTED.match(name)) or ".." in name.split("/")


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", text)


class _ClassChoice:
    """Which objects count, and as which class."""

    def __init__(
        self,
        names: Iterable[str] | None,
        classes: Mapping[str, str] | Sequence[str] | None,
        class_name: str = "cell",
    ):
        if isinstance(names, str) or isinstance(classes, str):
            raise InputError("names and classes must be several labels, not one text; write ['label']")
        self._names = None if names is None else frozenset(names)
        if classes is not None and not isinstance(classes, Mapping):
            classes = {label: label for label in classes}
        self._classes = classes
        self.class_names = [class_name] if classes is None else list(dict.fromkeys(classes.values()))

    def class_id(self, thing: OutlinedObject) -> int:
        """Class of an object, from 1, or 0 if it does not count. One of an unknown label counts, as a fault."""
        if thing.label is None or (self._names is not None and thing.label not in self._names):
            return int(thing.label is None)
        if self._classes is None:
            return 1
        name = self._classes.get(thing.label)
        return 0 if name is None else self.class_names.index(name) + 1

    def require_any(self, annotations: Annotations) -> None:
        """Raise InputError if there are labels, but none that counts."""
        labels = annotations.labels
        if labels and not any(self.class_id(OutlinedObject("", label)) for label in labels):
            wanted = sorted(self._names if self._names is not None else self._classes or ())
            known = ", ".join(repr(label) for label in list(labels)[:20])
            where = annotations.sources[0] if len(annotations.sources) == 1 else annotations.sources[0].parent
            raise InputError(f"{where}: no object is named {' or '.join(wanted) or 'so'}; the names are {known}")


def _find_faults(
    record: ImageRecord, found: Sequence[OutlinedImage], annotations: Annotations, choice: _ClassChoice
) -> list[str]:
    """Return every reason why an image cannot be trained on."""
    reasons = []
    height = width = None
    try:
        height, width = read_image(record.path).shape[:2]
    except InputError as error:
        reasons.append(str(error))
    if not found:
        where = annotations.sources[0].name if len(annotations.sources) == 1 else f"the {annotations.kind} files"
        return [*reasons, f"not annotated in {where}"]
    if len(found) > 1:
        where = " and ".join(dict.fromkeys(image.source.name for image in found))
        return [*reasons, f"annotated {len(found)} times in {where}"]
    image = found[0]
    faults = list(image.faults)
    is_sized = height is not None and (image.height or height, image.width or width) == (height, width)
    if height is not None and not is_sized:
        stated = f"{image.width or '?'}x{image.height or '?'}"
        faults.append(f"made for an image of {stated} px, this one has {width}x{height} px")
    chosen = [thing for thing in image.objects if choice.class_id(thing)]
    if not image.objects and annotations.num_lost_objects:
        faults.append(f"no object on it; one of the {annotations.num_lost_objects} that belong to no image may be its")
    elif chosen and all(thing.is_crowd for thing in chosen):
        faults.append("nothing but groups (iscrowd) on it")
    if is_sized:
        try:
            check_mask_memory(record.key, len(chosen), height, width)
        except InputError as error:
            return [*reasons, str(error)]
    drawn: dict[bytes, str] = {}
    for thing in chosen:
        reason = thing.fault
        # In an image of another size every object would be wrong; that is said once.
        if not reason and is_sized:
            try:
                # Masks of many objects would fill the memory; what tells them apart does not.
                mask = hashlib.sha256(np.packbits(thing.draw(height, width))).digest()
                reason = f"repeats {drawn[mask]}" if mask in drawn else ""
                drawn.setdefault(mask, thing.name)
            except ShapeFault as error:
                reason = str(error)
        if reason:
            faults.append(f"{thing.name}{f' ({shorten(thing.label)})' if thing.label else ''}: {reason}")
    return [*reasons, *(f"{image.source.name}: {fault}" for fault in faults)]


def _one_line(text: str) -> str:
    """Names and ids of a file may hold anything."""
    text = escape_unprintable(" ".join(text.split()))
    return text if len(text) <= 300 else text[:297] + "..."


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
