"""Sections of a report that show pictures: detections, misses, augmentation, reconstructions."""

from collections import Counter
from collections.abc import Mapping

from experiments import report_html as h
from experiments.photos import (
    OVERLAY_SIDE,
    Picture,
    augmented_samples,
    crops,
    doubtful_cells,
    missed_images,
    overlays,
    reconstruction_strips,
    stack,
)
from experiments.report_numbers import autoencoder_curves
from experiments.report_run import AUTOENCODER_NAMES, CentreSummary, Run
from mrcnn.feature_store import UNREADABLE, is_unreadable
from mrcnn.visualize import sheet


def detections_section(run: Run) -> h.Html:
    """Overlays and crops of each centre, and what was missed."""
    content: list[h.Html] = []
    for centre in run.centres:
        content.append(h.tag("h3", centre))
        if centre not in run.stores:
            content.append(h.not_run("The extraction of features", f"features/{centre}.h5"))
            continue
        content += _centre_pictures(run, centre)
    if run.summaries:
        content.append(h.tag("h3", "What was missed"))
        content += _missed(run)
    return h.section("detections", "What the detector sees", *content)


def augmentation_section(run: Run) -> h.Html:
    """Training images of the detector beside augmented versions of them."""
    title = "How the training images are varied"
    drawn = augmented_samples(run)
    if drawn is None:
        text = "Augmentation is not shown: no detector was trained, it uses none, or its images are gone."
        return h.section("augmentation", title, h.paragraph(text, kind="missing"))
    pixels, config = drawn
    run.save_figure("augmentation", h.encode_image(pixels, photo=False))
    caption = (
        "Left: training images. Right of each: versions as the training makes them at random (augmentation "
        f"“{config.AUGMENTATION}”, applied to {100 * config.AUGMENTATION_SHARE:.0f} % of the samples, so "
        "that some stay as they are). Outlines are the masks, which follow the pixels."
    )
    return h.section(
        "augmentation",
        title,
        h.figure(h.encode_image(pixels), "Augmented training images with outlines", caption),
    )


def autoencoder_section(run: Run) -> h.Html:
    """Training curves of the autoencoders; originals and reconstructions of each centre."""
    content = [autoencoder_curves(run)]
    if run.autoencoders and run.stores:
        content.append(
            h.paragraph(
                "Originals, and what the autoencoder draws of each cell from its latent alone, a short "
                "list of numbers. What the drawing keeps, the latent knows; fine detail is not expected."
            )
        )
        for centre in run.stores:
            content.append(h.tag("h3", centre))
            strips, faults = reconstruction_strips(run, centre)
            content += [
                h.paragraph(f"{AUTOENCODER_NAMES[name]}: {fault}", kind="missing") for name, fault in faults.items()
            ]
            if strips:
                saved = h.encode_image(stack(list(strips.values())), photo=False)
                run.save_figure(f"reconstructions_{centre}", saved)
                rows = [
                    (
                        AUTOENCODER_NAMES.get(n, n),
                        h.encode_image(pixels),
                        f"{centre}: cells, {AUTOENCODER_NAMES.get(n, n)}",
                    )
                    for n, pixels in strips.items()
                ]
                content.append(h.strips(rows))
            elif not faults:
                content.append(h.paragraph("No cell was found in this centre.", kind="missing"))
    else:
        content.append(h.not_run("The training of an autoencoder to its end", "autoencoder/run.json with “complete”"))
    return h.section("autoencoder", "What the autoencoder keeps of a cell", *content)


def _centre_pictures(run: Run, centre: str) -> list[h.Html]:
    """Overlays and crops of one centre."""
    content: list[h.Html] = []
    drawn, lost = overlays(run, centre)
    if drawn:
        _save_sheet(run, f"detections_{centre}", drawn, 4, 320)
        content.append(_grid(drawn, 4, f"{centre}: image with detections", max_side=OVERLAY_SIDE))
    elif not run.summaries[centre].counts["cells"]:
        content.append(h.paragraph("No cell was found in this centre.", kind="missing"))
    if lost:
        text = f"{lost} of the images chosen here could not be opened in the centre's folder any more."
        content.append(h.paragraph(text, kind="missing"))
    shown = crops(run, centre)
    if shown:
        _save_sheet(run, f"crops_{centre}", shown, 8, 128)
        content.append(
            h.paragraph(
                f"{len(shown)} cells chosen at random, as the autoencoder gets them, with their type and the "
                "detection score:",
                kind="note",
            )
        )
        content.append(_grid(shown, 8, f"{centre}: crop of a cell"))
    odd = doubtful_cells(run, centre)
    if odd:
        _save_sheet(run, f"doubtful_{centre}", odd, 8, 160)
        text = (
            f"The {len(odd)} detections least like the others of {centre}, the oddest first, by score, size, place and "
            "contrast: look here for red cells, platelets and boxes around several cells."
        )
        content.append(h.paragraph(text, kind="note"))
        content.append(_grid(odd, 8, f"{centre}: doubtful detection", with_key=True))
    return content


def _missed(run: Run) -> list[h.Html]:
    """Counts by reason and by type, thumbnails, and the names of unreadable files."""
    content = [h.beside(_reason_table(run.summaries), _missed_type_table(run.summaries))]
    for centre, summary in run.summaries.items():
        shown = missed_images(run, centre)
        if shown:
            count = summary.counts["missed"]
            content.append(h.tag("h4", f"{centre}: missed images ({len(shown)} of {count:,})"))
            _save_sheet(run, f"missed_{centre}", shown, 6, 160)
            content.append(_grid(shown, 6, f"{centre}: image without a detection", max_side=240, with_key=True))
        unshown = [m for m in summary.missed if not is_unreadable(m["reason"])] if not shown else []
        unreadable = [m for m in summary.missed if is_unreadable(m["reason"])]
        for name, entries in (("missed images, files not found", unshown), ("unreadable files", unreadable)):
            if entries:
                content.append(h.tag("h4", f"{centre}: {name} ({len(entries):,})"))
                content.append(_file_list(run, centre, entries))
    return content


def _reason_table(summaries: Mapping[str, CentreSummary]) -> h.Html:
    reasons = {c: Counter(_short_reason(m["reason"]) for m in s.missed) for c, s in summaries.items()}
    names = sorted({name for counter in reasons.values() for name in counter})
    rows = [h.row("images", [h.cell(f"{s.counts['images']:,}") for s in summaries.values()])]
    rows.append(h.row("with a cell", [h.cell(f"{s.counts['found']:,}") for s in summaries.values()]))
    rows += [h.row(name, [h.cell(f"{counter[name]:,}") for counter in reasons.values()]) for name in names]
    shares = [s.counts["found"] / s.counts["images"] if s.counts["images"] else 0.0 for s in summaries.values()]
    rows.append(h.row("share with a cell", [h.cell(h.percent(share)) for share in shares], kind="total"))
    return h.table([h.head_row("Images", summaries)], rows, "Every image of every centre, by what became of it.")


def _missed_type_table(summaries: Mapping[str, CentreSummary]) -> h.Html:
    """Missed of all readable images, by type."""
    missed, images = {}, {}
    for centre, summary in summaries.items():
        readable = [m for m in summary.missed if not is_unreadable(m["reason"])]
        missed[centre] = Counter(m["cell_type"] or m["label"] for m in readable)
        images[centre] = missed[centre] + Counter(summary.found_types)
    names = sorted({name for counter in images.values() for name in counter}, key=lambda name: (name == "", name))

    def show(centre: str, name: str) -> h.Html:
        if not images[centre][name]:
            return h.cell(h.DASH)
        return h.cell(f"{missed[centre][name]:,} of {images[centre][name]:,}", best=missed[centre][name] > 0)

    rows = [h.row(h.spaced(name) or "unlabelled", [show(c, name) for c in summaries]) for name in names]
    return h.table([h.head_row("Type", summaries)], rows, "Readable images on which no cell was found, by type.")


def _file_list(run: Run, centre: str, entries: list[dict[str, str]]) -> h.Html:
    """Keys and reasons, of the first entries where there are very many."""
    listed = []
    for entry in entries:
        # The key names the file already; its whole path would only make the list hard to read.
        path = run.paths.get(centre, {}).get(entry["key"], entry["key"])
        listed.append((entry["key"], entry["reason"].removeprefix(UNREADABLE).lstrip(": ").removeprefix(f"{path}: ")))
    return h.file_list(listed, "the feature store")


def _grid(
    pictures: list[Picture], columns: int, what: str, *, max_side: int | None = None, with_key: bool = False
) -> h.Html:
    tiles = []
    for picture in pictures:
        name = h.spaced(picture.name) or "unlabelled"
        caption = [h.tag("b", name), f" {picture.detail}" if picture.detail and not with_key else ""]
        if with_key:
            caption += [h.Html("<br>"), h.code(picture.key)]
        data = h.encode_image(picture.pixels, max_side=max_side)
        tiles.append((data, f"{what}, {name}, {picture.key}", h.join(caption, "")))
    return h.grid(tiles, columns)


def _save_sheet(run: Run, name: str, pictures: list[Picture], columns: int, tile_size: int) -> None:
    captions = [picture.name or picture.key for picture in pictures]
    pixels = sheet([picture.pixels for picture in pictures], columns, captions, tile_size=tile_size)
    run.save_figure(name, h.encode_image(pixels, photo=False))


def _short_reason(reason: str) -> str:
    return "unreadable file" if is_unreadable(reason) else reason
