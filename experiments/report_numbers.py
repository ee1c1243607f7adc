"""Sections of a report that show numbers: the head, the detector's scores, training curves, settings."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from experiments import report_html as h
from experiments.figures import draw_loss_curves, to_png
from experiments.report_run import AUTOENCODER_NAMES, AUTOENCODERS, Run
from experiments.report_scores import means_across

METRIC_NAMES = {
    "truth": "Compared with",
    "held_out": "Centre known from training (other images)",
    "box_ap50": "Box AP at IoU 0.5",
    "box_map": "Box AP, IoU 0.5 to 0.95",
    "mask_ap50": "Mask AP at IoU 0.5",
    "mask_map": "Mask AP, IoU 0.5 to 0.95",
    "precision": "Precision at the score threshold",
    "recall": "Recall at the score threshold",
    "detection_rate": "Images with a detection",
    "images_with_detection": "Images with a detection (count)",
    "num_images": "Images",
    "num_cells": "Cells in them",
    "num_unreadable": "Unreadable images",
    "score_threshold": "Score threshold",
}
DETECTOR_PANELS = {
    "All terms": ("loss",),
    "Proposals": ("rpn_class_loss", "rpn_bbox_loss"),
    "Heads": ("mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"),
}


def head(run: Run) -> h.Html:
    """Title, what this run is, and key numbers."""
    centres = ", ".join(run.centres)
    learned = ", ".join(run.settings.detector.train_on)
    intro = (
        f"This run compares white blood cells of {len(run.centres)} centres ({centres}). A detector that "
        f"learns from {learned} finds the cells, autoencoders describe each cell by a short list of "
        "numbers, and classifiers that see the labels of one centre name the cells of all. This page shows "
        "how well each step went."
    )
    return h.join(
        [
            h.tag("h1", f"{run.settings.name}: white blood cells across centres"),
            h.paragraph(intro, kind="lead"),
            h.cards(_key_numbers(run)),
        ]
    )


def detector_section(run: Run) -> h.Html:
    """Scores of the detector on each centre, and its training curves."""
    title = "How well are the cells found?"
    metrics = (run.read_json("detector/metrics.json") or {}).get("centres")
    content: list[h.Html] = []
    if metrics:
        content.append(
            h.paragraph(
                "AP (average precision) is 1 when every cell is found, tightly and without false alarms. "
                "IoU is the overlap of what was found with the truth: at 0.5 half is enough, the mean over "
                "0.5 to 0.95 asks for exact outlines. No image that the detector learned from is counted."
            )
        )
        content.append(_metric_table(metrics))
    else:
        content.append(h.not_run("The evaluation of the detector", "detector/metrics.json"))
    rows = run.read_csv("detector/log.csv")
    if rows:
        data = to_png(draw_loss_curves({"detector": rows}, DETECTOR_PANELS))
        caption = "Training losses of the detector over its steps; dashed lines are held-out images."
        content.append(h.figure(run.save_figure("detector_training", data), caption, caption))
    else:
        content.append(h.not_run("The training of the detector", "detector/log.csv"))
    return h.section("detector", title, *content)


def autoencoder_curves(run: Run) -> h.Html:
    """Training curves of the autoencoders."""
    logs = {AUTOENCODER_NAMES[n]: run.read_csv(f"{folder}/log.csv") for n, folder in AUTOENCODERS.items()}
    logs = {name: rows for name, rows in logs.items() if rows}
    if not logs:
        return h.not_run("The training of the autoencoders", "autoencoder/log.csv")
    panels = {
        "Features (MSE)": ("feature_loss",),
        "Image": ("image_loss",),
        "Adaptation (distance of centres)": ("adaptation_loss",),
    }
    data = to_png(draw_loss_curves(logs, panels, log_scale=True))
    caption = (
        "Training losses of the autoencoders, logarithmic. The adaptation loss is the distance between the "
        "centres' latents; where it is small while the other two still fall, the centres have been brought "
        "together."
    )
    return h.figure(run.save_figure("autoencoder_training", data), "Training losses of the autoencoders", caption)


def settings_section(run: Run) -> h.Html:
    """Everything that made this run: settings, versions, command."""
    content = [
        h.details(
            "Settings of the run (YAML)",
            h.tag("pre", yaml.safe_dump(run.settings.to_dict(), sort_keys=False, allow_unicode=True)),
        )
    ]
    for name, folder in (
        ("detector", "detector"),
        *((AUTOENCODER_NAMES[n], f) for n, f in AUTOENCODERS.items()),
    ):
        values = run.read_json(f"{folder}/config.json")
        if values is not None:
            written = json.dumps(values, indent=2, ensure_ascii=False)
            content.append(h.details(f"All settings of the {name} (JSON)", h.tag("pre", written)))
    folders = {"detector": "detector", **AUTOENCODERS}
    records = {name: run.read_json(f"{folder}/run.json") for name, folder in folders.items()}
    records = {name: record for name, record in records.items() if record}
    if not records:
        content.append(h.not_run("The training of a model", "detector/run.json"))
        return h.section("settings", "How this was made", *content)
    versions = {name: record.get("versions", {}) for name, record in records.items()}
    libraries = list(dict.fromkeys(library for known in versions.values() for library in known))
    rows = [h.row(lib, [h.cell(versions[n].get(lib, h.DASH)) for n in versions]) for lib in libraries]
    content.append(h.table([h.head_row("Version of", versions)], rows, "What each part was trained with."))
    rows = [
        h.row(
            name,
            [
                h.cell("yes" if record.get("complete") else "no"),
                h.cell(record.get("seed", h.DASH)),
                h.cell(f"{record['seconds'] / 60:.1f} min" if "seconds" in record else h.DASH),
            ],
        )
        for name, record in records.items()
    ]
    content.append(h.table([h.head_row("Training", ("finished", "seed", "time"))], rows))
    commands = {shlex.join(map(str, record.get("command") or ())) for record in records.values()} - {""}
    if commands:
        content.append(h.paragraph("Made by:"))
        content.append(h.tag("pre", "\n".join(sorted(commands))))
    return h.section("settings", "How this was made", *content)


def _key_numbers(run: Run) -> list[tuple[str, str, str]]:
    """Cards: (name, value, detail)."""
    items = []
    if run.summaries:
        cells = {name: summary.counts["cells"] for name, summary in run.summaries.items()}
        detail = ", ".join(f"{name} {count:,}" for name, count in cells.items())
        items.append(("Cells", f"{sum(cells.values()):,}", detail))
        images, found = (sum(s.counts[n] for s in run.summaries.values()) for n in ("images", "found"))
        if images:
            items.append(("Images with a cell found", h.percent(found / images), f"{found:,} of {images:,} images"))
    metrics = (run.read_json("detector/metrics.json") or {}).get("centres", {})
    for known, name in ((True, "Detector AP50, held-out images"), (False, "Detector AP50, unseen centres")):
        values = {
            c: m["box_ap50"] for c, m in metrics.items() if m.get("held_out") is known and _is_number(m.get("box_ap50"))
        }
        if values:
            detail = ", ".join(f"{centre} {value:.2f}" for centre, value in values.items())
            items.append((name, f"{sum(values.values()) / len(values):.2f}", detail))
    steps = {n: (run.read_json(f"{AUTOENCODERS[n]}/run.json") or {}).get("steps") for n in run.autoencoders}
    steps = {n: count for n, count in steps.items() if count}
    if steps:
        detail = ", ".join(f"{name} {count:,}" for name, count in steps.items())
        items.append(("Autoencoder steps", f"{max(steps.values()):,}", detail))
    results = run.read_json("tables/cross_centre.json")
    means = means_across(results) if results else {}
    if means:
        best = max(means, key=lambda method: means[method][1])
        detail = ", ".join(f"{method} {h.percent(mean[1])}" for method, mean in means.items())
        items.append(("Best balanced accuracy elsewhere", h.percent(means[best][1]), detail))
    return items


def _metric_table(metrics: Mapping[str, Mapping[str, Any]]) -> h.Html:
    """One column for each centre, one row for each measure that any of them has."""
    measured = {name for values in metrics.values() for name in values}
    names = [name for name in METRIC_NAMES if name in measured]
    names += sorted(measured - set(METRIC_NAMES))
    rows = [
        h.row(
            METRIC_NAMES.get(name, h.spaced(name)),
            [h.cell(_show(v.get(name), name)) for v in metrics.values()],
        )
        for name in names
    ]
    return h.table([h.head_row("Measure", metrics)], rows)


def _show(value: Any, name: str) -> str:
    if value is None:
        return h.DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}" if name == "score_threshold" else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
