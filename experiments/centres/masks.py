"""Masks of a centre's images, for the detector to learn from: found, checked, made a Dataset.

They are a folder of label images, or outlines in COCO, VIA, labelme or GeoJSON files.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.centres.centre import Centre
from experiments.centres.tree import locate
from experiments.settings import CentreSettings
from mrcnn.annotations.faults import AnnotationCheck
from mrcnn.annotations.label_masks import MASK_SUFFIXES, CellMaskDataset, check_annotations, nuclei_folder
from mrcnn.annotations.outlines import (
    NUCLEUS_NAMES,
    PER_IMAGE,
    OutlineDataset,
    annotation_files,
    check_outlines,
    parse_annotations,
    read_annotations,
    read_each,
    recognise,
)
from mrcnn.annotations.shapes import Annotations
from mrcnn.data.dataset import Dataset
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file
from mrcnn.files.provenance import file_hash

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnotationChoice:
    """What the user says of a centre's masks."""

    path: str | Path | None = None  # as it is or from the centre's folder; None looks in that folder
    format: str = "auto"  # "auto", "masks" or one of `mrcnn.annotations.outlines.PARSERS`
    names: tuple[str, ...] = ()  # labels of the outlines that are cells; empty for all
    semantics: str = "cell"  # what the values of label images mean, "cell" or "instances"
    nucleus_names: tuple[str, ...] = NUCLEUS_NAMES  # labels of the outlines that are nuclei


def choice_of_settings(settings: CentreSettings, root: Path) -> AnnotationChoice:
    """What a run's settings say of the masks of the centre in `root`."""
    path = root / settings.annotations if settings.annotations else None
    names = tuple(settings.annotation_names)
    nucleus_names = tuple(settings.nucleus_names)
    return AnnotationChoice(path, settings.annotation_format, names, settings.mask_semantics, nucleus_names)


@dataclass(frozen=True)
class LabelImages:
    """Masks as label images, see `mrcnn.annotations.label_masks`; what it can do, `Outlines` can too."""

    folder: Path
    semantics: str

    def check(self, records: list[ImageRecord]) -> AnnotationCheck:
        return check_annotations(records, self.folder, semantics=self.semantics)

    def dataset(self, records: list[ImageRecord], source: str) -> Dataset:
        return CellMaskDataset(records, self.folder, semantics=self.semantics, source=source)

    def identity(self) -> dict[str, Any]:
        """What a training is known by; of the files their content, so that a copy of the masks is the same masks."""
        content = hashlib.sha256()
        for part, folder in (("", self.folder), ("nuclei/", nuclei_folder(self.folder))):
            masks = (path for path in folder.rglob("*") if path.suffix.lower() in MASK_SUFFIXES and path.is_file())
            for name, path in sorted((part + path.relative_to(folder).as_posix(), path) for path in masks):
                content.update(os.fsencode(name) + b"\0")
                content.update(bytes.fromhex(file_hash(path)))
        return {"format": "masks", "semantics": self.semantics, "sha256": content.hexdigest()}


@dataclass(frozen=True)
class Outlines:
    """Masks as outlines, see `mrcnn.annotations.outlines`."""

    annotations: Annotations
    names: tuple[str, ...]
    nucleus_names: tuple[str, ...]

    @property
    def _meaning(self) -> dict[str, Any]:
        return {"classes": dict.fromkeys(self.names, "cell") or None, "nucleus_names": self.nucleus_names}

    def check(self, records: list[ImageRecord]) -> AnnotationCheck:
        return check_outlines(records, self.annotations, **self._meaning)

    def dataset(self, records: list[ImageRecord], source: str) -> Dataset:
        return OutlineDataset(records, self.annotations, **self._meaning, source=source)

    def identity(self) -> dict[str, Any]:
        # Beside files for each image may lie what is no file, a fault that the check lists.
        content = file_hash(*(path for path in self.annotations.sources if path.is_file()))
        names = {"names": sorted(self.names), "nucleus_names": sorted(self.nucleus_names)}
        return {"format": self.annotations.kind, **names, "sha256": content}


@dataclass
class MaskedImages:
    """The usable images of a centre with masks, those without a cell among them.

    `faults` are (image_id, reason) of the others and of the annotation files; `num_cells` is by image_id.
    """

    centre: str
    source: LabelImages | Outlines
    records: list[ImageRecord]
    faults: list[tuple[str, str]]
    num_cells: dict[str, int]

    def dataset(self, image_ids: Iterable[str] | None = None) -> Dataset:
        """The images whose image_id is in `image_ids`, or all."""
        wanted = None if image_ids is None else set(image_ids)
        chosen = [r for r in self.records if wanted is None or r.image_id in wanted]
        return self.source.dataset(chosen, self.centre.replace(".", "_"))


def masked_images(
    centres: Mapping[str, Centre], choices: Mapping[str, AnnotationChoice], *, strict: bool = False
) -> list[MaskedImages]:
    """Check the masks of centres, of which `choices` says what the user knows; images with faults are left out.

    Raises:
        InputError: if a centre has no masks, no usable one, or no cell on any, or for a fault with `strict`.
    """
    found = []
    for name, centre in centres.items():
        source = find_masks(centre.root, centre.records, choices[name])
        if source is None:
            raise InputError(
                f"{centre.root}: centre {name} has neither a folder masks/ nor COCO, VIA, labelme or GeoJSON "
                "annotations for the detector to learn from"
            )
        found.append(check_masks(name, centre.records, source))
    num_faults = sum(len(images.faults) for images in found)
    for images in found:
        root, num_images = centres[images.centre].root, len(images.records)
        if not num_images:
            raise InputError(f"{root}: no usable mask ({len(images.faults)} faults, listed above)")
        if not any(images.num_cells.values()):
            more = f" ({len(images.faults)} faults, listed above)" if images.faults else ""
            raise InputError(f"{root}: no cell on any of the {num_images} usable images{more}; nothing to learn from")
    if strict and num_faults:
        raise InputError(f"{num_faults} faults in the annotations, listed above; mend them or leave out --strict")
    return found


def check_masks(name: str, records: list[ImageRecord], source: LabelImages | Outlines) -> MaskedImages:
    """Check the masks of one centre; faults are logged, one line each."""
    check = source.check(records)
    for image_id, reason in check.faults:
        log.warning("%s: %s: left out: %s", name, image_id, reason)
    num_empty = sum(count == 0 for count in check.num_objects.values())
    if num_empty:
        log.info("%s: %d of %d images are annotated as having no cell", name, num_empty, len(check.good))
    return MaskedImages(name, source, check.good, check.faults, check.num_objects)


def warn_of_crowded(images: Sequence[MaskedImages], limit: int) -> None:
    """Say of which images training would not use all cells, `limit` being its MAX_GT_INSTANCES."""
    for masked in images:
        crowded = {image_id: count for image_id, count in masked.num_cells.items() if count > limit}
        if crowded:
            most = max(crowded, key=crowded.__getitem__)
            log.warning(
                "%s: %d images have more cells than MAX_GT_INSTANCES %d, up to %d on %s; training takes the largest "
                "alone: raise it with --set settings.MAX_GT_INSTANCES=%d",
                *(masked.centre, len(crowded), limit, crowded[most], most, crowded[most]),
            )


def find_masks(root: Path, records: list[ImageRecord], choice: AnnotationChoice) -> LabelImages | Outlines | None:
    """Find the masks of a centre.

    Without a path, `masks/` is taken where it is; else the one COCO or VIA file in the centre's folder, in `images/`,
    in `annotations/` or beside the images; else the labelme files, or GeoJSON files, there.

    None is returned if nothing is there and nothing was asked for. What was asked for and is not there, or is something
    else, is refused, and so is a choice between several.
    """
    may_be_masks = choice.format in ("auto", "masks")
    path = root if choice.path is None else locate(choice.path, root)
    if path is None:
        raise InputError(f"{choice.path}: no such annotation file or folder, neither here nor in {root}")
    if choice.path is None and may_be_masks and (root / "masks").is_dir():
        source = LabelImages(root / "masks", choice.semantics)
    elif choice.path is None:
        folders = [root, root / "images", root / "annotations", *sorted({record.path.parent for record in records})]
        files = dict.fromkeys(path for folder in folders for path in annotation_files(folder))
        source = _choose(list(files), choice)
    elif path.is_file():
        source = Outlines(read_annotations(path, choice.format), choice.names, choice.nucleus_names)
    else:
        source = _choose(annotation_files(path, "**/*"), choice)
        if source is None and may_be_masks and any(file.suffix.lower() in MASK_SUFFIXES for file in path.rglob("*")):
            source = LabelImages(path, choice.semantics)
    if source is None and (choice.path is not None or choice.format != "auto"):
        wanted = "annotations of a known format" if choice.format == "auto" else f"{choice.format} annotations"
        raise InputError(f"{path}: no {wanted} there; say where they are")
    if isinstance(source, LabelImages) and choice.names:
        raise InputError(f"{source.folder}: label masks have no names to choose {', '.join(choice.names)} from")
    return source


def _choose(files: list[Path], choice: AnnotationChoice) -> Outlines | None:
    """Of JSON files take the one of COCO or VIA, or all of labelme or GeoJSON."""
    single: dict[Path, Any] = {}
    per_image: dict[str, list[Path]] = {}
    damaged = {}
    for path in files:
        try:
            value = read_json_file(path)
        except InputError as error:
            damaged[path] = error
            continue
        kind = recognise(value)
        if kind is None or choice.format not in ("auto", kind):
            continue
        if kind in PER_IMAGE:
            per_image.setdefault(kind, []).append(path)
        else:
            single[path] = value
    if len(single) + len(per_image) > 1:
        folders = [f"the {kind} files in {paths[0].parent}" for kind, paths in per_image.items()]
        named = ", ".join([*map(str, list(single)[:5]), *folders])
        raise InputError(f"more than one set of annotations: {named}; choose one with --annotations")
    for kind, paths in per_image.items():
        # What cannot be read among them belongs to some image, and is listed as its fault.
        return Outlines(read_each(sorted([*paths, *damaged]), kind), choice.names, choice.nucleus_names)
    for error in damaged.values():
        log.warning("%s", error)
    for path, value in single.items():
        return Outlines(parse_annotations(value, path), choice.names, choice.nucleus_names)
    return None
