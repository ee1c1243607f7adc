"""Figures of the thesis, put together from a study and drawn."""

import logging
import re
from collections.abc import Iterator, Sequence

import numpy as np

from experiments.evaluation.comparison import STANDARDISED, Comparison
from experiments.figures.files import Drawing
from experiments.figures.scores import (
    MAX_PANELS,
    draw_before_after,
    draw_bottleneck_curves,
    draw_confusions,
    draw_recall_intervals,
)
from experiments.figures.sheets import (
    HATCHES,
    draw_class_distribution,
    draw_photo_sheet,
    draw_reconstruction_grid,
    draw_segmentations,
)
from experiments.figures.style import choose_rows, draw_loss_curves, project
from experiments.reports.pictures import open_image
from experiments.reports.report_pictures import overlays, training_samples
from experiments.reports.run_folder import Run, read_rows
from experiments.thesis.ablation import MAPPED, train_columns
from experiments.thesis.bottleneck import FIGURES, Bottleneck, scored_centre, settings_variants, train_grid
from experiments.thesis.study import Study
from mrcnn.data.augmentation import augment_instances, thesis_augmenters
from mrcnn.feature_store import open_store
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import hash_arrays

log = logging.getLogger(__name__)

MAX_POINTS = 3000  # of a map
MAX_METHODS = 8  # whose recalls can be told apart in a figure
OTHER_NAME = "none of these"
SAMPLE_FIGURES = 3  # Figures 3.1, 3.2, 3.3; further centres share the last number


def augmentation_sheet(study: Study) -> Iterator[Drawing]:
    """Figure 2.6: training images of the detector, and each of the thesis' augmentations by itself."""
    run = _run(study)
    samples = training_samples(run, run.read_json("detector/split.json") or {}, 4)
    if not samples:
        raise InputError("figure-2.6: the images that the detector was trained on are gone; put them back")
    rows, augmenters = [], thesis_augmenters()
    for number, (image, masks) in enumerate(samples):
        versions = [image]
        for name, augmenter in augmenters.items():
            changed = (
                augment_instances(image, masks, augmenter, (study.settings.seed, number, attempt, len(name))).image
                for attempt in range(20)
            )
            # A mirror is one only every other time; a sheet of it shows it done.
            versions.append(next((c for c in changed if not np.array_equal(c, image)), image))
        rows.append((f"image {number + 1}", versions))
    figure = draw_photo_sheet(rows, captions=["original", *augmenters])
    yield Drawing("figure-2.6", "Augmentations of the detector's training images (thesis Figure 2.6)", figure)


def sample_sheets(study: Study, number: int) -> Iterator[Drawing]:
    """Figure 3.1, 3.2 or 3.3: images of every class of the centre of this number, under the centre's own names.

    Figure 3.3 shows all centres from the third on, each in files of its own.
    """
    for position, (name, centre) in enumerate(study.centres.items(), 1):
        if min(position, SAMPLE_FIGURES) != number:
            continue
        by_label: dict[str, list] = {}
        for record in centre.records:
            by_label.setdefault(record.label or "unlabelled", []).append(record)
        rows = []
        for label, records in sorted(by_label.items()):
            chosen = choose_rows(len(records), study.settings.reproduce.figure_cells, study.settings.seed)
            photos = [image for image in (open_image(records[i].path) for i in chosen) if image is not None]
            rows.append((f"{label} ({len(records):,})", photos))
        if not any(photos for _, photos in rows):
            raise InputError(f"figure-3.{number}: none of the images of {name} that were chosen can be opened")
        suffix = "-" + re.sub(r"[^\w.\-]+", "-", name) if position > SAMPLE_FIGURES else ""
        title = f"Images of {name}, by its own classes with their counts (thesis Figure 3.{number})"
        yield Drawing(f"figure-3.{number}{suffix}", title, draw_photo_sheet(rows))


def class_distribution(study: Study) -> Iterator[Drawing]:
    """Figure 3.4: images of each class of the comparison, by centre."""
    counts = {name: centre.counts for name, centre in study.centres.items()}
    if len(counts) > len(HATCHES):
        log.warning("figure-3.4: not drawn, since bars of more than %d centres cannot be told apart", len(HATCHES))
        return
    figure = draw_class_distribution(counts, study.class_map.classes)
    yield Drawing("figure-3.4", "Images of each cell type, by centre (thesis Figure 3.4)", figure)


def segmentations(study: Study) -> Iterator[Drawing]:
    """Figure 3.5: what the detector finds, drawn over images of every centre."""
    study.stores()
    run = _run(study)
    pictures = [
        (f"{centre}: {picture.name.replace('_', ' ') or 'unlabelled'}", picture.pixels)
        for centre in study.centres
        for picture in overlays(run, centre, max(2, 12 // len(study.centres)))[0]
    ]
    if not pictures:
        raise InputError("figure-3.5: no cell was found whose image is still there")
    figure = draw_segmentations(pictures)
    inputs = {name: store["fingerprint"] for name, store in study.described().items()}
    yield Drawing("figure-3.5", "Cells as the detector outlines them (thesis Figure 3.5)", figure, inputs)


def reconstructions(study: Study, name: str) -> Iterator[Drawing]:
    """One of Figures 3.6 to 3.13: reconstructed images over the sizes of the bottleneck, if the settings have it."""
    from autoencoder.embedding import reconstruct  # imports TensorFlow

    variant = next((each for each in settings_variants(study) if FIGURES[each] == name), None)
    if variant is None:
        log.warning("%s: not drawn, since the settings do not have its variant", name)
        return
    centre = scored_centre(study)
    path = study.stores(variant.backbone)[centre]
    with open_store(path) as store:
        rows = choose_rows(len(store), study.settings.reproduce.figure_cells, study.settings.seed)
    folders = train_grid(study, [variant])
    found = {f"BN {size}": reconstruct(folder, path, rows) for (_, size), folder in folders.items()}
    originals = next(iter(found.values()))[0]
    figure = draw_reconstruction_grid(originals, {name: images for name, (_, images) in found.items()})
    shown = name.capitalize().replace("-", " ")
    title = f"Reconstructions of {centre} by bottleneck size: {variant.name} (thesis {shown})"
    yield Drawing(name, title, figure, study.weights_hashes(folders.values()))


def maps(study: Study) -> Iterator[Drawing]:
    """Figure 3.14: UMAP of the latents without and with adaptation, by centre and by type."""
    trained = train_columns(study, MAPPED, training_runs=1)
    cells = study.cells()
    sizes = [len(types) for types in cells.types.values()]
    rows = choose_rows(sum(sizes), MAX_POINTS, study.settings.seed)
    centres = np.concatenate([np.full(size, name) for size, name in zip(sizes, cells.types, strict=True)])[rows]
    types = np.concatenate(list(cells.types.values()))[rows]
    points, folders = [], [trained[column][0] for column in MAPPED]
    for folder in folders:
        latents = study.latents(folder)
        vectors = np.concatenate([latents[name] for name in cells.types])[rows]

        def lay_out(vectors: np.ndarray = vectors) -> dict[str, np.ndarray]:
            laid_out, method = project(vectors, study.settings.seed)
            return {"points": laid_out, "method": np.array(method)}

        inputs = {"vectors": hash_arrays(vectors), "seed": study.settings.seed}
        found = study.cache.arrays("maps", inputs, lay_out)
        points.append(found["points"])
    figure = draw_before_after(*points, centres, types, list(cells.types), cells.classes)
    title = f"{found['method']} of the latents of {len(rows):,} cells, before and after adaptation (thesis Figure 3.14)"
    yield Drawing("figure-3.14", title, figure, study.weights_hashes(folders))


def training_curves(study: Study) -> Iterator[Drawing]:
    """Losses of the detector and of the autoencoders of Table 3.2 over their training."""
    rows = _run(study).read_csv("detector/log.csv")
    if rows:
        panels = {"Detector": ("loss",), "Masks": ("mrcnn_mask_loss",), "Boxes": ("mrcnn_bbox_loss",)}
        step = "epoch" if "epoch" in rows[0] else "step"
        figure = draw_loss_curves({study.backbone: rows}, panels, step_column=step)
        yield Drawing("curves-detector", "Training of the detector", figure)
    trained = train_columns(study, study.settings.reproduce.ablation.columns, training_runs=1)
    logs = {name: read_rows(folders[0] / "log.csv") for name, folders in trained.items()}
    logs = {name: rows for name, rows in logs.items() if rows}
    if logs:
        panels = {"Features (MSE)": ("feature_loss",), "Image": ("image_loss",), "Adaptation": ("adaptation_loss",)}
        figure = draw_loss_curves(logs, panels, log_scale=True)
        inputs = study.weights_hashes(folders[0] for folders in trained.values())
        yield Drawing("curves-autoencoders", "Training of the autoencoders of Table 3.2", figure, inputs)


def comparison_figures(comparison: Comparison, table: str) -> Iterator[Drawing]:
    """Recall of each class with intervals, and confusion matrices, of the columns of a table.

    They are across centres, or, where there is only one centre, within it.
    """
    across = len(comparison.cells.centres) > 1
    where = "across centres" if across else "within the centre"
    names = [name for name in comparison.columns if comparison.predicted(name, across)]
    if not names:
        return
    plain = [name for name in names if not name.endswith(STANDARDISED)] or names
    shown = _at_most(MAX_METHODS, plain, f"{table}-recall")
    recalls = {name: comparison.recall(name, across) for name in shown}
    classes = [name for name in comparison.cells.classes if any(name in recall for recall in recalls.values())]
    title = f"Recall of each class {where}, with 95 % intervals ({table})"
    yield Drawing(f"{table}-recall", title, draw_recall_intervals(recalls, classes))
    classes = list(comparison.cells.classes)
    shown = _at_most(MAX_PANELS, names, f"{table}-confusion")
    matrices = {name: comparison.confusion(name, across) for name in shown}
    # Predictions outside the classes are one class more, or shares of a row would be too large.
    classes += [OTHER_NAME] if any(matrix[:, -1].any() for matrix in matrices.values()) else []
    size = len(classes)
    figure = draw_confusions({name: matrix[:size, :size] for name, matrix in matrices.items()}, classes)
    yield Drawing(f"{table}-confusion", f"Confusion matrices {where} ({table})", figure)


def _at_most(limit: int, names: Sequence[str], figure: str) -> list[str]:
    """The first names; the others are logged."""
    if len(names) > limit:
        log.warning("%s: has no room for %s", figure, ", ".join(names[limit:]))
    return list(names[:limit])


def bottleneck_figure(result: Bottleneck) -> Drawing:
    """Accuracy over the size of the bottleneck."""
    accuracy = {
        variant.name: {size: (np.mean(runs), np.std(runs)) for size, runs in by_size.items()}
        for variant, by_size in result.by_variant("accuracy").items()
    }
    title = f"Accuracy in {result.centre} over the size of the bottleneck (thesis Table 3.1)"
    return Drawing("table-3.1-accuracy", title, draw_bottleneck_curves(accuracy))


def _run(study: Study) -> Run:
    """The run of the configuration's backbone, with its detector, for the pictures that a report has too."""
    pipeline = study.detector()
    records = {name: centre.records for name, centre in study.opened.items()}
    return Run(pipeline.output, pipeline.settings, records, study.settings.seed)
