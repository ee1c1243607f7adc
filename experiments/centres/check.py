"""`aecfe centres check`: look at every image of a centre before hours are spent on it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from experiments.centres.centre import Centre
from experiments.centres.class_maps import LAYOUT_MAPS, fold_label, labels_of
from experiments.centres.duplicates import content_hashes, read_each
from experiments.centres.masks import AnnotationChoice, LabelImages, find_masks
from mrcnn.data.images import image_size, read_image
from mrcnn.files.errors import InputError

FORMAT = "aecfe-centre-check"
_MAX_NAMED, _MAX_COPIES = 10, 4


def check_centres(centres: Sequence[Centre], *, decode: bool = True) -> dict[str, Any]:
    """Read every image of some centres, which have names of their own; without `decode` only the images' headers.

    Returns:
        What JSON can hold: "scheme", "decoded", "centres" (a dict for each) and "duplicates" (over all of them).
    """
    found, rows = [], []
    for centre in centres:
        found.append({**_describe(centre), **look_at_images(centre, decode)})
        hashes = content_hashes(centre.records, f"hash {centre.name}")
        rows += [(centre.name, r.image_id, r.label, r.cell_type, hashes.get(r.image_id)) for r in centre.records]
    images = pd.DataFrame(rows, columns=["centre", "image", "label", "cell_type", "hash"]).dropna()
    copies = images[images["hash"].duplicated(keep=False)].sort_values(["centre", "image"])
    return {
        "scheme": centres[0].class_map.name if centres else "",
        "decoded": decode,
        "centres": [{**one, "duplicates": int(np.sum(copies["centre"] == one["name"]))} for one in found],
        "duplicates": [_describe_copies(own) for _, own in copies.groupby("hash", sort=False)],
    }


def look_at_images(centre: Centre, decode: bool = True) -> dict[str, Any]:
    """Read the images of a centre, in threads; without `decode` only their headers, and "one_colour" is None."""
    unreadable, plain, sizes = [], [], Counter()
    look, bar = (_look, f"decode {centre.name}") if decode else (image_size, f"open {centre.name}")
    for record, found in read_each(centre.records, look, bar, InputError):
        if isinstance(found, InputError):
            unreadable.append({"image": record.image_id, "reason": str(found).removeprefix(f"{record.path}: ")})
        else:
            sizes[found[1::-1]] += 1
            plain += [record.image_id] if decode and found[2] else []
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    commonest = min(by_area, key=lambda size: -sizes[size], default=None)
    chosen = {"smallest": by_area[0], "commonest": commonest, "largest": by_area[-1]} if by_area else {}
    return {
        "unreadable": unreadable,
        "one_colour": plain if decode else None,
        "num_sizes": len(sizes),
        "sizes": {which: {"width": w, "height": h, "images": sizes[w, h]} for which, (w, h) in chosen.items()},
    }


def _look(path: Path) -> tuple[int, int, bool]:
    """Height and width of an image, and whether it is of one colour."""
    image = read_image(path)
    return *image.shape[:2], bool((image == image[:1, :1]).all())


def _describe(centre: Centre) -> dict[str, Any]:
    """What listing the images has told."""
    labels = Counter((record.label, record.cell_type) for record in centre.records if record.label)
    order = [*centre.class_map.classes, ""]
    return {
        "name": centre.name,
        "root": str(centre.root),
        "inner": centre.inner,
        "layout": centre.layout,
        "layout_hint": _layout_hint(centre),
        "images": len(centre.records),
        "labels": [
            {"label": label, "cell_type": cell_type, "images": number}
            for (label, cell_type), number in sorted(labels.items(), key=lambda row: (order.index(row[0][1]), row[0]))
        ],
        "classes": centre.counts,
        "without_type": sum(centre.unmapped.values()),
        "unlabelled": sum(not record.label for record in centre.records),
        "masks": _describe_masks(centre),
        "boxes": str(centre.boxes) if centre.boxes else "",
        "other_files": list(centre.other_files),
    }


def _layout_hint(centre: Centre) -> str:
    """The data set whose names most of the labels are, if the folders were not taken for it."""
    if centre.layout != "folders" or not centre.unmapped:
        return ""
    names = {fold_label(record.label) for record in centre.records}
    known = {layout: len(names & labels_of(layout)) / len(names) for layout in LAYOUT_MAPS}
    generic = known.pop("generic")
    best = max(known, key=known.__getitem__)
    return best if known[best] >= 0.5 and known[best] > generic else ""


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


def _describe_copies(copies: pd.DataFrame) -> dict[str, Any]:
    """Files of the same content: whether a centre calls them by several names, or centres by several cell types."""
    labelled = copies[copies["label"] != ""]
    names = labelled["label"].map(fold_label).groupby(labelled["centre"]).nunique()
    return {
        "images": copies[["centre", "image", "label"]].to_dict("records"),
        "different_labels": bool(np.any(names > 1)) or copies["cell_type"].replace("", None).nunique() > 1,
        "different_centres": copies["centre"].nunique() > 1,
    }


def check_text(result: Mapping[str, Any]) -> str:
    """Lay out what `check_centres` found, with "places", for a terminal."""
    lines = []
    for place in result["places"]:
        if len(place["centres"]) > 1 or place["skipped"]:
            skipped = f"; without an image: {', '.join(place['skipped'])}" if place["skipped"] else ""
            lines += [f"{place['root']}: centres in it: {', '.join(place['centres'])}{skipped}", ""]
    for centre in result["centres"]:
        lines += [f"{centre['name']} ({centre['root']})", *_centre_lines(centre, result), ""]
    sets = result["duplicates"]
    num_copies = sum(len(one["images"]) for one in sets)
    lines.append(f"Duplicates: {len(sets):,} sets of files of the same content, {num_copies:,} images")
    for title, chosen in (
        ("different labels, of which one must be wrong", [one for one in sets if one["different_labels"]]),
        ("in different centres, which are then not independent", [one for one in sets if one["different_centres"]]),
        ("same label and centre", [o for o in sets if not o["different_labels"] and not o["different_centres"]]),
    ):
        lines += _lines(f"{title}: {len(chosen):,}", "", [_copies_text(one["images"]) for one in chosen])
    return "\n".join(lines)


def _centre_lines(centre: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    inner, hint, other_files = centre["inner"], centre["layout_hint"], centre["other_files"]
    typed, plain = sum(centre["classes"].values()), centre["one_colour"] or []
    how = "decoded" if result["decoded"] else "opened, not decoded"
    unreadable = [f"{fault['image']}: {fault['reason']}" for fault in centre["unreadable"]]
    empty = [cell_type for cell_type, number in centre["classes"].items() if not number]
    sizes = [f"{which} {s['width']} x {s['height']} ({s['images']:,})" for which, s in centre["sizes"].items()]
    labels = [(row["label"], row["cell_type"] or "-", row["images"]) for row in centre["labels"]]
    table = tabulate(labels, ("label", "cell type", "images"), "plain", intfmt=",", disable_numparse=[0, 1])
    return [
        *_lines("layout", centre["layout"] + (f", which begins in {inner}" if inner else "")),
        *(_lines("", f"most names are those of {hint}: try --layout {hint}") if hint else []),
        *_lines("images", f"{centre['images']:,}, of which {typed:,} have a cell type of {result['scheme']}"),
        *("  " + line for line in ("", *table.splitlines(), "")),
        *_lines("types without image", ", ".join(empty) or "none"),
        *_lines("labels of no type", f"{centre['without_type']:,}"),
        *_lines("no label", f"{centre['unlabelled']:,}"),
        *_lines("cannot be read", f"{len(unreadable):,} (all were {how})", unreadable),
        *_lines("of one colour", f"{len(plain):,}", plain),
        *_lines("width x height", f"{', '.join(sizes) or 'none is known'}; {centre['num_sizes']:,} sizes"),
        *_lines("with a copy", f"{centre['duplicates']:,}"),
        *_lines("masks", centre["masks"] or "none"),
        *_lines("boxes", centre["boxes"] or "none"),
        *_lines("files, no images", f"{len(other_files):,}", other_files),
    ]


def _lines(name: str, text: str, items: Sequence[str] = ()) -> list[str]:
    """A line, and the first ten items below it."""
    more = [f"and {len(items) - _MAX_NAMED:,} more"] if len(items) > _MAX_NAMED else []
    return [f"  {name:{22 if text else 0}}{text}", *(f"    {item}" for item in [*items[:_MAX_NAMED], *more])]


def _copies_text(images: Sequence[Mapping[str, str]]) -> str:
    named = [f"{one['centre']}/{one['image']} ({one['label'] or 'no label'})" for one in images[:_MAX_COPIES]]
    more = len(images) - len(named)
    return " = ".join(named) + (f" and {more:,} more" if more else "")
