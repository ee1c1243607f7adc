"""`aecfe centres check`: look at every image of a centre before hours are spent on it."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from experiments.centres.centre import Centre, Place, find_centres, load_centre
from experiments.centres.class_maps import LAYOUT_MAPS, fold_label, labels_of
from experiments.centres.duplicates import content_hashes, duplicate_sets
from experiments.centres.masks import AnnotationChoice, LabelImages, find_masks
from experiments.centres.reannotations import Reannotations
from mrcnn.data.images import image_size, read_image
from mrcnn.data.records import ImageRecord
from mrcnn.files.atomic import write_json
from mrcnn.files.errors import InputError
from mrcnn.files.output_paths import check_output_file
from mrcnn.files.progress import Progress
from mrcnn.files.read_ahead import read_ahead

_MAX_NAMED = 10
_MAX_COPIES = 4
_INDENT = "  "
_WIDTH = 22  # of the names of the lines


def check_text(result: Mapping[str, Any]) -> str:
    """Lay out what a check found for a terminal.

    Args:
        result: as from `experiments.centres.check.check_centres`, with "places".

    Returns:
        Lines, with a part for each centre and one for the duplicates of all of them.
    """
    lines = []
    for place in result["places"]:
        if place["centres"] and (len(place["centres"]) > 1 or place["skipped"]):
            skipped = f"; without an image: {', '.join(place['skipped'])}" if place["skipped"] else ""
            names = ", ".join(place["centres"])
            lines += [f"{place['root']}: {_count(len(place['centres']), 'centre')} in it: {names}{skipped}", ""]
    for centre in result["centres"]:
        lines += [*_centre_lines(centre, result), ""]
    return "\n".join([*lines, *_duplicate_lines(result["duplicates"])])


def _centre_lines(centre: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    typed = sum(centre["classes"].values())
    lines = [f"{centre['name']} ({centre['root']})"]
    lines += _line("layout", centre["layout"] + (f", which begins in {centre['inner']}" if centre["inner"] else ""))
    if centre["layout_hint"]:
        lines += _line("", f"most names are those of {centre['layout_hint']}: try --layout {centre['layout_hint']}")
    lines += _line("images", f"{centre['images']:,}, of which {typed:,} have a cell type of {result['scheme']}")
    lines += ["", *_label_table(centre["labels"]), ""]
    empty = [cell_type for cell_type, number in centre["classes"].items() if not number]
    lines += _line("types without image", ", ".join(empty) or "none")
    lines += _line("labels of no type", _count(centre["without_type"], "image"))
    lines += _line("no label", _count(centre["unlabelled"], "image"))
    unreadable = [f"{fault['image']}: {fault['reason']}" for fault in centre["unreadable"]]
    how = "decoded" if result["decoded"] else "opened, not decoded"
    lines += _line("cannot be read", _count(len(unreadable), "image") + f" (all were {how})", unreadable)
    if centre["one_colour"]:
        lines += _line("of one colour", _count(len(centre["one_colour"]), "image"), centre["one_colour"])
    lines += _line("width x height", _sizes(centre))
    copies = f"{_count(centre['duplicates'], 'image')} with a copy" + (", listed below" if centre["duplicates"] else "")
    lines += _line("duplicates", copies)
    lines += _line("masks", centre["masks"] or "none")
    lines += _line("boxes", centre["boxes"] or "none")
    lines += _line("files, no images", f"{len(centre['other_files']):,}", centre["other_files"])
    if centre["annotations_dat"]:
        lines += _annotation_lines(centre["annotations_dat"])
    return lines


def _line(name: str, text: str, items: Sequence[str] = ()) -> list[str]:
    return _list(f"{name:{_WIDTH}}{text}", items)


def _list(title: str, items: Sequence[str]) -> list[str]:
    """A line, and the first ten items below it."""
    lines = [f"{_INDENT}{title}", *(f"{_INDENT * 2}{item}" for item in items[:_MAX_NAMED])]
    more = len(items) - _MAX_NAMED
    return [*lines, f"{_INDENT * 2}and {more:,} more"] if more > 0 else lines


def _label_table(labels: Sequence[Mapping[str, Any]]) -> list[str]:
    if not labels:
        return [f"{_INDENT}(no image has a label)"]
    rows = [("label", "cell type", "images")]
    rows += [(row["label"], row["cell_type"] or "-", f"{row['images']:,}") for row in labels]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [f"{_INDENT}{label:{widths[0]}}  {kind:{widths[1]}}  {number:>{widths[2]}}" for label, kind, number in rows]


def _sizes(centre: Mapping[str, Any]) -> str:
    sizes = centre["sizes"]
    if not sizes:
        return "none is known"
    named = {which: f"{size['width']} x {size['height']}" for which, size in sizes.items()}
    if centre["num_sizes"] == 1:
        return f"{named['commonest']}, all of them"
    texts = [f"{which} {named[which]} ({sizes[which]['images']:,})" for which in ("smallest", "commonest", "largest")]
    return f"{', '.join(texts)}; {centre['num_sizes']:,} sizes"


def _annotation_lines(found: Mapping[str, Any]) -> list[str]:
    differences = [f"{one['image']}: {one['annotation']}" for one in found["differences"]]
    text = f"{_count(len(differences), 'image')} of another annotation than folder (the folder counts)"
    lines = _line("annotations.dat", text, differences)
    again = f"{found['annotated_again']:,}, of which {len(found['as_another_type']):,} as another type, "
    lines += _line("annotated again", f"{again}{len(found['not_assigned']):,} not to be assigned")
    for name, key in (
        ("not in the file", "images_without_entry"),
        ("only in the file", "entries_without_image"),
        ("lines not understood", "lines_not_understood"),
    ):
        if found[key]:
            lines += _line(name, f"{len(found[key]):,}", [str(item) for item in found[key]])
    return lines


def _duplicate_lines(sets: Sequence[Mapping[str, Any]]) -> list[str]:
    num_images = sum(len(one["images"]) for one in sets)
    if not sets:
        return ["Duplicates: no two files have the same content."]
    lines = [f"Duplicates: {_count(len(sets), 'set')} of files of the same content, {num_images:,} images."]
    for title, chosen in (
        ("different labels, of which one must be wrong", [one for one in sets if one["different_labels"]]),
        ("in different centres, which are then not independent", [one for one in sets if one["different_centres"]]),
        ("same label and centre", [o for o in sets if not o["different_labels"] and not o["different_centres"]]),
    ):
        if chosen:
            lines += _list(f"{title}: {len(chosen):,}", [_set_text(one) for one in chosen])
    return lines


def _set_text(one: Mapping[str, Any]) -> str:
    named = [
        f"{image['centre']}/{image['image']} ({image['label'] or 'no label'})" for image in one["images"][:_MAX_COPIES]
    ]
    more = len(one["images"]) - len(named)
    return " = ".join(named) + (f" and {more:,} more" if more else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


FORMAT = "aecfe-centre-check"
_AHEAD = 32
_DATA_SETS = tuple(layout for layout in LAYOUT_MAPS if layout != "generic")


@dataclass(frozen=True)
class ImageChecks:
    """What the files of a centre's images hold.

    Attributes:
        unreadable: why each image that cannot be read cannot, by key.
        plain: keys of images that are of one colour all over; None if none was decoded.
        sizes: images of each (width, height).
    """

    unreadable: dict[str, str]
    plain: list[str] | None
    sizes: Counter[tuple[int, int]]


def centres_check(arguments: argparse.Namespace) -> None:
    """Check the centres that the arguments name, print what was found, and write it as JSON if asked to.

    Raises:
        InputError: if a folder is missing, empty or faulty, or two centres have the same name.
    """
    if arguments.json:
        check_output_file(arguments.json, "--json")
    places = [find_centres(root) for root in arguments.roots]
    centres = load_centres(places, arguments.layout, arguments.scheme)
    result = check_centres(centres, decode=not arguments.no_decode)
    result["places"] = [
        {
            "root": str(place.root),
            "centres": [centre.resolve().name for centre in place.centres],
            "skipped": list(place.skipped),
        }
        for place in places
    ]
    print(check_text(result))
    # After the printing, so that what cannot be written is not lost.
    if arguments.json:
        write_json(arguments.json, {"format": FORMAT, **result})


def load_centres(places: Sequence[Place], layout: str = "auto", scheme: str = "thesis13") -> list[Centre]:
    """List the images of each centre.

    Args:
        places: where they are.
        layout: as in `experiments.centres.centre.load_centre`, the same for all.
        scheme: likewise.

    Raises:
        InputError: if a centre is faulty, or two have the same name.
    """
    centres: dict[str, Centre] = {}
    for folder in (folder for place in places for folder in place.centres):
        name = folder.resolve().name
        if name in centres:
            raise InputError(f"{folder}: two centres are called {name}; rename a folder, or check one after the other")
        centres[name] = load_centre(name, folder, layout, scheme)
    return list(centres.values())


def check_centres(centres: Sequence[Centre], *, decode: bool = True) -> dict[str, Any]:
    """Read every image of some centres.

    Args:
        centres: with names of their own.
        decode: decode the images; else only their headers are read.

    Returns:
        What JSON can hold: "scheme", "decoded", "centres" (a dict for each) and "duplicates" (over all of them).
    """
    found, hashes = [], {}
    for centre in centres:
        images = look_at_images(centre, decode)
        own = content_hashes(centre.records, f"hash {centre.name}")
        hashes.update({(centre.name, key): digest for key, digest in own.items()})
        found.append({**_describe(centre), **_describe_images(images)})
    sets = duplicate_sets(hashes)
    copies = Counter(name for members in sets for name, _ in members)
    for one in found:
        one["duplicates"] = copies[one["name"]]
    return {
        "scheme": centres[0].class_map.name if centres else "",
        "decoded": decode,
        "centres": found,
        "duplicates": _describe_duplicates(centres, sets),
    }


def look_at_images(centre: Centre, decode: bool = True) -> ImageChecks:
    """Read the images of a centre, in threads.

    Args:
        centre: the centre.
        decode: decode them; else only their headers are read.
    """
    checks = ImageChecks({}, [] if decode else None, Counter())
    name = f"{'decode' if decode else 'open'} {centre.name}"
    with (
        Progress(name, "images", len(centre.records)) as bar,
        closing(read_ahead(partial(_look, decode=decode), centre.records, num_ahead=_AHEAD)) as looks,
    ):
        for record, (size, is_plain, fault) in zip(centre.records, looks, strict=True):
            if fault:
                checks.unreadable[record.key] = fault
            else:
                checks.sizes[size] += 1
                if is_plain:
                    checks.plain.append(record.key)
            bar.advance(1)
    return checks


def _look(record: ImageRecord, decode: bool) -> tuple[tuple[int, int], bool, str]:
    """Return (width, height), whether the image is of one colour, and why it cannot be read, or ""."""
    try:
        if not decode:
            height, width = image_size(record.path)
            return (width, height), False, ""
        image = read_image(record.path)
    except InputError as error:
        return (0, 0), False, str(error).removeprefix(f"{record.path}: ")
    return (image.shape[1], image.shape[0]), bool((image == image[:1, :1]).all()), ""


def _describe(centre: Centre) -> dict[str, Any]:
    """What listing the images has told."""
    labels = Counter((record.label, record.cell_type) for record in centre.records if record.label)
    classes = centre.class_map.classes
    order = {cell_type: place for place, cell_type in enumerate((*classes, ""))}
    return {
        "name": centre.name,
        "root": str(centre.root),
        "inner": centre.inner,
        "layout": centre.layout,
        "layout_hint": _layout_hint(centre),
        "images": len(centre.records),
        "labels": [
            {"label": label, "cell_type": cell_type, "images": number}
            for (label, cell_type), number in sorted(labels.items(), key=lambda item: (order[item[0][1]], item[0]))
        ],
        "classes": centre.counts,
        "without_type": sum(centre.unmapped.values()),
        "unlabelled": centre.num_unlabelled,
        "masks": _describe_masks(centre),
        "boxes": str(centre.boxes) if centre.boxes else "",
        "other_files": [path.relative_to(centre.root).as_posix() for path in centre.other_files],
        "annotations_dat": _describe_reannotations(centre.reannotations) if centre.reannotations else None,
    }


def _describe_reannotations(found: Reannotations) -> dict[str, Any]:
    return {
        "path": str(found.path),
        "entries": found.num_entries,
        "differences": [
            {"image": key, "folder": folder, "annotation": annotation}
            for key, (folder, annotation) in found.differences.items()
        ],
        "annotated_again": len(found.repeated),
        "as_another_type": list(found.renamed),
        "not_assigned": list(found.unassigned),
        "images_without_entry": list(found.without_entry),
        "entries_without_image": list(found.without_image),
        "lines_not_understood": list(found.not_understood),
    }


def _describe_images(images: ImageChecks) -> dict[str, Any]:
    by_area = sorted(images.sizes, key=lambda size: (size[0] * size[1], size))
    commonest = min(by_area, key=lambda size: -images.sizes[size], default=None)
    chosen = {"smallest": by_area[0], "commonest": commonest, "largest": by_area[-1]} if by_area else {}
    return {
        "unreadable": [{"image": key, "reason": reason} for key, reason in images.unreadable.items()],
        "one_colour": images.plain,
        "num_sizes": len(images.sizes),
        "sizes": {
            which: {"width": size[0], "height": size[1], "images": images.sizes[size]} for which, size in chosen.items()
        },
    }


def _layout_hint(centre: Centre) -> str:
    """The data set whose names most of the labels are, if the folders were not taken for it."""
    names = {fold_label(record.label) for record in centre.records}
    if centre.layout != "folders" or not centre.unmapped:
        return ""
    shares = {layout: len(names & labels_of(layout)) / len(names) for layout in _DATA_SETS}
    best = max(shares, key=lambda layout: shares[layout])
    known = len(names & labels_of("generic")) / len(names)
    return best if shares[best] >= 0.5 and shares[best] > known else ""


def _describe_masks(centre: Centre) -> str:
    try:
        source = find_masks(centre.root, centre.records, AnnotationChoice())
    except InputError as error:
        return str(error)
    if source is None:
        # Inside what an archive wraps, masks are not looked for.
        return f"label images in {centre.masks}, if named with --annotations" if centre.masks else ""
    if isinstance(source, LabelImages):
        return f"label images in {source.folder}"
    return f"outlines ({source.annotations.kind}) in {', '.join(map(str, source.annotations.sources[:3]))}"


def _describe_duplicates(
    centres: Sequence[Centre], sets: Sequence[tuple[tuple[str, str], ...]]
) -> list[dict[str, Any]]:
    record_of = {(centre.name, record.key): record for centre in centres for record in centre.records}
    return [
        {
            "images": [
                {"centre": centre, "image": key, "label": record_of[centre, key].label} for centre, key in members
            ],
            "different_labels": _have_different_labels(members, record_of),
            "different_centres": len({centre for centre, _ in members}) > 1,
        }
        for members in sets
    ]


def _have_different_labels(
    members: Sequence[tuple[str, str]], record_of: Mapping[tuple[str, str], ImageRecord]
) -> bool:
    """Whether a centre calls the images by several names, or centres by names of several cell types."""
    names: dict[str, set[str]] = {}
    for centre, key in members:
        if record_of[centre, key].label:
            names.setdefault(centre, set()).add(fold_label(record_of[centre, key].label))
    types = {record_of[member].cell_type for member in members} - {""}
    return any(len(own) > 1 for own in names.values()) or len(types) > 1
