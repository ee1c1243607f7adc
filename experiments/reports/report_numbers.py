"""Sections of a report that show numbers: the head, the detector's scores, training curves, settings."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from matplotlib.figure import Figure

from experiments.figures.style import draw_loss_curves, draw_score_dots, to_png
from experiments.reports import html as h
from experiments.reports.run_folder import AUTOENCODER_NAMES, AUTOENCODERS, Run

METHOD_NOTES = {
    "R-CNN-RF": "a forest on the detector's own features, no autoencoder",
    "AE-RF": "a forest on the latents of an autoencoder without domain adaptation",
    "AE-CFE": "a forest on the latents of the autoencoder that pulls the centres together",
}


def cross_centre_section(run: Run) -> h.Html:
    """The table of all methods on all pairs of centres, and what the centres hold."""
    title = "Does a classifier travel from centre to centre?"
    results = run.read_json("tables/cross_centre.json")
    if results is None:
        return h.section("cross-centre", title, h.not_run("The cross-centre evaluation", "tables/cross_centre.json"))
    methods, settings = results["methods"], results["settings"]
    entries = {(s["trained_on"], s["tested_on"], s["method"]): s for s in results["scores"]}
    pairs = [(a, b) for a in results["centres"] for b in results["centres"]]
    tested = {
        "test": "on the test part of every centre",
        "all": "on all cells of the other centres, and on the test part of its own",
    }[settings["test_on"]]
    protocol = (
        f"Protocol: random forest of {settings['trees']} trees of depth {settings['max_depth']} at most, "
        f"trained on the training part (80 %) of one centre, tested {tested}; mean ± standard deviation "
        f"over {settings['runs']} forests that differ in their seed."
    )
    explained = (
        "Each row trains a classifier on the labels of one centre and lets it name the cells of another. "
        "Accuracy is the share of cells named rightly; balanced accuracy gives every cell type the same "
        "weight, however rare it is. A method is of use only above the column “largest class”: the "
        "accuracy of calling every cell by the commonest type. The rows that matter are those between "
        "different centres; tinted rows stay at home."
    )
    figures = []
    if pairs and methods:
        data = to_png(_score_figure(pairs, methods, entries))
        run.save_figure("cross_centre", data)
        caption = (
            "Balanced accuracy of each method, trained on the first centre and tested on the second; "
            "the grey mark is one type named for every cell."
        )
        figures = [h.figure(data, caption, caption, kind="narrow")]
    known = [h.Html(f"<b>{h.escape(m)}</b>: {h.escape(METHOD_NOTES[m])}") for m in methods if m in METHOD_NOTES]
    return h.section(
        "cross-centre",
        title,
        h.paragraph(explained),
        _score_table(pairs, methods, entries),
        h.paragraph(h.join(known, "; "), "." if known else "", kind="note"),
        h.paragraph(protocol, kind="note"),
        *figures,
        h.details("More measures of each row", _measure_table(results)),
        h.tag("h3", "What the centres hold"),
        h.paragraph("Centres that differ in how common the types are also differ in how hard they are.", kind="note"),
        _class_table(results),
    )


def means_across(results: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Mean accuracy and balanced accuracy of each method over the pairs of different centres."""
    means = {}
    for method in results["methods"]:
        rows = [s for s in results["scores"] if s["method"] == method and s["trained_on"] != s["tested_on"]]
        if rows:
            means[method] = tuple(
                sum(s[name]["mean"] for s in rows) / len(rows) for name in ("accuracy", "balanced_accuracy")
            )
    return means


def _score_table(pairs: Sequence[tuple[str, str]], methods: Sequence[str], entries: Mapping[tuple, Any]) -> h.Html:
    """Accuracy and balanced accuracy of each method on each pair; the best of a row is bold."""
    measures = ("accuracy", "balanced_accuracy")
    groups = h.tag(
        "tr",
        *(h.tag("th", "") for _ in range(2)),
        *(h.tag("th", method, class_="number", colspan=2, scope="colgroup") for method in methods),
        *(h.tag("th", "") for _ in range(2)),
        class_="groups",
    )
    columns = [h.tag("th", name, scope="col") for name in ("Trained on", "Tested on")]
    names = [*("accuracy", "balanced") * len(methods), "largest class", "cells"]
    head_row = h.tag("tr", *columns, *(h.tag("th", name, class_="number", scope="col") for name in names))
    rows, rates = [], []
    for trained_on, tested_on in pairs:
        found = [entries.get((trained_on, tested_on, method)) for method in methods]
        best = {m: max((e[m]["mean"] for e in found if e), default=None) for m in measures}
        cells = [h.tag("th", tested_on, scope="row")]
        for entry in found:
            for measure in measures:
                if entry is None:
                    cells.append(h.cell(h.DASH))
                    continue
                is_best = len(methods) > 1 and entry[measure]["mean"] == best[measure]
                cells.append(h.cell(_with_spread(entry[measure]), best=is_best))
        some = next((entry for entry in found if entry), None)
        cells += [h.cell(h.percent(some["majority_rate"])), h.cell(f"{some['num_test']:,}")] if some else []
        if some and trained_on != tested_on:
            rates.append(some["majority_rate"])
        rows.append(h.row(trained_on, cells, kind="same" if trained_on == tested_on else None))
    means = means_across({"methods": methods, "scores": list(entries.values())})
    if means:
        best = [max(mean[i] for mean in means.values()) for i in range(2)]
        cells = [h.tag("th", "mean of other centres", scope="row")]
        for method in methods:
            for i in range(2):
                value = means[method][i] if method in means else None
                is_best = len(means) > 1 and value == best[i]
                cells.append(h.cell(h.DASH if value is None else h.percent(value), best=is_best))
        rows.append(h.row("", [*cells, h.cell(h.percent(sum(rates) / len(rates))), h.cell("")], kind="total"))
    return h.table(
        [groups, head_row], rows, "Share of test cells named rightly, in percent; the best of a row is bold."
    )


def _measure_table(results: Mapping[str, Any]) -> h.Html:
    """Interval, macro F1 and numbers of cells of each row and method."""
    names = ("accuracy", "95 % interval", "macro F1", "training cells", "test cells", "of unseen types")
    texts = [h.tag("th", name, scope="col") for name in ("Trained on", "Tested on", "Method")]
    head_row = h.tag("tr", *texts, *(h.tag("th", name, class_="number", scope="col") for name in names))
    rows = []
    for entry in results["scores"]:
        low, high = entry["accuracy_interval"]
        cells = [
            h.cell(entry["tested_on"], number=False),
            h.cell(entry["method"], number=False),
            h.cell(_with_spread(entry["accuracy"])),
            h.cell(f"{100 * low:.1f} to {100 * high:.1f}"),
            h.cell(_with_spread(entry["macro_f1"])),
            *(h.cell(f"{entry[name]:,}") for name in ("num_train", "num_test", "num_unseen")),
        ]
        rows.append(h.row(entry["trained_on"], cells))
    caption = (
        "The interval (Wilson) says how sure the accuracy is for so many test cells. Cells of unseen types "
        "cannot be named rightly, since the training centre has none of them."
    )
    return h.table([head_row], rows, caption)


def _class_table(results: Mapping[str, Any]) -> h.Html:
    """Cells of each class in each centre."""
    counts, centres = results["class_counts"], list(results["class_counts"])
    rows = [h.row(h.spaced(n), [h.cell(f"{counts[c].get(n, 0):,}") for c in centres]) for n in results["classes"]]
    total = [sum(counts[c].values()) + results["unlabelled"].get(c, 0) for c in centres]
    rows.append(h.row("without a cell type", [h.cell(f"{results['unlabelled'].get(c, 0):,}") for c in centres]))
    rows.append(h.row("all cells", [h.cell(f"{value:,}") for value in total], kind="total"))
    return h.table([h.head_row("Cell type", centres)], rows, "Cells found, by type and centre.")


def _score_figure(pairs: Sequence[tuple[str, str]], methods: Sequence[str], entries: Mapping[tuple, Any]) -> Figure:
    scores = {}
    chance = [0.0] * len(pairs)
    for method in methods:
        found = [entries.get((*pair, method)) for pair in pairs]
        scores[method] = [e and (e["balanced_accuracy"]["mean"], e["balanced_accuracy"]["std"]) for e in found]
        # One class named for every cell has recall 1, the others 0.
        chance = [1 / len(e["recall"]) if e else c for e, c in zip(found, chance, strict=True)]
    names = [f"{trained_on} → {tested_on}" for trained_on, tested_on in pairs]
    return draw_score_dots(names, scores, chance, xlabel="balanced accuracy")


def _with_spread(value: Mapping[str, float]) -> h.Html:
    spread = h.tag("span", f" ± {100 * value['std']:.1f}", class_="spread")
    return h.Html(f"{100 * value['mean']:.1f}{spread}")


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
