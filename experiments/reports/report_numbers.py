"""Numbers of a report: the cards at its head, scores across centres, the detector, settings."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from experiments.figures.style import draw_loss_curves, draw_score_dots, to_png
from experiments.reports.page import DASH, Embedded, Row, Table, embed, percent, spaced
from experiments.reports.run_folder import AUTOENCODER_NAMES, AUTOENCODERS, Run

METHOD_NOTES = {
    "R-CNN-RF": "a random forest on the detector's own features, no autoencoder",
    "AE-RF": "a random forest on the latents of an autoencoder without domain adaptation",
    "AE-CFE": "a random forest on the latents of the autoencoder with domain adaptation",
}
METRIC_NAMES = {
    "truth": "Compared with",
    "held_out": "Centre known from training (other images)",
    "box_ap50": "Box AP at IoU 0.5",
    "box_map": "Box AP, IoU 0.5 to 0.95",
    "mask_ap50": "Mask AP at IoU 0.5",
    "mask_map": "Mask AP, IoU 0.5 to 0.95",
    "precision": "Precision at the minimum score",
    "recall": "Recall at the minimum score",
    "detection_rate": "Images with a detection",
    "images_with_detection": "Images with a detection (count)",
    "num_images": "Images",
    "num_cells": "Cells in them",
    "num_unreadable": "Unreadable images",
    "score_threshold": "Minimum score",
}
DETECTOR_PANELS = {
    "All terms": ("loss",),
    "Proposals": ("rpn_class_loss", "rpn_bbox_loss"),
    "Heads": ("mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"),
}
AUTOENCODER_PANELS = {
    "Features (MSE)": ("feature_loss",),
    "Image": ("image_loss",),
    "Adaptation (distance of centres)": ("adaptation_loss",),
}
TABLE = "tables/cross_centre.json"
_MEASURES = ("accuracy", "balanced_accuracy")

Pairs = Sequence[tuple[str, str]]
Entries = Mapping[tuple[str, str, str], Mapping[str, Any]]  # by training centre, test centre and method


def cross_centre_section(run: Run) -> dict[str, Any]:
    """The table of all methods on all pairs of centres, and what the centres hold."""
    results = run.read_json(TABLE)
    if results is None:
        return {}
    methods, settings = results["methods"], results["settings"]
    entries: dict[tuple[str, str, str], Any] = {}
    for score in results["scores"]:  # of several classifiers, the first is that of the main tables
        entries.setdefault((score["trained_on"], score["tested_on"], score["method"]), score)
    pairs = [(a, b) for a in results["centres"] for b in results["centres"]]
    return {
        "scores": _score_table(pairs, methods, entries),
        "notes": [(name, METHOD_NOTES[name]) for name in methods if name in METHOD_NOTES],
        **{name: settings[name] for name in ("trees", "max_depth", "test_on", "runs")},
        "figure": _score_figure(run, pairs, methods, entries) if pairs and methods else None,
        "measures": _measure_table(results["scores"]),
        "counts": _class_table(results),
    }


def detector_section(run: Run) -> dict[str, Any]:
    """Scores of the detector on each centre, and its training curves."""
    metrics = (run.read_json("detector/metrics.json") or {}).get("centres")
    rows = run.read_csv("detector/log.csv")
    curves = None
    if rows:
        alt = "Training losses of the detector over its steps; dashed lines are held-out images."
        figure = draw_loss_curves({"detector": rows}, DETECTOR_PANELS)
        curves = embed(run.save_figure("detector_training", to_png(figure)), alt)
    return {"metrics": _metric_table(metrics) if metrics else None, "curves": curves}


def autoencoder_curves(run: Run) -> Embedded | None:
    """Training curves of the autoencoders."""
    logs = {AUTOENCODER_NAMES[n]: run.read_csv(f"{folder}/log.csv") for n, folder in AUTOENCODERS.items()}
    logs = {name: rows for name, rows in logs.items() if rows}
    if not logs:
        return None
    data = to_png(draw_loss_curves(logs, AUTOENCODER_PANELS, log_scale=True))
    return embed(run.save_figure("autoencoder_training", data), "Training losses of the autoencoders")


def settings_section(run: Run) -> dict[str, Any]:
    """Everything that made this run: settings, versions, command."""
    folders = {"detector": "detector", **{AUTOENCODER_NAMES[n]: folder for n, folder in AUTOENCODERS.items()}}
    written = yaml.safe_dump(run.settings.to_dict(), sort_keys=False, allow_unicode=True)
    files = [("Settings of the run (YAML)", written)]
    for name, folder in folders.items():
        if (values := run.read_json(f"{folder}/config.json")) is not None:
            text = json.dumps(values, indent=2, ensure_ascii=False)
            files.append((f"All settings of the {name} (JSON)", text))
    records = {name: run.read_json(f"{folder}/run.json") for name, folder in folders.items()}
    records = {name: record for name, record in records.items() if record}
    versions = {name: record.get("versions", {}) for name, record in records.items()}
    libraries = list(dict.fromkeys(library for known in versions.values() for library in known))
    trainings = [
        Row(
            (
                name,
                _show(bool(r.get("complete"))),
                str(r.get("seed", DASH)),
                f"{r['seconds'] / 60:.1f} min" if "seconds" in r else None,
            )
        )
        for name, r in records.items()
    ]
    return {
        "files": files,
        "versions": Table(
            ("Version of", *versions),
            [Row((library, *(known.get(library) for known in versions.values()))) for library in libraries],
            "What each part was trained with.",
        ),
        "trainings": Table(("Training", "finished", "seed", "time"), trainings) if trainings else None,
        "commands": sorted({shlex.join(map(str, r.get("command") or ())) for r in records.values()} - {""}),
    }


def key_numbers(run: Run) -> list[tuple[str, str, str]]:
    """Cards: (name, value, detail)."""
    items = []
    if run.summaries:
        cells = {name: summary.counts["cells"] for name, summary in run.summaries.items()}
        items.append(("Cells", f"{sum(cells.values()):,}", _listed(cells, "{:,}")))
        images, found = (sum(s.counts[n] for s in run.summaries.values()) for n in ("images", "found"))
        if images:
            items.append(("Images with a cell found", percent(found / images), f"{found:,} of {images:,} images"))
    metrics = (run.read_json("detector/metrics.json") or {}).get("centres", {})
    for known, name in ((True, "Detector AP50, held-out images"), (False, "Detector AP50, unseen centres")):
        values = {c: m.get("box_ap50") for c, m in metrics.items() if m.get("held_out") is known}
        values = {centre: value for centre, value in values.items() if value is not None}
        if values:
            items.append((name, f"{sum(values.values()) / len(values):.2f}", _listed(values, "{:.2f}")))
    steps = {n: (run.read_json(f"{AUTOENCODERS[n]}/run.json") or {}).get("steps") for n in run.autoencoders}
    steps = {n: count for n, count in steps.items() if count}
    if steps:
        items.append(("Autoencoder steps", f"{max(steps.values()):,}", _listed(steps, "{:,}")))
    means = _means_across((run.read_json(TABLE) or {"scores": []})["scores"])
    if means:
        balanced = {method: 100 * mean[1] for method, mean in means.items()}
        best = f"{max(balanced.values()):.1f} %"
        items.append(("Best balanced accuracy across centres", best, _listed(balanced, "{:.1f} %")))
    return items


def _means_across(scores: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Mean accuracy and balanced accuracy of each method over the pairs of different centres."""
    across: dict[str, list[Mapping[str, Any]]] = {}
    for score in scores:
        if score["trained_on"] != score["tested_on"]:
            across.setdefault(score["method"], []).append(score)
    return {m: [sum(s[name]["mean"] for s in rows) / len(rows) for name in _MEASURES] for m, rows in across.items()}


def _score_table(pairs: Pairs, methods: Sequence[str], entries: Entries) -> Table:
    """Accuracy and balanced accuracy of each method on each pair; the best of a row is bold."""
    rows, rates = [], []
    for pair in pairs:
        found = [entries.get((*pair, method)) for method in methods]
        best = [max((e[n]["mean"] for e in found if e), default=None) if len(methods) > 1 else None for n in _MEASURES]
        scores = [e and _score(e[n], best[i]) for e in found for i, n in enumerate(_MEASURES)]
        some = next((entry for entry in found if entry), None)
        rate, cells = (some["majority_rate"], some["num_test"]) if some else (None, None)
        rows.append(Row((*pair, *scores, rate and percent(rate), cells), "same" if pair[0] == pair[1] else ""))
        rates += [rate] if some and pair[0] != pair[1] else []
    means = _means_across(list(entries.values()))
    if means:
        best = [max(column) for column in zip(*means.values(), strict=True)]
        values = [(means.get(method, (None, None))[i], i) for method in methods for i in range(2)]
        cells = [v and _cell(percent(v), is_best=len(means) > 1 and v == best[i]) for v, i in values]
        rows.append(Row(("", "mean across centres", *cells, percent(sum(rates) / len(rates)), ""), "total"))
    names = ("accuracy", "balanced") * len(methods)
    return Table(
        ("Trained on", "Tested on", *names, "majority-class baseline", "cells"),
        rows,
        "Correct predictions of the test cells, in percent; the best of a row is bold.",
        texts=2,
        groups=[("", 2), *((method, 2) for method in methods), ("", 2)],
    )


def _measure_table(scores: Sequence[Mapping[str, Any]]) -> Table:
    """Interval, macro F1 and numbers of cells of each row and method."""
    rows = []
    for entry in scores:
        low, high = entry["accuracy_interval"]
        accuracy, macro_f1 = _score(entry["accuracy"]), _score(entry["macro_f1"])
        names = [entry[name] for name in ("trained_on", "tested_on", "method")]
        numbers = [entry[name] for name in ("num_train", "num_test", "num_unseen")]
        rows.append(Row((*names, accuracy, f"{100 * low:.1f} to {100 * high:.1f}", macro_f1, *numbers)))
    return Table(
        ("Trained on", "Tested on", "Method", "accuracy", "95 % interval", "macro F1")
        + ("training cells", "test cells", "of unseen types"),
        rows,
        "The interval (Wilson) says how sure the accuracy is for so many test cells. Cells of unseen types cannot be "
        "predicted correctly, since the training centre has none of them.",
        texts=3,
    )


def _class_table(results: Mapping[str, Any]) -> Table:
    """Cells of each class in each centre."""
    counts, unlabelled = results["class_counts"], results["unlabelled"]
    rows = [Row((spaced(name), *(of.get(name, 0) for of in counts.values()))) for name in results["classes"]]
    rows.append(Row(("without a cell type", *(unlabelled.get(centre, 0) for centre in counts))))
    total = [sum(of.values()) + unlabelled.get(centre, 0) for centre, of in counts.items()]
    return Table(
        ("Cell type", *counts), [*rows, Row(("all cells", *total), "total")], "Cells found, by type and centre."
    )


def _score_figure(run: Run, pairs: Pairs, methods: Sequence[str], entries: Entries) -> Embedded:
    scores = {}
    chance = [0.0] * len(pairs)
    for method in methods:
        found = [entries.get((*pair, method)) for pair in pairs]
        scores[method] = [e and (e["balanced_accuracy"]["mean"], e["balanced_accuracy"]["std"]) for e in found]
        # The class that is predicted for every cell has recall 1, the others 0.
        chance = [1 / len(e["recall"]) if e else c for e, c in zip(found, chance, strict=True)]
    names = [f"{trained_on} → {tested_on}" for trained_on, tested_on in pairs]
    data = to_png(draw_score_dots(names, scores, chance, xlabel="balanced accuracy"))
    alt = (
        "Balanced accuracy of each method, trained on the first centre and tested on the second; the grey mark is the "
        "majority-class baseline."
    )
    return embed(run.save_figure("cross_centre", data), alt)


def _metric_table(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """One column for each centre, one row for each measure that any of them has."""
    measured = {name for values in metrics.values() for name in values}
    names = [name for name in METRIC_NAMES if name in measured]
    names += sorted(measured - set(METRIC_NAMES))
    rows = [Row((METRIC_NAMES.get(n, spaced(n)), *(_show(of.get(n)) for of in metrics.values()))) for n in names]
    return Table(("Measure", *metrics), rows)


def _score(value: Mapping[str, Any], best: float | None = None) -> dict[str, Any]:
    # A single run has no deviation, and not one of 0.
    spread = f"{100 * value['std']:.1f}" if len(value["runs"]) > 1 else ""
    return _cell(f"{100 * value['mean']:.1f}", spread, is_best=value["mean"] == best)


def _cell(text: str, spread: str = "", *, is_best: bool = False) -> dict[str, Any]:
    return {"text": text, "spread": spread, "best": is_best}


def _show(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else value


def _listed(values: Mapping[str, Any], form: str) -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())
