"""What `aecfe centres check` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

_MAX_NAMED = 10
_MAX_COPIES = 4
_INDENT = "  "
_WIDTH = 22  # of the names of the lines


def check_text(result: Mapping[str, Any]) -> str:
    """Lay out what a check found for a terminal.

    Args:
        result: as from `experiments.centre_check.check_centres`, with "places".

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
